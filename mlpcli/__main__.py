"""`python -m mlpcli` is the same as `mlpcli`."""

from mlpcli.cli import main

main()
