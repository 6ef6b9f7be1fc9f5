"""Files are there whole or not at all, and what went wrong is said of the file that was asked for."""

from pathlib import Path

import pytest

from worldmodel.files import write_text


def test_a_file_that_cannot_be_written_is_the_one_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refuse(path: Path, missing_ok: bool = False) -> None:
        raise OSError("Read-only file system", path)

    monkeypatch.setattr(Path, "unlink", refuse)  # as on a disk that is read only
    with pytest.raises(OSError) as raised:
        write_text(tmp_path / "nowhere" / "report.md", "all is well")
    assert raised.value.filename == str(tmp_path / "nowhere" / "report.md")
