"""The parts of the benchmark, each against a case whose answer is known."""

from collections.abc import Callable
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from scipy import linalg, stats
from torch import Tensor, nn
from torchmetrics.functional.image import multiscale_structural_similarity_index_measure

from tests.made_episodes import N_ACTIONS, PROVENANCE, make_episode
from tests.panorama import Turning, make_store
from tests.tiny_world import FRAME_SHAPE
from worldmodel.benchmark.benchmark import Weights, run_benchmark
from worldmodel.benchmark.drift import Drift, frame_features, frechet_distance, moments
from worldmodel.benchmark.loops import Loop, find_loops
from worldmodel.benchmark.predictors import MeanFrame, NearestNeighbour, Prediction, RepeatLast, check_prediction
from worldmodel.benchmark.protocols import PROTOCOLS, Context, Protocol, choose_contexts
from worldmodel.benchmark.statistics import interval, jackknife, mean_over, ratio_over, resamples
from worldmodel.benchmark.summary import calibration, true_outcomes
from worldmodel.benchmark.weights import Fid, Fvd, Lpips, feature_distance
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.metrics import ms_ssim


@pytest.fixture(scope="module")
def store() -> EpisodeStore:
    return make_store("memory://benchmark-parts", episodes=4, steps=60)


def noise(*shape: int, seed: int = 0) -> Tensor:
    return torch.randint(256, shape, generator=torch.Generator().manual_seed(seed), dtype=torch.uint8)


# -- frame metrics ---------------------------------------------------------------------------------------------------


def test_ms_ssim_is_that_of_torchmetrics_where_all_five_scales_fit() -> None:
    a, b = noise(2, 192, 192, 3), noise(2, 192, 192, 3, seed=1) // 2
    pictures = [x.movedim(-1, 1).float() / 255 for x in (a, b)]
    whole = multiscale_structural_similarity_index_measure(*pictures, data_range=1.0, reduction="none")
    assert torch.allclose(ms_ssim(a, b), whole, atol=1e-4)


@pytest.mark.parametrize("side", [16, 42, 64, 84, 88, 100])
def test_ms_ssim_is_one_for_the_same_picture_of_any_size(side: int) -> None:
    frames = noise(2, side, side, 3)
    assert torch.allclose(ms_ssim(frames, frames), torch.ones(2))
    assert (ms_ssim(frames, noise(2, side, side, 3, seed=1)) < 0.9).all()


# -- drift -----------------------------------------------------------------------------------------------------------


@given(st.integers(0, 1000), st.integers(1, 6))
def test_frechet_distance_is_that_of_the_matrix_square_root(seed: int, size: int) -> None:
    rng = np.random.default_rng(seed)
    (mean_a, cov_a), (mean_b, cov_b) = (moments(rng.normal(size=(40, size + 1)) * rng.uniform(0.5, 2)) for _ in "ab")
    root = linalg.sqrtm(cov_a @ cov_b).real
    expected = np.square(mean_a - mean_b).sum() + np.trace(cov_a + cov_b - 2 * root)
    assert frechet_distance(mean_a, cov_a, mean_b, cov_b) == pytest.approx(expected, abs=1e-6)


def test_drift_is_zero_to_itself_and_the_squared_shift_for_shifted_features() -> None:
    real = np.random.default_rng(0).normal(size=(500, 8)) * np.arange(1, 9)
    drift = Drift(real)
    assert drift(real) == pytest.approx(0, abs=1e-9)
    assert drift(real + 2 * real.std(0)) == pytest.approx(4, rel=1e-4)


def test_features_tell_where_it_is_bright_and_where_it_is_finely_drawn() -> None:
    frames = torch.zeros(2, 30, 30, 3, dtype=torch.uint8)
    frames[0, :10, :10, 0] = 255
    frames[1, 20:, 20:] = noise(10, 10, 3)
    features = frame_features(frames).view(2, 4, 3, 3)
    assert features[0, 0, 0, 0] == 1
    assert features[0, 1:3].abs().sum() == 0
    assert features[1, 3, 2, 2] == features[1, 3].max() > features[1, 3, 0, 0] + 2


