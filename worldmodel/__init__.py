"""The models, and what they learn from; `worldmodel.world.WorldModel` is the one to start with."""

from importlib.metadata import PackageNotFoundError, version

try:
    __version__ = version("worldmodel")
except PackageNotFoundError:  # run from a checkout that is not installed
    __version__ = "unknown"
