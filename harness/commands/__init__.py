"""The verbs of the command line. Thin: each parses its arguments, calls one function and prints what it returns."""
