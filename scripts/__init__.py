"""The command line: one file a command, each a dataclass of arguments and a `main`."""
