"""The real `worldmodel` command: what it prints, where, and the code it exits with."""

import errno
import os
import subprocess
import sys
import threading
from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import version
from pathlib import Path
from types import ModuleType

import pytest

from scripts import cli
from tests.command_line import refused, run
from tests.made_episodes import make_store
from worldmodel.errors import UserError

ROOT = Path(__file__).parents[1]
COMMAND = Path(sys.executable).with_name("worldmodel")


def worldmodel(*args: str, cwd: Path) -> subprocess.CompletedProcess[str]:
    return subprocess.run([COMMAND, *args], cwd=cwd, capture_output=True, text=True)


def test_help_names_every_command(tmp_path: Path) -> None:
    done = worldmodel("--help", cwd=tmp_path)
    assert done.returncode == 0
    for name in cli.COMMANDS:
        assert name in done.stdout


def test_it_says_its_version(tmp_path: Path) -> None:
    assert worldmodel("--version", cwd=tmp_path).stdout == f"worldmodel {version('worldmodel')}\n"


def test_help_does_not_wait_for_torch() -> None:
    code = "import sys, scripts.cli; sys.exit('torch' in sys.modules)"
    assert subprocess.run([sys.executable, "-c", code]).returncode == 0


@pytest.mark.parametrize("name", cli.COMMANDS)
def test_every_command_has_help(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    assert run(name, "--help") == 0
    printed = capsys.readouterr()
    assert f"usage: worldmodel {name}" in printed.out and not printed.err
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize("args", [(), ("daydream",), ("train", "--no-such-option")], ids=" ".join)
def test_arguments_that_do_not_parse_exit_2(args: tuple[str, ...], tmp_path: Path) -> None:
    done = worldmodel(*args, cwd=tmp_path)
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr
    assert list(tmp_path.iterdir()) == []


def one_sentence(text: str) -> bool:
    return text.count("\n") == 1 and text.endswith(".\n") and "Traceback" not in text


@pytest.mark.parametrize(
    "args",
    [
        ("train", "no-such-store", "--out", "run"),
        ("export", "no-such-store", "--minari", "maze/test-v0"),
        ("import", "no-such-folder", "--store", "store"),
        ("collect", "worldmodel/NoSuchWorld-v0", "--store", "store", "--episodes", "1"),
        ("imagine", "--model", "no-such-model"),
        ("measure", "--model", "no-such-model", "--store", "one", "--train-store", "other", "--out", "report"),
    ],
    ids=lambda args: args[0],
)
def test_what_is_not_there_is_one_sentence_and_exit_2(args: tuple[str, ...], tmp_path: Path) -> None:
    done = worldmodel(*args, cwd=tmp_path)
    assert done.returncode == 2, done.stderr
    assert one_sentence(done.stderr), done.stderr
    assert "no-such" in done.stderr or "NoSuch" in done.stderr
    assert list(tmp_path.iterdir()) == []


def test_a_list_is_given_at_once(tmp_path: Path) -> None:
    words = ["collect", "Some-v0", "--store", tmp_path / "store", "--episodes", 1, "--env-kwargs", "size=6"]
    assert "--env-kwargs is given 2 times" in refused(*words, "--env_kwargs=n=3")
    again = ["--env-kwargs", "a=1", "--env-kwargs", "b=2"]
    assert "--env-kwargs is given 2 times" in refused(
        "evaluate", "--agent", "random", "--out", tmp_path / "out", *again
    )
    assert "Some" in refused(*words, "--episodes", 2)  # a single value may be given anew, as scripts do


def test_a_store_cut_short_is_one_sentence(tmp_path: Path) -> None:
    make_store(tmp_path / "store", [100, 100])
    shard = max((tmp_path / "store" / "frames").rglob("*"), key=lambda path: path.stat().st_size)
    shard.write_bytes(shard.read_bytes()[:1000])
    done = worldmodel("train", "store", "--out", "run", cwd=tmp_path)
    assert done.returncode == 2
    assert one_sentence(done.stderr), done.stderr


@pytest.fixture
def train_raises(monkeypatch: pytest.MonkeyPatch) -> Callable[[BaseException], None]:
    """Give `worldmodel train` a body that only raises, and put that command in `sys.argv`."""

    @dataclass
    class Args:
        pass

    def replace(error: BaseException) -> None:
        def main(args: Args) -> None:
            raise error

        train = ModuleType("scripts.train")
        vars(train).update(Args=Args, main=main)
        monkeypatch.setitem(sys.modules, "scripts.train", train)
        monkeypatch.setattr(sys, "argv", ["worldmodel", "train"])

    return replace


FULL_DISK = OSError(errno.ENOSPC, "No space left on device", "store/frames")
FULL_PIPE = OSError(errno.ENOSPC, "No space left on device")
TOO_LARGE = OSError(errno.EFBIG, "File too large")
NOT_A_FOLDER = FileExistsError(errno.EEXIST, "File exists", "run")


@pytest.mark.parametrize(
    ("error", "code", "says"),
    [
        (
            UserError("The store is empty: record an episode first."),
            2,
            "The store is empty: record an episode first.\n",
        ),
        (FULL_DISK, 2, "Cannot read or write store/frames: No space left on device.\n"),
        (FULL_PIPE, 2, "Cannot read or write the output: No space left on device.\n"),
        (TOO_LARGE, 2, "Cannot read or write the output: File too large.\n"),
        (NOT_A_FOLDER, 2, "Cannot read or write run: File exists.\n"),
    ],
    ids=["user", "full disk", "full pipe", "too large", "not a folder"],
)
def test_exit_codes(
    error: BaseException,
    code: int,
    says: str,
    train_raises: Callable[[BaseException], None],
    capsys: pytest.CaptureFixture[str],
) -> None:
    train_raises(error)
    assert cli.main() == code
    assert capsys.readouterr() == ("", says)


@pytest.mark.parametrize("failure", [FULL_PIPE, ValueError("a mistake of ours")])
def test_what_a_thread_cannot_write_is_told_once(
    failure: Exception, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    told = []
    monkeypatch.setattr(threading, "excepthook", told.append)

    def fail() -> None:
        raise failure

    def train(argv: list[str]) -> None:
        thread = threading.Thread(target=fail)
        thread.start()
        thread.join()
        raise FULL_DISK

    monkeypatch.setattr(cli, "_run", train)
    assert cli.main() == 2
    assert len(told) == isinstance(failure, ValueError)
    assert capsys.readouterr().err == "Cannot read or write store/frames: No space left on device.\n"


def test_ctrl_c_says_how_to_go_on(
    train_raises: Callable[[BaseException], None], capsys: pytest.CaptureFixture[str]
) -> None:
    train_raises(KeyboardInterrupt())
    assert cli.main() == 130
    assert capsys.readouterr() == ("\nStopped; the same command goes on from here.\n", "")


# A disk so slow that Ctrl-C comes while much is being read.
SLOW_DISK = """
import asyncio, os, signal, sys
from zarr.storage import LocalStore

get, begun = LocalStore.get, 0

async def get_slowly(self, key, *args, **kwargs):
    global begun
    if "frames/c/" in key:
        begun += 1
        if begun == 5:
            os.kill(os.getpid(), signal.SIGINT)
        await asyncio.sleep(60)
    return await get(self, key, *args, **kwargs)

LocalStore.get = get_slowly
signal.signal(signal.SIGINT, signal.default_int_handler)
from scripts import cli
sys.argv = ["worldmodel", "import", "mirrored:store", "--store", "twice"]
sys.exit(cli.main())
"""


def test_ctrl_c_while_a_store_is_read_leaves_no_more_to_read(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("worldmodel.episodes.SHARD_FRAMES", 16)
    make_store(tmp_path / "store", [200])
    done = subprocess.run(
        [sys.executable, "-c", SLOW_DISK],
        cwd=tmp_path,
        env=os.environ | {"PYTHONPATH": str(ROOT)},
        capture_output=True,
        text=True,
        timeout=30,
    )
    assert (done.returncode, done.stderr) == (130, "")
    assert "goes on from here" in done.stdout


def test_those_that_go_on_say_so_and_others_do_not(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def interrupted(argv: list[str]) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(cli, "_run", interrupted)
    said = set()
    for name in [*cli.COMMANDS, "train_agent", ""]:
        monkeypatch.setattr(sys, "argv", ["worldmodel", *name.split()])
        assert cli.main() == 130
        if "goes on" in capsys.readouterr().out:
            said.add(name)
    resumed = {"import", "train", "train-agent", "dyna", "benchmark", "train-image", "train-audio"}
    assert said == resumed | {"train_agent"}


def test_errors_of_no_file_keep_their_traceback(train_raises: Callable[[BaseException], None]) -> None:
    train_raises(ConnectionError("reset by peer"))
    with pytest.raises(ConnectionError):
        cli.main()
