"""The `worldmodel` command: find the subcommand, parse its arguments, and turn a user's mistake into one sentence."""

import atexit
import errno
import importlib
import io
import logging
import sys
import threading
import warnings
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import is_dataclass
from types import ModuleType
from typing import cast, get_origin, get_type_hints

import tyro

from worldmodel import __version__
from worldmodel.errors import UserError

# Subcommand -> (its module, its line in `worldmodel --help`). A module is imported when its command is run, so that
# help is there at once and nobody waits for torch to see it. Each module has a dataclass `Args` and `main(args)`.
COMMANDS = {
    "collect": ("scripts.collect", "Record episodes of a Gymnasium environment into a store."),
    "import": ("scripts.import_", "Bring recorded episodes from elsewhere into a store."),
    "export": ("scripts.export", "Write a store as a Minari dataset."),
    "train": ("scripts.train", "Train a world model on a store of episodes."),
    "imagine": ("scripts.imagine", "Dream: roll out from a model, and write pictures, a film and arrays."),
    "measure": ("scripts.measure", "Measure a model on held-out episodes."),
    "train-agent": ("scripts.train_agent", "Train an agent with PPO: in a dream, or in a real world."),
    "dyna": ("scripts.dyna", "The loop: play, learn the world, learn to act in dreams of it, and again."),
    "evaluate": ("scripts.evaluate", "What an agent earns: in a real world, or in dreams."),
    "benchmark": ("scripts.benchmark", "How far can dreams be trusted? Models and baselines, at every horizon."),
    "compare": ("scripts.compare", "Two benchmark reports: which is better where."),
    "bench-speed": ("scripts.bench_speed", "How fast models dream here, and where the time goes."),
    "train-image": ("scripts.train_image", "Train an image VQ-VAE and the prior over its codes."),
    "sample": ("scripts.sample", "New images from a model of images."),
    "reconstruct": ("scripts.reconstruct", "Images as a model's codes keep them."),
    "likelihood": ("scripts.likelihood", "What a model of images is worth on held-out ones, in bits."),
    "train-audio": ("scripts.train_audio", "Train an audio VQ-VAE and the prior over its codes."),
    "audio-sample": ("scripts.audio_sample", "New speech from a model of speech."),
    "audio-reconstruct": ("scripts.audio_reconstruct", "Speech as a model's codes keep it."),
    "audio-convert": ("scripts.audio_convert", "Speech in another voice."),
    "audio-phonemes": ("scripts.audio_phonemes", "Which phonemes a model's codes stand for."),
    "demo": ("scripts.demo", "See it all in a few minutes: dreams, then the whole loop live."),
}

# Those that, interrupted and run again, go on where they were. (`collect`, too, which says itself how far it is.)
GO_ON = {"import", "train", "train-agent", "dyna", "benchmark", "train-image", "train-audio"}

# What writing to a disk that takes no more may end with; not always does the error know of which file.
FULL = {errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EIO}


def main() -> int:
    """Run the command line in `sys.argv` and return its exit code: 0, 2 (the user can mend it) or 130 (interrupted)."""
    atexit.register(_be_silent)
    if isinstance(sys.stdout, io.TextIOWrapper):
        sys.stdout.reconfigure(errors="backslashreplace")  # names of files may be no text
    try:
        with _threads_that_fail_quietly():
            _run(sys.argv[1:])
    except UserError as error:
        print(error, file=sys.stderr)
        return 2
    except OSError as error:
        if error.filename is None and error.errno not in FULL:
            raise
        print(f"Cannot read or write {error.filename or 'the output'}: {error.strerror}.", file=sys.stderr)
        return 2
    except KeyboardInterrupt:
        if any(word.replace("_", "-") in GO_ON for word in sys.argv[1:2]):
            print("\nStopped; the same command goes on from here.")
        return 130
    return 0


def _run(argv: list[str]) -> None:
    if "" not in sys.path:
        sys.path.append("")  # worlds and predictors that users name may be modules in the current folder
    if argv == ["--version"]:
        print(f"worldmodel {__version__}")
        return
    command: ModuleType = tyro.extras.subcommand_cli_from_dict(
        {name: _importer(module, summary) for name, (module, summary) in COMMANDS.items()},
        prog="worldmodel",
        description="Learn a world from recorded episodes, then step it as a Gymnasium environment.",
        args=argv[:1],
    )
    _check_given_once(command.Args, argv[1:])
    command.main(tyro.cli(command.Args, prog=f"worldmodel {argv[0]}", args=argv[1:]))


def _check_given_once(args: type, argv: list[str]) -> None:
    """Raise `UserError` for a list given in pieces, of which the parser would keep the last alone."""
    words = [word.partition("=")[0].replace("_", "-") for word in argv if word.startswith("--")]
    for name, kind in get_type_hints(args).items():
        option = f"--{name.replace('_', '-')}"
        if is_dataclass(kind):
            _check_given_once(cast(type, kind), argv)  # none of those with a prefix of their own holds a list
        elif get_origin(kind) is tuple and words.count(option) > 1:
            raise UserError(f"{option} is given {words.count(option)} times: give all of its values after one.")


@contextmanager
def _threads_that_fail_quietly() -> Iterator[None]:
    """What TensorBoard's thread cannot write, the main one learns from it."""
    before = threading.excepthook

    def tell(failure: threading.ExceptHookArgs) -> None:
        if not isinstance(failure.exc_value, OSError):
            before(failure)

    threading.excepthook = tell
    try:
        yield
    finally:
        threading.excepthook = before


def _be_silent() -> None:
    """What zarr was reading and writing at an end or an error is given up, and Python would tell of each piece."""
    logging.getLogger("asyncio").disabled = True
    sys.unraisablehook = lambda _: None
    warnings.simplefilter("ignore")


def _importer(module: str, summary: str) -> Callable[[], ModuleType]:
    """What tyro calls for the chosen subcommand; its docstring is the subcommand's help."""

    def load() -> ModuleType:
        return importlib.import_module(module)

    load.__doc__ = summary
    return load


if __name__ == "__main__":
    sys.exit(main())