# -- protocols -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("name", "given", "imagined", "clip"), [("paper", 6, 10, None), ("teco", 144, 156, 36), ("long", 16, 1000, None)]
)
def test_protocols_are_as_published(name: str, given: int, imagined: int, clip: int | None) -> None:
    protocol = PROTOCOLS[name]
    assert (protocol.given, protocol.imagined, protocol.clip) == (given, imagined, clip)


def test_contexts_are_spread_over_the_episodes_and_are_what_was_recorded(store: EpisodeStore) -> None:
    contexts = choose_contexts(store, PROTOCOLS["paper"], 10)
    assert [sum(c.episode == e for c in contexts) for e in range(4)] == [2, 3, 2, 3]
    for context in contexts:
        episode = store[context.episode]
        frames = torch.from_numpy(episode.frames[context.first : context.first + 16])
        assert torch.equal(context.frames, frames)
        assert torch.equal(context.actions, torch.from_numpy(episode.actions[context.first : context.first + 15]))
        assert torch.equal(context.rewards, torch.from_numpy(episode.rewards[context.first + 5 : context.first + 15]))
        assert context.known == 10


def test_a_dream_beyond_the_recording_goes_on_with_recorded_actions(store: EpisodeStore) -> None:
    contexts = choose_contexts(store, PROTOCOLS["long"], 4, seed=3)
    again = choose_contexts(store, PROTOCOLS["long"], 4, seed=3)
    for context, same in zip(contexts, again, strict=True):
        assert context.actions.shape == (1015,)
        assert 20 <= context.known < 60
        assert torch.equal(context.actions, same.actions)
        recorded = torch.from_numpy(store[context.episode].actions[context.first :])
        assert torch.equal(context.actions[: len(recorded)], recorded)


def test_a_store_that_is_too_short_is_one_sentence(store: EpisodeStore) -> None:
    with pytest.raises(UserError, match=r'"teco" needs episodes of 300 frames, and the longest of .* has 61'):
        choose_contexts(store, PROTOCOLS["teco"], 4)


def test_very_long_protocols_are_measured_at_each_tenth_horizon() -> None:
    assert PROTOCOLS["teco"].horizons == list(range(1, 157))
    assert PROTOCOLS["long"].horizons == [*range(1, 101), *range(110, 1001, 10)]


# -- baselines -------------------------------------------------------------------------------------------------------


def test_the_nearest_neighbour_of_a_training_moment_is_what_followed_it(store: EpisodeStore) -> None:
    frames = torch.from_numpy(store[2].frames)
    predicted = NearestNeighbour(store).predict(frames[None, 10:15], None, 8, [0]).frames
    assert torch.equal(predicted[0], frames[15:23])


def test_the_nearest_neighbour_goes_on_where_a_recording_looks_like_the_end_of_another(store: EpisodeStore) -> None:
    frames = torch.from_numpy(store[2].frames)
    neighbour = NearestNeighbour(store)
    predicted = neighbour.predict(frames[None, :2], None, 100, [0]).frames
    assert torch.equal(predicted[0, :59], frames[2:])
    assert torch.equal(predicted[0, 59:], neighbour.predict(frames[None], None, 41, [0]).frames[0])


