"""Each kind of bad dream loses on the measure that is meant to catch it; a perfect one is as good as the truth."""

import numpy as np
import pytest

from tests.panorama import Turning, make_store
from worldmodel.benchmark import inverse
from worldmodel.benchmark.benchmark import run_benchmark
from worldmodel.benchmark.protocols import Protocol
from worldmodel.metrics import Result

HORIZONS = range(1, 31)


@pytest.fixture(scope="module")
def predictors(tmp_path_factory: pytest.TempPathFactory) -> Result:
    """The report's predictors, by name."""
    folder = tmp_path_factory.mktemp("benchmark")
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(inverse, "STEPS", 200)
        done = run_benchmark(
            [
                Turning("perfect"),
                Turning("frozen", frozen=True),
                Turning("noisy", noise=25),
                Turning("deaf", deaf=True),
                Turning("fading", fade=0.05),
                Turning("looped", loop=5),
                Turning("ending", ends=10),
                Turning("silent", pays=0),
            ],
            make_store("memory://benchmark-heldout", episodes=6, steps=80, seed=1),
            Protocol("test", given=6, imagined=30),
            folder,
            training=make_store("memory://benchmark-training", episodes=8, steps=100),
            samples=2,
            contexts=12,
        )
    assert done.report["skipped"] == {}
    return done.report["predictors"]


def at(predictor: Result, metric: str, horizon: int) -> float:
    return predictor["metrics"][metric][str(horizon)]["mean"]


def mean(predictor: Result, metric: str) -> float:
    """Over all horizons at which it is known."""
    return float(np.mean([v["mean"] for v in predictor["metrics"][metric].values()]))


def test_a_perfect_dream_is_as_good_as_the_truth(predictors: Result) -> None:
    perfect, truth = predictors["perfect"], predictors["truth"]
    for metric, values in truth["metrics"].items():
        assert perfect["metrics"][metric] == values, metric
    assert at(perfect, "ssim", 30) == 1
    assert at(perfect, "reward_error", 30) == 0
    assert perfect["calibration"]["slope"] == pytest.approx(1)


def test_the_judge_finds_the_actions_of_real_frames(predictors: Result) -> None:
    assert mean(predictors["truth"], "action_fidelity") > 0.95


def test_a_frozen_dream_is_not_lively(predictors: Result) -> None:
    assert mean(predictors["truth"], "liveliness") == pytest.approx(1, abs=0.1)
    assert all(at(predictors["frozen"], "liveliness", h) == 0 for h in HORIZONS[1:])
    assert mean(predictors["frozen"], "ssim") == pytest.approx(mean(predictors["repeat last"], "ssim"))


def test_a_noisy_dream_drifts_and_does_not_rest(predictors: Result) -> None:
    noisy, truth = predictors["noisy"], predictors["truth"]
    assert all(at(noisy, "drift", h) > 3 * at(truth, "drift", h) for h in range(5, 21))
    assert mean(truth, "restlessness") == 0
    assert mean(noisy, "restlessness") > 0.5
    # Clipped at black and white, so a little less than 20 log10(255 / 25).
    assert mean(noisy, "psnr") == pytest.approx(20.2, abs=0.4)


def test_a_dream_that_ignores_actions_is_no_better_than_guessing_them(predictors: Result) -> None:
    deaf = predictors["deaf"]
    assert mean(deaf, "action_fidelity") == pytest.approx(1 / 3, abs=0.1)
    assert mean(deaf, "drift") == pytest.approx(mean(predictors["truth"], "drift"), abs=0.1)  # beyond reproach
    assert mean(deaf, "liveliness") == pytest.approx(2 / 3, abs=0.1)  # it stays where it is told to turn, at times


def test_withheld_actions_are_not_obeyed(predictors: Result) -> None:
    assert mean(predictors["perfect, no actions"], "action_fidelity") == pytest.approx(1 / 3, abs=0.1)


def test_a_fading_dream_drifts_further_and_further(predictors: Result) -> None:
    drift = [at(predictors["fading"], "drift", h) for h in (5, 10, 15, 20, 30)]
    assert drift == sorted(drift)
    assert drift[-1] > 2 * drift[0]


def test_a_looped_dream_leaves_the_truth_and_the_actions(predictors: Result) -> None:
    looped = predictors["looped"]
    assert at(looped, "ssim", 5) == 1
    assert at(looped, "ssim", 20) < 0.9
    assert np.mean([at(looped, "action_fidelity", h) for h in range(6, 31)]) < 0.7


def test_only_a_dream_that_turns_and_returns_is_consistent(predictors: Result) -> None:
    score = {name: at(p, "consistency", 12) for name, p in predictors.items() if "consistency" in p["metrics"]}
    assert score["truth"] == score["perfect"] == 1
    assert score["frozen"] == score["repeat last"] == score["mean frame"] == 0
    assert score["deaf"] < 0.6


def test_best_of_n_is_never_worse_than_the_mean_of_n(predictors: Result) -> None:
    for h in HORIZONS:
        assert at(predictors["deaf"], "psnr_best", h) >= at(predictors["deaf"], "psnr", h)


def test_baselines_that_are_told_nothing_of_the_actions_do_not_obey_them(predictors: Result) -> None:
    for name in ("repeat last", "mean frame", "nearest neighbour"):
        assert mean(predictors[name], "action_fidelity") < 0.6


def test_what_is_paid_after_the_end_does_not_count(predictors: Result) -> None:
    """ "ending" ends all its dreams at their tenth step; "silent" pays nothing, so its error is what was paid."""
    ending, silent = predictors["ending"], predictors["silent"]
    assert at(predictors["truth"], "alive", 30) == 1
    assert at(ending, "alive", 9) == 1
    assert at(ending, "alive", 10) == at(ending, "alive", 30) == 0
    assert at(ending, "reward_error", 10) == 0
    missed = at(silent, "reward_error", 30) - at(silent, "reward_error", 10)
    assert at(ending, "reward_bias", 30) == pytest.approx(-missed, abs=1e-4)
