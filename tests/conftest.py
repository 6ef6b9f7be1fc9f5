"""What every test shares: none may fail because the machine is busy."""

from hypothesis import settings

settings.register_profile("worldmodel", settings(deadline=None))  # on top of Hypothesis's own profile for CI, in CI
settings.load_profile("worldmodel")
