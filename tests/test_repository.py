"""What is published is whole: the lock answers pyproject.toml, and no file is too big or tied to one machine."""

import re
import subprocess
import tomllib
from pathlib import Path

import pytest
from packaging.requirements import Requirement
from packaging.utils import canonicalize_name
from packaging.version import Version

ROOT = Path(__file__).parents[1]
PROJECT = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
REQUIREMENTS = PROJECT["dependencies"] + sum(PROJECT["optional-dependencies"].values(), [])


def locked() -> dict[str, str]:
    lines = (ROOT / "requirements.lock").read_text().splitlines()
    pins = dict(line.split("==") for line in lines if not line.startswith("#"))
    return {canonicalize_name(name): version for name, version in pins.items()}


def tracked() -> list[Path]:
    run = subprocess.run(["git", "ls-files", "-z"], cwd=ROOT, capture_output=True, text=True)
    if run.returncode != 0:
        pytest.skip("not a git checkout")
    return [path for name in run.stdout.split("\0") if name and (path := ROOT / name).is_file()]


@pytest.mark.parametrize("line", REQUIREMENTS)
def test_lock_satisfies_requirement(line: str) -> None:
    requirement = Requirement(line)
    assert Version(locked()[canonicalize_name(requirement.name)]) in requirement.specifier


def test_lock_fits_any_build_of_torch() -> None:
    """A local label (+cpu) or a CUDA package would tie the lock to one kind of machine."""
    assert [pin for pin in locked().items() if "+" in pin[1] or pin[0].startswith(("nvidia-", "cuda-", "triton"))] == []


def test_a_clone_stays_small() -> None:
    assert sum(path.stat().st_size for path in tracked()) < 60_000_000


def test_no_tracked_text_names_a_place_on_one_machine() -> None:
    """Model cards, configs and benchmarks are written by commands: none may carry along where its author's data was."""
    absolute = re.compile(r"(?<![\w.:/)}\-])/(?:home|root|Users|tmp|mnt|opt|work)/")
    found = set()
    for path in tracked():
        data = path.read_bytes()
        if b"\0" not in data[:8000] and path != Path(__file__) and absolute.search(data.decode(errors="replace")):
            found.add(path.relative_to(ROOT).as_posix())
    assert found == set()
