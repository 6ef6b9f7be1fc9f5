"""What every test shares: none may fail because the machine is busy, and none takes more than one core of it."""

import os

os.environ.setdefault("OMP_NUM_THREADS", "1")  # before torch is imported: the tests run side by side instead

import pytest  # noqa: E402
from hypothesis import settings  # noqa: E402
from tiny_world import tiny_world  # noqa: E402

settings.register_profile("worldmodel", settings(deadline=None))  # on top of Hypothesis's own profile for CI, in CI
settings.load_profile("worldmodel")


@pytest.fixture(scope="module")
def model(tmp_path_factory: pytest.TempPathFactory) -> str:
    """The folder of the tiny world."""
    folder = tmp_path_factory.mktemp("models") / "tiny"
    tiny_world().save_pretrained(folder)
    return str(folder)
