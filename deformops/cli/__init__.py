"""The command line: one module for each command, imported when it is used.

A command is a module with `add_arguments(parser)` and `run(arguments)`, which returns the exit
status.
"""
