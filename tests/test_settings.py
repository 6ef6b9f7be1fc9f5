"""Whose folder a training's is."""

from pathlib import Path

import pytest

from scripts.settings import write_settings
from worldmodel.errors import UserError


def test_a_training_that_did_not_begin_has_no_folder_of_its_own(tmp_path: Path) -> None:
    folder = tmp_path / "run"
    write_settings(folder, {"store": "damaged", "seed": 1})
    write_settings(folder, {"store": "sound", "seed": 1})  # nothing was learned from the other
    (folder / "prior").mkdir()
    write_settings(folder, {"store": "sound", "seed": 1})
    write_settings(folder, {"store": "sound", "seed": 2}, {"seed"})
    with pytest.raises(UserError, match="holds a training with store sound"):
        write_settings(folder, {"store": "another", "seed": 2})
    with pytest.raises(UserError, match="by another command or version"):
        write_settings(folder, {"store": "sound"})


@pytest.mark.parametrize("content", ['{"cat.png": 0}', "[1, 2]", "{"])
def test_a_file_that_only_has_the_name_is_left_alone(tmp_path: Path, content: str) -> None:
    (tmp_path / "train.json").write_text(content)
    with pytest.raises(UserError, match="by another command or version|is damaged"):
        write_settings(tmp_path, {"store": "sound"})
    assert (tmp_path / "train.json").read_text() == content


def test_what_is_no_training_is_left_alone(tmp_path: Path) -> None:
    (tmp_path / "notes.txt").write_text("mine")
    with pytest.raises(UserError, match="something that is not a training"):
        write_settings(tmp_path, {"store": "sound"})
    assert [path.name for path in tmp_path.iterdir()] == ["notes.txt"]
