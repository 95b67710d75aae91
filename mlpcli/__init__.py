"""mlpcli trains multi-layer perceptrons from a YAML file."""

from importlib.metadata import version

__version__ = version("mlpcli")
