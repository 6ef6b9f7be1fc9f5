"""The `worldmodel` command, run within the test's own process, where torch need not be imported anew."""

import contextlib
import io
import sys
from unittest import mock

import torch

from scripts import cli


def run(*words: object) -> int:
    """The exit code of `worldmodel WORDS`."""
    with mock.patch.object(sys, "argv", ["worldmodel", *map(str, words)]), torch.random.fork_rng():
        try:
            return cli.main()
        except SystemExit as asked:  # for help
            assert isinstance(asked.code, int)
            return asked.code


def refused(*words: object) -> str:
    """The one sentence with which `worldmodel WORDS` is refused."""
    with contextlib.redirect_stderr(io.StringIO()) as error:
        code = run(*words)
    sentence = error.getvalue()
    assert code == 2 and "Traceback" not in sentence and len(sentence.strip().splitlines()) == 1, sentence
    return sentence
