"""What `worldmodel measure` measures is what it says: checked where the answer is known."""

import dataclasses
import json
from functools import partial
from pathlib import Path

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from made_episodes import PROVENANCE, make_episode
from tiny_world import CODE_SHAPE, FRAME_SHAPE, N_ACTIONS, N_CODES, tiny_world
from torch import Tensor

from scripts import measure
from worldmodel import dream_evaluation
from worldmodel.code_statistics import CodeStatistics
from worldmodel.dream_evaluation import (
    Start,
    evaluate_ends,
    evaluate_long_dream,
    evaluate_outcomes,
    evaluate_rollouts,
    imagine_along,
)
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import (
    CodedEpisode,
    coded_episodes,
    evaluate_prior,
    evaluate_tokenizer,
    stream_bits,
    successions,
)
from worldmodel.metrics import psnr
from worldmodel.probe import Foresight, evaluate_sign, split
from worldmodel.speed import measure_speed
from worldmodel.state import Rollout, generators
from worldmodel.world import WorldModel


def make_store(address: Path, lengths: list[int], frame_shape: tuple[int, int, int] = FRAME_SHAPE) -> EpisodeStore:
    store = EpisodeStore.create(str(address), frame_shape=frame_shape, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for seed, steps in enumerate(lengths):
        store.append(make_episode(steps, seed, frame_shape))
    return store


def coded(steps: int, seed: int = 0) -> CodedEpisode:
    """A random episode whose codes have nothing to do with its frames, paid +1 and -1 now and then."""
    episode, generator = make_episode(steps, seed, FRAME_SHAPE), torch.Generator().manual_seed(seed)
    rewards = torch.zeros(steps)
    rewards[25::40], rewards[45::40] = 1.0, -1.0
    return CodedEpisode(
        torch.from_numpy(episode.frames),
        torch.randint(N_CODES, (steps + 1, *CODE_SHAPE), generator=generator),
        torch.from_numpy(episode.actions),
        rewards,
        torch.from_numpy(episode.terminated),
    )


PERFECT = float(psnr(torch.zeros(1, 1, 3), torch.zeros(1, 1, 3)))  # decibels: as much as there can be


def bright(frames: Tensor) -> Tensor:
    return frames[..., 0] > 128


class Oracle:
    """Dreams what really happened."""

    def __call__(self, world: WorldModel, starts: list[Start], horizon: int, **_: float) -> Rollout:
        def part(field: str, first: int) -> Tensor:
            rows = [getattr(s.episode, field)[s.frame + first : s.frame + first + horizon] for s in starts]
            return torch.stack(rows)

        rewards, terminated = part("rewards", 0), part("terminated", 0)
        state = world.observe_codes(starts[0].episode.codes[None, :1], torch.empty(1, 0, dtype=torch.int64))
        dream = Rollout(part("codes", 1), rewards, terminated, rewards, state, state.codes, world.video)
        dream.frames = lambda: part("frames", 1)  # type: ignore[method-assign]
        return dream


def test_an_episode_is_encoded_as_one_clip(tmp_path: Path) -> None:
    world, store = tiny_world(), make_store(tmp_path / "store", [150])
    (episode,) = coded_episodes(store, world)
    assert torch.equal(episode.codes, world.video.encode(torch.from_numpy(store.frames(0))[None])[0])


def test_reconstructions_are_those_of_the_whole_clip() -> None:
    world, episode = tiny_world(), coded(100)
    episode.frames = world.video.decode(episode.codes[None])[0]
    result = evaluate_tokenizer(world.video, [episode], {"bright": bright})
    assert result["psnr"] == pytest.approx(PERFECT)
    assert result["ssim"] == pytest.approx(1)
    assert result["iou"] == {"bright": 1}
    assert result["codebook_usage"] == 1


def test_streamed_bits_are_the_full_models() -> None:
    world, episode = tiny_world(), coded(40)
    codes, actions = episode.codes[None], episode.actions[None]
    logits = world.dynamics(codes, actions).logits
    nats = F.cross_entropy(logits.flatten(0, -2), codes[:, 1:].flatten(), reduction="none").view(1, 40, -1).mean(2)
    assert torch.allclose(stream_bits(world.dynamics, codes, actions) * np.log(2), nats)


def test_a_world_that_obeys_its_actions_needs_more_bits_when_they_are_shuffled_or_withheld() -> None:
    world = tiny_world()
    world.dynamics.head.logits.weight *= 3  # surer of its next frame
    actions = torch.randint(N_ACTIONS, (1, 60))
    start = world.observe_codes(torch.randint(N_CODES, (1, 1, *CODE_SHAPE)), actions[:, :0])
    dream = world.imagine(start, actions, rngs=generators(0, 1))
    codes = torch.cat([start.codes[0, -1:], dream.codes[0]])
    episode = dataclasses.replace(coded(60), codes=codes, actions=actions[0])
    bits = evaluate_prior(world, [episode], [episode])["bits_per_code"]
    assert bits["true"] == pytest.approx(-float(dream.log_probs.mean()) / 36 / np.log(2), rel=1e-3)
    assert bits["true"] < min(bits["shuffled"], bits["none"]) - 0.1


def test_baselines_are_distributions() -> None:
    statistics = CodeStatistics(*successions([coded(30)]), N_CODES)
    before = torch.arange(N_CODES).repeat_interleave(N_CODES)
    for name, p in statistics.probability(before, torch.arange(N_CODES).repeat(N_CODES)).items():
        assert torch.allclose(p.view(N_CODES, N_CODES).sum(1), torch.ones(N_CODES, dtype=torch.float64)), name


def test_baselines_of_codes_that_never_change() -> None:
    episode = coded(50)
    still = dataclasses.replace(episode, codes=episode.codes[:1].expand(51, -1, -1))
    bits = CodeStatistics(*successions([still]), N_CODES).bits_per_code(*successions([still]))
    assert bits["same"] < 0.01
    assert bits["bigram"] < 0.2
    assert bits["unigram"] > 2


def test_a_dream_along_an_episode_meets_it_where_it_happened() -> None:
    """A world that leaves nothing to chance, given an episode of its own making, dreams the rest of that episode."""
    world = tiny_world()
    world.dynamics.head.logits.weight *= 1e6
    actions = torch.randint(N_ACTIONS, (1, 30))
    start = world.observe_codes(torch.randint(N_CODES, (1, 1, *CODE_SHAPE)), actions[:, :0])
    made = world.imagine(start, actions, rngs=generators(1, 1))
    episode = dataclasses.replace(coded(30), codes=torch.cat([start.codes[0, -1:], made.codes[0]]), actions=actions[0])
    dream = imagine_along(world, [Start(episode, dream_evaluation.CONTEXT - 1)], 10)
    assert torch.equal(dream.codes[0], episode.codes[dream_evaluation.CONTEXT : dream_evaluation.CONTEXT + 10])


def test_true_dreams_are_measured_as_perfect(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_evaluation, "imagine_along", Oracle())
    result = evaluate_rollouts(tiny_world(), [coded(60)], {"bright": bright}, horizon=5)
    assert result["psnr"] == pytest.approx([PERFECT] * 5)
    assert result["ssim"] == pytest.approx([1] * 5)
    assert all(value < 12 for value in result["psnr_still"])  # of one noise and another
    things = result["things"]["bright"]
    assert things["iou"] == things["kept"] == [1] * 5
    assert things["iou_still"] == pytest.approx([1 / 3] * 5, abs=0.02)
    assert things["cases"] == [result["starts"] * result["samples"]] * 5


def test_true_dreams_pay_what_was_paid(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_evaluation, "imagine_along", Oracle())
    kinds = evaluate_outcomes(tiny_world(), [coded(200, seed=s) for s in (0, 1)])["kinds"]
    above = {name: kind["above"]["imagined"] for name, kind in kinds.items()}
    below = {name: kind["below"]["imagined"] for name, kind in kinds.items()}
    assert above == {"more": 1, "less": 0, "end": 0, "usual": 0}
    assert below == {"more": 0, "less": -1, "end": 0, "usual": 0}
    assert {name: kind["terminated"] for name, kind in kinds.items()} == {"more": 0, "less": 0, "end": 1, "usual": 0}
    assert kinds["more"]["auc"] == kinds["less"]["auc"] == 1
    assert all(kind[side]["true"] == kind[side]["imagined"] for kind in kinds.values() for side in ("above", "below"))


def test_true_dreams_end_in_the_steps_that_end_and_in_no_other(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_evaluation, "imagine_along", Oracle())
    going_on = coded(40)
    going_on.terminated[:] = False
    assert evaluate_ends(tiny_world(), [going_on]) is None
    assert evaluate_ends(tiny_world(), [coded(16)]) is None  # whose only step after what is given is its end
    ends = evaluate_ends(tiny_world(), [going_on, coded(40), coded(50)], every=5)
    assert ends == {
        "samples": 16,
        "end": {"steps": 2, "terminated": 1},
        "other": {"steps": 5 + 5 + 7, "terminated": 0},
    }


def test_an_end_is_as_probable_as_the_model_says() -> None:
    world = tiny_world()
    for layer in (world.dynamics.outcome.termination.weight, world.dynamics.outcome.termination.bias):
        layer.data.zero_()
    ends = evaluate_ends(world, [coded(40, seed=s) for s in range(4)], samples=64)
    assert ends is not None
    assert ends["end"]["terminated"] == pytest.approx(0.5, abs=0.12)  # of 256 dreams, four standard errors
    assert ends["other"]["terminated"] == pytest.approx(0.5, abs=0.06)


def test_an_apple_does_not_hide_a_lemon(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(dream_evaluation, "imagine_along", Oracle())
    episodes = [coded(200, seed=s) for s in (0, 1)]
    for episode in episodes:
        episode.rewards[46::40] = 1.0  # right after it
    less = evaluate_outcomes(tiny_world(), episodes)["kinds"]["less"]
    assert less["above"] == {"true": 1, "imagined": 1}
    assert less["below"] == {"true": -1, "imagined": -1}
    assert less["auc"] == 1


def test_a_long_dream_counts_what_is_not_finite() -> None:
    world = tiny_world()
    episodes = [coded(30)]
    sound = evaluate_long_dream(world, episodes, steps=40)
    assert sound["not_finite"] == 0
    assert sound["memory_after"][4]["state_bytes"] == sound["memory_after"][40]["state_bytes"]
    world.dynamics.outcome.reward.bias[0] = float("nan")
    assert evaluate_long_dream(world, episodes, steps=40)["not_finite"] == 40


def codebook() -> torch.Tensor:
    return torch.randn(N_CODES, 4, generator=torch.Generator().manual_seed(2))


def foresight(seed: int, *, codes_tell: bool) -> Foresight:
    """600 frames of 20 episodes whose codes, or whose pixels, alone show which reward comes."""
    generator = torch.Generator().manual_seed(seed)
    positive = torch.rand(600, generator=generator) < 0.5
    codes = torch.randint(2, N_CODES, (600, *CODE_SHAPE), generator=generator)
    frames = torch.randint(256, (600, *FRAME_SHAPE), generator=generator, dtype=torch.uint8)
    if codes_tell:
        codes[:, 2, 3] = positive.long()
    else:
        frames[:, 14:21, 21:28] = positive.view(-1, 1, 1, 1) * 255
    return Foresight(frames, codes, positive, torch.arange(600) // 30)


@pytest.mark.parametrize("codes_tell", [True, False])
def test_the_probe_finds_the_sign_where_it_is_and_only_there(codes_tell: bool) -> None:
    result = evaluate_sign(
        foresight(0, codes_tell=codes_tell), foresight(1, codes_tell=codes_tell), codebook(), seeds=2
    )
    told, hidden = ("codes", "pixels") if codes_tell else ("pixels", "codes")
    assert result[told]["auc"] > 0.95
    assert abs(result[hidden]["auc"] - 0.5) < 0.15
    low, high = result["codes_minus_pixels"]["interval"]
    assert low > 0.3 if codes_tell else high < -0.3


def test_the_probe_is_stopped_by_episodes_with_rewards_however_they_are_numbered() -> None:
    data = foresight(0, codes_tell=True)
    data.episode *= 5  # none of the numbers is 4 more than a multiple of 5
    learned_from, stopped_by = split(data)
    assert (len(learned_from.episode.unique()), len(stopped_by.episode.unique())) == (16, 4)
    assert evaluate_sign(data, foresight(1, codes_tell=True), codebook(), seeds=1)["codes"]["auc"] > 0.9


def test_rewards_of_one_sign_cannot_be_probed() -> None:
    good, one_sign, few = (foresight(0, codes_tell=True) for _ in range(3))
    one_sign.positive[:] = True
    for training, heldout, words in [
        (one_sign, good, "training"),
        (good, one_sign, "held-out"),
        (few[few.episode < 4], good, "every fifth of the training"),
    ]:
        with pytest.raises(UserError, match=f"must occur in {words} episodes"):
            evaluate_sign(training, heldout, codebook())


def test_foresight_looks_at_the_next_reward_that_is_not_zero(tmp_path: Path) -> None:
    world, store = tiny_world(), make_store(tmp_path / "store", [])
    episode = make_episode(30, 0, FRAME_SHAPE)
    episode.rewards[:] = 0
    episode.rewards[[4, 6, 20]] = [1, -1, -2]
    store.append(episode)
    data = Foresight.read(store, world.video, within=3)
    times = [2, 3, 4, 5, 6, 18, 19, 20]
    assert torch.equal(data.frames, torch.from_numpy(episode.frames[times]))
    assert data.positive.tolist() == [True] * 3 + [False] * 5
    assert torch.equal(data.codes, coded_episodes(store, world)[0].codes[times])


@pytest.fixture
def args(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> measure.Args:
    """A model and its stores, to be measured in a moment."""
    monkeypatch.setattr(measure, "measure_speed", partial(measure_speed, seconds=0))
    monkeypatch.chdir(tmp_path)
    make_store(tmp_path / "heldout", [60, 45])
    make_store(tmp_path / "training", [40] * 6)
    tiny_world().float().save_pretrained("maze")
    return measure.Args("maze", "heldout", "training", Path("report"), fruit=("apples",), long_dream_steps=20)


def test_the_command_reports_for_programs_and_for_people(args: measure.Args) -> None:
    measure.main(args)
    report = json.loads(Path("report/world.json").read_text(), parse_constant=pytest.fail)
    assert set(args.parts) <= set(report["maze"])
    page = Path("report/world.md").read_text()
    assert "worldmodel measure --model maze --store heldout --train-store training" in page
    # Another model's measures stand beside the first one's; measuring one part again leaves the others.
    measure.main(dataclasses.replace(args, name="other", parts=("prior",)))
    measure.main(dataclasses.replace(args, parts=("prior",)))
    both = json.loads(Path("report/world.json").read_text())
    assert {part: both["maze"][part] for part in args.parts} == {part: report["maze"][part] for part in args.parts}
    assert both["other"]["prior"] == both["maze"]["prior"]
    assert "sign" not in both["other"]


def test_each_part_keeps_the_command_that_measured_it(args: measure.Args) -> None:
    brief = dataclasses.replace(args, parts=("tokenizer", "prior"))
    measure.main(brief)
    measure.main(dataclasses.replace(brief, parts=("prior",), also="training", name="maze"))
    (commands,) = (model["commands"] for model in json.loads(Path("report/world.json").read_text()).values())
    given = "worldmodel measure --model maze --store heldout --train-store training --out report"
    rest = "--long-dream-steps 20"
    assert commands == {
        "tokenizer": f"{given} --fruit apples --parts tokenizer prior {rest}",
        "prior": f"{given} --name maze --also training --fruit apples --parts prior {rest}",
    }
    page = Path("report/world.md").read_text()
    assert all(command in page for command in commands.values())


def test_an_interrupted_measurement_says_how_to_go_on(
    args: measure.Args, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    def ctrl_c(_: measure.Evaluation) -> None:
        raise KeyboardInterrupt

    monkeypatch.setattr(measure.Evaluation, "outcomes", ctrl_c)
    with pytest.raises(KeyboardInterrupt):
        measure.main(dataclasses.replace(args, parts=("tokenizer", "outcomes", "long-dream")))
    assert "the same command with --parts outcomes long-dream measures the rest" in capsys.readouterr().out
    assert "tokenizer" in json.loads(Path("report/world.json").read_text())["maze"]


def test_a_model_in_the_folder_of_a_run_is_called_as_the_run(args: measure.Args) -> None:
    tiny_world().float().save_pretrained("runs/small/model")
    measure.main(dataclasses.replace(args, model="runs/small/model", parts=("prior",)))
    assert set(json.loads(Path("report/world.json").read_text())) == {"small"}


def test_numbers_of_two_models_are_never_put_together(args: measure.Args, capsys: pytest.CaptureFixture[str]) -> None:
    measure.main(dataclasses.replace(args, parts=("tokenizer",)))
    measure.main(dataclasses.replace(args, parts=("prior",)))
    assert {"tokenizer", "prior"} <= json.loads((args.out / "world.json").read_text())[Path(args.model).name].keys()
    assert "replaced" not in capsys.readouterr().out
    world = WorldModel.from_pretrained(args.model)
    with torch.no_grad():
        world.dynamics.place.add_(1.0)
    world.save_pretrained(args.model)
    measure.main(dataclasses.replace(args, parts=("prior",)))
    assert "another model's" in capsys.readouterr().out
    assert "tokenizer" not in json.loads((args.out / "world.json").read_text())[Path(args.model).name]


def test_what_cannot_be_measured_is_a_dash_and_the_report_goes_on(args: measure.Args) -> None:
    """Frames that never change make perfect stills, and without rewards there is nothing to tell apart."""
    store = make_store(Path("still"), [])
    episode = make_episode(60, 0, FRAME_SHAPE)
    store.append(dataclasses.replace(episode, frames=np.zeros_like(episode.frames), rewards=np.zeros(60)))
    still = dataclasses.replace(args, store="still", parts=("rollouts", "outcomes"))
    for _ in range(2):  # the second run reads what the first one wrote
        measure.main(still)
    report = json.loads(Path("report/world.json").read_text(), parse_constant=pytest.fail)
    assert report["maze"]["rollouts"][0]["psnr_still"] == pytest.approx([PERFECT] * 20)
    assert "–" in Path("report/world.md").read_text()


def test_mistakes_are_named_before_anything_is_measured(args: measure.Args) -> None:
    make_store(Path("other-size"), [40], (28, 28, 3))
    make_store(Path("short"), [20])
    make_store(Path("empty"), [])
    Path("else").mkdir()
    Path("else/world.json").write_text("[1, 2]")
    for wrong, words in [
        ({"model": "no-such-model"}, "no-such-model"),
        ({"store": "no-such-store"}, "no-such-store"),
        ({"train_store": "no-such-store"}, "no-such-store"),
        ({"store": "other-size"}, "trained on frames .* other-size shows"),
        ({"store": "empty"}, "empty"),
        ({"store": "short"}, "record longer ones"),
        ({"parts": ()}, "--parts are some of"),
        ({"store": "short", "parts": ("outcomes",)}, "record longer ones, or leave outcomes out"),
        ({"out": Path("else")}, "not a report"),
    ]:
        with pytest.raises(UserError, match=words):
            measure.main(dataclasses.replace(args, **wrong))  # type: ignore[arg-type]
    assert not Path("report").exists()
    assert Path("else/world.json").read_text() == "[1, 2]"
