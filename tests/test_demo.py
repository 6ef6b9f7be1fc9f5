"""`worldmodel demo`: all of it, with next to no training."""

import json
import sys
from pathlib import Path

import pytest

from tests.command_line import refused, run


def test_it_leaves_pictures_films_a_model_and_numbers(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")
    brief = ["--episodes", 2, "--tokenizer-steps", 2, "--prior-steps", 2, "--outcome-steps", 2]
    assert run("demo", "--out", tmp_path / "demo", *brief) == 0
    report = json.loads((tmp_path / "demo" / "report.json").read_text())
    assert [speed["batch"] for speed in report["dmlab"]["speed"]] == [1, 64]
    assert len(report["doom"]["rollouts"]["psnr"]) >= 10 and report["doom"]["frames"] > 0
    made = ("dmlab/figure7.png", "dmlab/dream.mp4", "doom/dream/strip.png", "doom/run/model/model.safetensors")
    assert all((tmp_path / "demo" / name).stat().st_size for name in made)


def test_without_its_extra_it_names_it_and_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "vizdoom", None)
    assert "worldmodel[doom]" in refused("demo", "--out", tmp_path / "demo")
    assert list(tmp_path.iterdir()) == []
