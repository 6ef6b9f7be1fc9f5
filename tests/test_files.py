"""Files are there whole or not at all, and what went wrong is said of the file that was asked for."""

from pathlib import Path

import pytest

from worldmodel.errors import UserError
from worldmodel.files import new_folder, write_text


def test_a_file_that_cannot_be_written_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError("Read-only file system", path)

    monkeypatch.setattr(Path, "unlink", refuse)  # as on a disk that is read only
    (tmp_path / "nowhere").write_text("no folder")
    with pytest.raises(OSError) as raised:
        write_text(tmp_path / "nowhere" / "report.md", "all is well")
    assert raised.value.filename == str(tmp_path / "nowhere" / "report.md")


def test_the_folder_that_one_is_in_is_not_replaced(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)
    with pytest.raises(UserError, match="the folder that you are in"), new_folder(Path(".").resolve(), ()):
        pass
    assert Path.cwd() == tmp_path
