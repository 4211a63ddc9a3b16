"""The options of each command as one frozen value, checked where it is made.

The command line, recipes, the metadata, the docs and the Python signatures derive from its fields.
Nothing heavy is imported here: `--help` builds from it.
"""