def test_a_nearest_neighbour_has_something_to_copy() -> None:
    brief = EpisodeStore.create("memory://brief", frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    brief.append(make_episode(1, 0, FRAME_SHAPE))
    with pytest.raises(UserError, match="three frames"):
        NearestNeighbour(brief)


def test_the_mean_frame_is_the_mean_of_all_frames(store: EpisodeStore) -> None:
    expected = np.rint(store.flat("frames").mean(0))
    predicted = MeanFrame(store).predict(noise(2, 1, 32, 32, 3), None, 3, [0, 1]).frames
    assert predicted.shape == (2, 3, 32, 32, 3)
    np.testing.assert_array_equal(predicted[1, 2].numpy(), expected)


def test_a_prediction_of_another_shape_is_one_sentence() -> None:
    frames = noise(2, 6, 32, 32, 3)
    good = RepeatLast().predict(frames, None, 5, [0, 1])
    check_prediction(good, frames, 5, "model")
    for bad in (good.frames[:, :4], good.frames[..., :16, :, :], good.frames.float()):
        with pytest.raises(UserError, match=r"model must predict uint8 frames \[2, 5, 32, 32, 3\], not"):
            check_prediction(Prediction(bad), frames, 5, "model")


# -- loops -----------------------------------------------------------------------------------------------------------


def test_loops_are_found_by_the_names_of_the_actions(store: EpisodeStore) -> None:
    loops = find_loops(store)
    assert {Loop(e, 36, 6) for e in range(4)} | {Loop(e, 48, 6) for e in range(4)} <= set(loops)
    for loop in loops:
        frames = store[loop.episode].frames
        np.testing.assert_array_equal(frames[loop.start + 2 * loop.turn], frames[loop.start])
        assert (frames[loop.start + loop.turn] != frames[loop.start]).any()


# -- statistics ------------------------------------------------------------------------------------------------------


def test_an_interval_of_copies_is_that_of_one_context_an_episode() -> None:
    """Ten copies of each context know no more than one."""
    values = np.random.default_rng(0).normal(size=(5, 3))
    one = interval(mean_over(values), np.arange(5))
    ten = interval(mean_over(values.repeat(10, 0)), np.arange(5).repeat(10))
    np.testing.assert_allclose(one, ten)


@pytest.mark.parametrize("number", [4, 6, 30])
def test_intervals_cover_the_mean_as_often_as_they_say(number: int) -> None:
    rng = np.random.default_rng(0)
    covered = 0
    for _ in range(200):
        _, low, high = interval(mean_over(rng.normal(size=(number, 1))), np.arange(number))
        covered += bool(low[0] <= 0 <= high[0])
    assert 0.9 <= covered / 200 <= 0.99


def test_one_episode_proves_nothing() -> None:
    for bounds in (interval, jackknife):
        mean, low, high = bounds(mean_over(np.array([[1.0], [3.0]])), np.array([4, 4]))
        assert mean == 2
        assert np.isnan([low, high]).all()


def test_the_jackknife_of_a_mean_has_its_standard_error() -> None:
    values = np.random.default_rng(0).uniform(5, 6, size=(20, 1))
    mean, low, high = jackknife(mean_over(values), np.arange(20))
    assert (low[0], high[0]) == pytest.approx(stats.t.interval(0.95, 19, mean[0], stats.sem(values[:, 0])))


def test_what_is_not_known_does_not_count() -> None:
    values = np.array([[1, np.nan], [3, np.nan], [np.nan, np.nan]])
    rows = np.arange(3)
    np.testing.assert_array_equal(mean_over(values)(rows), [2, np.nan])
    np.testing.assert_array_equal(ratio_over(values, 2 * values)(rows), [0.5, np.nan])
    one, other = np.array([[1.0], [np.nan]]), np.array([[2.0], [3.0]])
    np.testing.assert_array_equal(ratio_over(one, other)(np.arange(2)), [0.5])


def test_resampling_keeps_episodes_whole() -> None:
    for rows in resamples(np.array([0, 0, 1, 1, 1])):
        counts = np.bincount(rows, minlength=5)
        assert counts[0] == counts[1]
        assert counts[2] == counts[3] == counts[4]


# -- weights ---------------------------------------------------------------------------------------------------------


class _MeanColour(nn.Module):
    """Stands for a published network: the same calls, known answers."""

    def forward(
        self,
        x: Tensor,
        return_features: bool = False,
        return_lpips: bool = False,
        resize_images: bool = False,
        rescale: bool = False,
        resize: bool = False,
    ) -> Tensor:
        return x.flatten(2).mean(2)


@pytest.fixture
def weights(tmp_path: Path) -> Path:
    torch.jit.script(_MeanColour()).save(str(tmp_path / "net.pt"))
    return tmp_path / "net.pt"


def test_lpips_is_the_squared_distance_of_what_the_weights_see(weights: Path) -> None:
    black, grey = (torch.full((40, 8, 8, 3), level, dtype=torch.uint8) for level in (0, 10))
    assert Lpips(weights)(black, grey).tolist() == pytest.approx([300] * 40)
    assert Lpips(weights)(grey, grey).tolist() == [0] * 40


def test_fid_and_fvd_are_frechet_distances_of_what_the_weights_see(weights: Path) -> None:
    frames = noise(50, 8, 8, 3) // 2
    features = Fid(weights).features(frames)
    np.testing.assert_allclose(features, frames.double().mean((1, 2)), rtol=1e-5)
    assert feature_distance(features, features) == pytest.approx(0, abs=1e-6)
    assert feature_distance(Fid(weights).features(frames + 10), features) == pytest.approx(300, rel=1e-4)
    clips = noise(6, 12, 8, 8, 3)
    np.testing.assert_allclose(Fvd(weights).features(clips), clips.double().mean((1, 2, 3)), rtol=1e-5)


@pytest.mark.parametrize("kind", [Lpips, Fid, Fvd])
def test_weights_that_are_missing_or_something_else_are_one_sentence(
    kind: Callable[[Path], object], tmp_path: Path
) -> None:
    with pytest.raises(UserError, match="There are no weights at"):
        kind(tmp_path / "nothing.pt")
    (tmp_path / "text.pt").write_text("not a network")
    with pytest.raises(UserError, match="is not a TorchScript file"):
        kind(tmp_path / "text.pt")


class _Counting(Turning):
    """Says of frame t that it cost t bits."""

    def bits_per_code(self, frames: Tensor, actions: Tensor | None) -> Tensor:
        return torch.arange(1.0, frames.shape[1]).expand(len(frames), -1)


def test_every_measure_is_of_the_frame_at_its_horizon(store: EpisodeStore, weights: Path, tmp_path: Path) -> None:
    """Bits, FID and FVD of a perfect dream, with weights whose answer is known; a clip is re-predicted for FVD."""
    report = run_benchmark(
        [_Counting("perfect"), Turning("dark", fade=1)],
        store,
        Protocol("test", given=6, imagined=20, clip=2),
        tmp_path,
        samples=2,
        contexts=12,
        weights=Weights(lpips=weights, fid=weights, fvd=weights),
    ).report
    perfect, dark, truth = (report["predictors"][name] for name in ("perfect", "dark", "truth"))
    bits = {h: at["mean"] for h, at in perfect["metrics"]["bits_per_code"].items()}
    assert bits == {str(h): 5 + h for h in range(1, 21)}
    assert "bits_per_code" not in dark["metrics"]
    assert perfect["metrics"]["fid"] == truth["metrics"]["fid"]
    assert list(truth["metrics"]["fid"]) == ["1", "2", "5", "10", "20"]
    assert perfect["metrics"]["lpips"]["20"]["mean"] == 0
    assert perfect["fvd"] == truth["fvd"] == pytest.approx(0, abs=1e-6)
    assert dark["fvd"] > 100
    assert dark["metrics"]["fid"]["10"]["mean"] > 2 * truth["metrics"]["fid"]["10"]["mean"]
    assert report["not_measured"].keys() == {"action_fidelity", "mean frame", "nearest neighbour"}


def test_the_end_of_an_episode_is_known_for_good() -> None:
    ended = torch.tensor([False, False, True])
    context = Context(0, 0, noise(5, 8, 8, 3), torch.zeros(7), torch.ones(3), ended, 2)
    paid, alive = true_outcomes([context], Protocol("test", 2, 6, beyond=True))
    assert paid.tolist() == [[1, 2, 3, 3, 3, 3]]
    assert alive.tolist() == [[1, 1, 0, 0, 0, 0]]
    context.terminated = torch.zeros(3, dtype=torch.bool)
    paid, alive = true_outcomes([context], Protocol("test", 2, 6, beyond=True))
    assert np.isnan(paid[0, 3:]).all()
    assert np.isnan(alive[0, 3:]).all()


def test_a_constant_reward_says_nothing_however_long_it_is_paid() -> None:
    """Sums over as many steps as each context knows would be in perfect proportion."""
    paid = np.arange(1.0, 21) * np.ones((40, 1))
    paid[np.arange(20) >= 1 + np.arange(40)[:, None] // 2] = np.nan
    found = calibration(np.ones((40, 1, 20)).cumsum(2), paid)
    assert found["slope"] is None
    assert found["horizon"] == 3
