"""`worldmodel benchmark` and `worldmodel compare`, by running them."""

import copy
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from torch import Tensor

from tests.command_line import refused, run
from tests.panorama import ACTIONS, SIDE, Turning, make_store
from worldmodel.benchmark import inverse
from worldmodel.benchmark.benchmark import run_benchmark
from worldmodel.benchmark.comparison import compare
from worldmodel.benchmark.predictors import WorldPredictor
from worldmodel.benchmark.protocols import PROTOCOLS, Protocol
from worldmodel.benchmark.report import markdown
from worldmodel.dynamics import DynamicsConfig
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.metrics import Result
from worldmodel.video import VideoConfig
from worldmodel.world import WorldConfig, WorldModel

ROOT = Path(__file__).parents[1]


def save_world(folder: Path, side: int = SIDE, n_actions: int = len(ACTIONS)) -> str:
    torch.manual_seed(0)
    video = VideoConfig((side, side), (8,), width=8, encoder_blocks=1, decoder_blocks=1, num_codes=16, code_dim=4)
    dynamics = DynamicsConfig(video.code_shape, 16, n_actions, (0.0, 1.0), width=16, head_width=16)
    meanings = tuple(ACTIONS + ["more"] * (n_actions - len(ACTIONS)))
    WorldModel(WorldConfig(video, dynamics, meanings, 10)).save_pretrained(folder)
    return str(folder)


