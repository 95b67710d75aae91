"""mlpcli trains multi-layer perceptrons from a YAML file."""

__version__ = "0.1.0"
