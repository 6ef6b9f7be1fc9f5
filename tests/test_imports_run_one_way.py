"""worldmodel <- envs <- agents <- scripts: no package knows the ones built on it, not even inside a function."""

import ast
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
PACKAGES = ["worldmodel", "envs", "agents", "scripts"]

# The models know nothing of environments. Minari imports Gymnasium, so only the module that converts its datasets may
# ask for it, and only when it is called.
NOT_IN_WORLDMODEL = {"gymnasium", "gym", "vizdoom", "deepmind_lab", "stable_baselines3", "minari", "pygame"}
EXCEPTIONS = {("worldmodel/importers.py", "minari")}


def imported_names(source: str) -> Iterator[str]:
    """Top-level names that the source imports anywhere: by a statement, or by `import_module` or `require`."""
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Import):
            yield from (alias.name.split(".")[0] for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            yield node.module.split(".")[0]
        elif isinstance(node, ast.Call) and node.args and isinstance(node.args[0], ast.Constant):
            function = node.func.attr if isinstance(node.func, ast.Attribute) else getattr(node.func, "id", "")
            if function in {"import_module", "__import__", "require"}:
                yield str(node.args[0].value).split(".")[0]


def violations(path: str, source: str) -> set[str]:
    package = path.split("/")[0]
    forbidden = set(PACKAGES[PACKAGES.index(package) + 1 :]) | {"tests"}
    if package == "worldmodel":
        forbidden |= NOT_IN_WORLDMODEL
    return {name for name in imported_names(source) if name in forbidden and (path, name) not in EXCEPTIONS}


def test_no_package_imports_one_above_it() -> None:
    files = [path for package in PACKAGES for path in (ROOT / package).rglob("*.py")]
    sources = {path.relative_to(ROOT).as_posix(): path.read_text() for path in files}
    assert {path.split("/")[0] for path in sources} == set(PACKAGES)
    assert {path: names for path, source in sources.items() if (names := violations(path, source))} == {}


@pytest.mark.parametrize(
    ("path", "source", "names"),
    [
        ("worldmodel/a.py", "def f():\n    import gymnasium.spaces", {"gymnasium"}),
        ("worldmodel/a.py", "from envs import doom", {"envs"}),
        ("worldmodel/a.py", "require('minari', 'minari')", {"minari"}),
        ("worldmodel/importers.py", "require('minari', 'minari')", set()),
        ("envs/a.py", "importlib.import_module('agents.ppo')", {"agents"}),
        ("envs/a.py", "import gymnasium, worldmodel.world", set()),
        ("agents/a.py", "if TYPE_CHECKING:\n    from scripts.cli import main", {"scripts"}),
        ("scripts/a.py", "import agents, envs, worldmodel", set()),
        ("scripts/a.py", "import tests", {"tests"}),
    ],
)
def test_this_test_sees_every_way_to_import(path: str, source: str, names: set[str]) -> None:
    assert violations(path, source) == names


def test_importing_the_models_loads_no_simulator() -> None:
    """What the sources cannot show: nothing that the package imports brings an environment library along."""
    modules = [f"worldmodel.{path.stem}" for path in (ROOT / "worldmodel").glob("[a-z]*.py")]
    code = f"import sys, {', '.join(modules)}; print(*({NOT_IN_WORLDMODEL} & sys.modules.keys()))"
    run = subprocess.run([sys.executable, "-c", code], cwd=ROOT, capture_output=True, text=True, check=True)
    assert run.stdout.split() == []
