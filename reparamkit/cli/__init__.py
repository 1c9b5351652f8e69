"""The command line: arguments in, calls of the public API, exit status out. One file per command."""
