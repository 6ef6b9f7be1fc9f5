"""What every test shares: none may fail because the machine is busy, and none takes more than one core of it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests run side by side instead

from hypothesis import settings  # noqa: E402

settings.register_profile("worldmodel", settings(deadline=None))  # on top of Hypothesis's own profile for CI, in CI
settings.load_profile("worldmodel")