@pytest.fixture
def stores(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> tuple[str, str]:
    """Held-out and training episodes; the judge of actions is trained briefly."""
    monkeypatch.setattr(inverse, "STEPS", 20)
    heldout, training = str(tmp_path / "heldout"), str(tmp_path / "training")
    make_store(heldout, episodes=3, steps=50, seed=1)
    make_store(training, episodes=3, steps=50)
    return heldout, training


def test_a_report_of_models_from_here_and_elsewhere(
    stores: tuple[str, str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(ROOT)  # where the documented example is
    out = tmp_path / "out"
    models = [save_world(tmp_path / "tiny"), save_world(tmp_path / "larger", side=48)]
    argv = ["benchmark", "--model", *models, "--predictor", "docs.foreign_model:make", "--store", stores[0]]
    argv += ["--train-store", stores[1], "--samples", "2", "--contexts", "6", "--lpips", str(tmp_path / "no.pt")]
    assert run(*argv, "--out", str(out)) == 0
    printed, warned = capsys.readouterr()
    assert "There are no weights" in warned
    report = json.loads((out / "report.json").read_text())
    assert list(report["predictors"]) == [
        "tiny",
        "last frame, moved on",
        "tiny, no actions",
        "last frame, moved on, no actions",
        "repeat last",
        "mean frame",
        "nearest neighbour",
        "reconstruction by tiny",
        "truth",
    ]
    for name, predictor in report["predictors"].items():
        for metric in ("psnr", "ssim", "ms_ssim", "action_fidelity"):
            first = 2 if metric == "action_fidelity" else 1  # the first step leads away from a real frame
            assert list(predictor["metrics"][metric]) == [str(h) for h in range(first, 11)], (name, metric)
            for at in predictor["metrics"][metric].values():
                assert at["low"] <= at["mean"] <= at["high"]
                assert at["contexts"] == 6
    assert set(report["predictors"]["tiny"]["metrics"]) >= {"bits_per_code", "reward_error", "alive", "psnr_best"}
    assert list(report["skipped"]) == ["larger"]
    assert "The model was trained on frames" in report["skipped"]["larger"]
    assert set(report["not_measured"]) == {"lpips", "fid", "fvd", "drift"}  # six contexts are too few for a drift
    assert "There are no weights" in report["not_measured"]["lpips"]
    assert "larger: The model was trained on frames" in printed
    page = (out / "report.md").read_text()
    assert "There are no weights" in page
    assert "| repeat last |" in page
    for picture in ("curves.png", "context_0.png", "context_2.png"):
        assert np.asarray(Image.open(out / picture).convert("RGB")).std() > 0
    assert (out / "context_1.mp4").stat().st_size > 0
    log = EventAccumulator(str(out / "tensorboard" / "repeat last")).Reload()
    assert [point.step for point in log.Scalars("psnr")] == list(range(1, 11))


def test_what_lacks_training_episodes_is_named_and_the_rest_comes(
    stores: tuple[str, str],
    tmp_path: Path,
) -> None:
    out = tmp_path / "out"
    assert run("benchmark", "--store", stores[0], "--contexts", "3", "--out", str(out)) == 0
    report = json.loads((out / "report.json").read_text())
    assert set(report["not_measured"]) == {
        *("lpips", "fid", "fvd", "drift", "action_fidelity", "mean frame", "nearest neighbour")
    }
    assert "ssim" in report["predictors"]["repeat last"]["metrics"]
    assert "samples each" not in (out / "report.md").read_text()


class _Interrupt(Exception):
    pass


def test_an_interrupted_run_goes_on_and_ends_with_the_same_report(stores: tuple[str, str], tmp_path: Path) -> None:
    store = make_store("memory://benchmark-resumed", episodes=3, steps=60, seed=1)
    calls = 0

    class Counting(Turning):
        def predict(self, *args: Any) -> Any:
            nonlocal calls
            calls += 1
            return super().predict(*args)

    def interrupted(work: list[Any]) -> Any:
        for number, item in enumerate(work):
            if number == 1:
                raise _Interrupt
            yield item

    def benchmark(folder: str, **options: Any) -> Result:
        model = Counting("model", noise=20)
        protocol = Protocol("test", given=4, imagined=10)
        return run_benchmark([model], store, protocol, tmp_path / folder, samples=3, contexts=30, **options).report

    whole = benchmark("whole")
    once = calls
    with pytest.raises(_Interrupt):
        benchmark("parts", progress=interrupted)
    calls = 0
    assert benchmark("parts") == whole
    assert calls == once - 1  # the first chunk was kept


def test_other_models_or_data_are_not_mixed_into_a_folder(tmp_path: Path) -> None:
    store = make_store("memory://benchmark-mixed", episodes=2, steps=40, seed=1)
    world = WorldModel.from_pretrained(save_world(tmp_path / "world"))
    protocol = Protocol("test", given=2, imagined=3)

    def benchmark(predictor: Any) -> None:
        run_benchmark([predictor], store, protocol, tmp_path / "out", samples=1, contexts=2)

    benchmark(WorldPredictor("world", world))
    benchmark(WorldPredictor("world", world))
    for other in (WorldPredictor("world", world, temperature=0.5), Turning("turning")):
        with pytest.raises(UserError, match="holds a benchmark of other models, data or settings"):
            benchmark(other)
    torch.nn.init.constant_(world.dynamics.place, 1)
    with pytest.raises(UserError, match="holds a benchmark of other models, data or settings"):
        benchmark(WorldPredictor("world", world))


def test_models_of_which_none_fits_are_one_sentence(
    stores: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["benchmark", "--store", stores[0], "--model", save_world(tmp_path / "larger", side=48)]
    assert run(*argv, "--out", str(tmp_path / "out")) == 2
    assert "The model was trained on frames" in capsys.readouterr().err


def test_two_predictors_of_one_name_are_refused(tmp_path: Path) -> None:
    store = make_store("memory://benchmark-names", episodes=1, steps=30)
    with pytest.raises(UserError, match='Two predictors are called "truth"'):
        run_benchmark([Turning("truth")], store, PROTOCOLS["paper"], tmp_path / "out")


@pytest.mark.parametrize("kept", [0, 100])
def test_a_damaged_part_is_measured_anew(kept: int, tmp_path: Path) -> None:
    store = make_store(f"memory://benchmark-damaged-{kept}", episodes=2, steps=40)

    def benchmark() -> Result:
        return run_benchmark([Turning("model", noise=9)], store, PROTOCOLS["paper"], tmp_path, contexts=2).report

    whole = benchmark()
    part = min((tmp_path / "parts").glob("*.npz"))
    part.write_bytes(part.read_bytes()[:kept])
    assert benchmark() == whole


def test_another_benchmark_is_not_mixed_into_a_folder(
    stores: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    argv = ["benchmark", "--store", stores[0], "--contexts", "3", "--out", str(tmp_path / "out")]
    assert run(*argv) == 0
    kept = {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()}
    assert run(*argv, "--seed", "1") == 2
    assert "holds a benchmark of other models" in capsys.readouterr().err
    assert {path: path.read_bytes() for path in (tmp_path / "out").rglob("*") if path.is_file()} == kept


def test_what_is_no_benchmark_is_left_alone(
    stores: tuple[str, str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "out" / "parts").mkdir(parents=True)
    (tmp_path / "out" / "parts" / "mine.txt").write_text("mine")
    assert run("benchmark", "--store", stores[0], "--contexts", "3", "--out", str(tmp_path / "out")) == 2
    assert "not a benchmark" in capsys.readouterr().err
    assert [path.name for path in (tmp_path / "out").rglob("*")] == ["parts", "mine.txt"]


@pytest.mark.parametrize(
    ("argv", "sentence"),
    [
        (["--protocol", "teco"], "needs episodes of 300 frames"),
        (["--predictor", "docs.nothing:make"], "cannot be made"),
        (["--predictor", "asyncio:get_running_loop"], "get_running_loop cannot be made: RuntimeError: no running"),
        (["--predictor", ":make"], "MODULE:FACTORY"),
        (["--predictor", "json:JSONDecoder"], "has no name and no predict"),
        (["--predictor", "docs"], "MODULE:FACTORY"),
        (["--samples", "0"], "1 or more"),
        (["--samples", "9"], "--samples would do nothing without a --model or --predictor"),
        (["--predictor", "docs.foreign_model:make", "--temperature", "0.5"], "--temperature would do nothing"),
        (["--dtype", "bfloat16"], "--dtype would do nothing without a --model"),
        (["--model", "no-such-model"], "There is no model"),
        (["--loops", "nowhere"], "There is no episode store"),
        (["--train-store", "memory://benchmark-empty"], "is empty: record or import"),
    ],
)
def test_mistakes_are_one_sentence(
    argv: list[str],
    sentence: str,
    stores: tuple[str, str],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    if not EpisodeStore.exists("memory://benchmark-empty"):
        make_store("memory://benchmark-empty", episodes=0, steps=0)
    assert run("benchmark", "--store", stores[0], "--out", str(tmp_path / "out"), *argv) == 2
    error = capsys.readouterr().err
    assert sentence in error
    assert error.count("\n") == 1
    assert not (tmp_path / "out").exists()


def test_a_page_shows_a_dash_for_what_is_no_number(two_reports: tuple[Result, Result]) -> None:
    report = {**copy.deepcopy(two_reports[0]), "command": ""}
    report["predictors"]["perfect"]["calibration"]["groups"][0]["imagined"] = None
    assert "| perfect | 10 | – / " in markdown(report)


@pytest.fixture(scope="module")
def two_reports(tmp_path_factory: pytest.TempPathFactory) -> tuple[Result, Result]:
    """The same contexts: a perfect dream, and one that fades."""
    store = make_store("memory://benchmark-compared", episodes=6, steps=60, seed=2)
    folder = tmp_path_factory.mktemp("compared")
    first, second = (
        run_benchmark([model], store, PROTOCOLS["paper"], folder / model.name, samples=1, contexts=18).report
        for model in (Turning("perfect"), Turning("fading", fade=0.05))
    )
    return first, second


def test_comparing_says_who_is_better_where(two_reports: tuple[Result, Result]) -> None:
    differences = compare(*two_reports, "perfect", "fading")
    assert {at["better"] for at in differences["ssim"].values()} == {"a"}
    perfect, fading = (
        r["predictors"][n]["metrics"]["psnr"]["7"]["mean"]
        for r, n in zip(two_reports, ("perfect", "fading"), strict=True)
    )
    assert differences["psnr"]["7"]["difference"] == pytest.approx(perfect - fading, abs=1e-3)
    assert {at["better"] for at in differences["reward_error"].values()} == {None}
    reversed_ = compare(two_reports[1], two_reports[0], "fading", "perfect")
    assert {at["better"] for at in reversed_["ssim"].values()} == {"b"}
    same = compare(two_reports[0], two_reports[0], "perfect", "perfect")
    assert {at["better"] for metric in same.values() for at in metric.values()} == {None}


def test_bits_of_tokenizers_that_nobody_knows_are_not_compared(tmp_path: Path) -> None:
    class Likely(Turning):
        def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
            return torch.ones(len(frames), frames.shape[1] - 1)

    store = make_store("memory://benchmark-bits", episodes=2, steps=40)
    report = run_benchmark([Likely("likely")], store, PROTOCOLS["paper"], tmp_path, samples=1, contexts=2).report
    assert "bits_per_code" in report["predictors"]["likely"]["metrics"]
    differences = compare(report, report, "likely", "likely")
    assert "psnr" in differences and "bits_per_code" not in differences


def test_reports_of_other_contexts_cannot_be_compared(two_reports: tuple[Result, Result]) -> None:
    with pytest.raises(UserError, match="differ in seed: run both with the same"):
        compare(two_reports[0], {**two_reports[1], "seed": 1}, "perfect", "fading")


def test_compare_prints_a_table(
    two_reports: tuple[Result, Result],
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
) -> None:
    paths = []
    for number, report in enumerate(two_reports):
        path = tmp_path / f"{number}.json"
        path.write_text(json.dumps(report))
        paths.append(str(path))
    out = tmp_path / "new" / "differences.json"
    assert run("compare", *paths, "--out", out) == 0
    assert "fading" in capsys.readouterr().out
    assert json.loads(out.read_text())["differences"]["ssim"]["10"]["better"] == "a"
    assert "is a folder: name a file" in refused("compare", *paths, "--out", tmp_path)
    assert capsys.readouterr().out == ""  # it is known before the work
    assert run("compare", *paths, "--predictor-b", "nobody") == 2
    assert 'There is no "nobody" in that report' in capsys.readouterr().err


def test_what_is_no_whole_report_is_not_compared(two_reports: tuple[Result, Result], tmp_path: Path) -> None:
    (tmp_path / "whole.json").write_text(json.dumps(two_reports[0]))
    whole = two_reports[1]
    cut = {"fading": {"contexts": {"psnr": whole["predictors"]["fading"]["contexts"]["psnr"][:-1]}}}
    damaged = [json.dumps({**whole, "predictors": p}) for p in ([], ["fading"], {"fading": {}}, cut)]
    needed = ("data", "protocol", "seed", "contexts", "horizons", "predictors")
    older = [json.dumps({k: v for k, v in whole.items() if k != name}) for name in needed]
    for text in ("{", "[]", *older, *damaged):
        (tmp_path / "other.json").write_text(text)
        sentence = refused("compare", tmp_path / "whole.json", tmp_path / "other.json")
        assert "other.json is not a report of" in sentence
