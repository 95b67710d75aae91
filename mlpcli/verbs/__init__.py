"""The verbs of the command line, a subject a file: parse, call, print. Imports wait until one runs."""
