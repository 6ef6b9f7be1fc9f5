"""Agents: how they are kept, how they act, and what they are said to have earned."""

import dataclasses
import json
import math
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from flicker import Flicker, film
from gymnasium import spaces
from gymnasium.vector import AutoresetMode
from numpy.typing import NDArray
from tiny_world import CODE_SHAPE, FRAME_SHAPE, N_ACTIONS, N_CODES, tiny_world

from envs.imagined import ImaginedEnv
from envs.imagined_vector import ImaginedVectorEnv
from envs.latents import LatentObservation
from envs.observations import Obs
from worldmodel.errors import UserError
from worldmodel.files import read_tensors
from worldmodel.state import generators
from worldmodel.world import WorldModel

pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from agents.actors import ConstantActor, Exploring, RandomActor, in_real_world  # noqa: E402
from agents.agent import Agent, AgentConfig  # noqa: E402
from agents.caution import SurprisePenalty  # noqa: E402
from agents.evaluation import Outcome, Score, dream, outcome, play  # noqa: E402
from agents.policies import make_policy  # noqa: E402

RECENT = 3  # frames of a history


@pytest.fixture(scope="module")
def world() -> WorldModel:
    return tiny_world()


# --- How an agent is kept.


def make_agent(world: WorldModel | None, obs: Obs, model: str | None = None, seed: int = 0) -> Agent:
    shape = {"pixels": FRAME_SHAPE, "latents": CODE_SHAPE, "history": (RECENT, *CODE_SHAPE)}[obs]
    config = AgentConfig(
        obs=obs,
        observation_shape=shape,
        num_codes=256 if obs == "pixels" else N_CODES,
        action_meanings=("left", "right", "stay"),
        model=model,
        codebook=world.video.codebook_fingerprint() if world else None,
    )
    high = config.num_codes - 1
    space = (
        spaces.Box(0, 255, (3, *FRAME_SHAPE[:2]), np.uint8) if obs == "pixels" else spaces.Box(0, high, shape, np.int64)
    )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        policy = make_policy(space, spaces.Discrete(N_ACTIONS), world)
        torch.nn.init.normal_(policy.action_net.weight)  # opinions strong enough to tell agents apart,
    if world is not None and obs != "pixels":  # and other ones of other looks
        with torch.no_grad():
            seen = policy.get_distribution(torch.from_numpy(looks(world, obs))).distribution
            policy.action_net.bias -= seen.logits.mean(0)  # type: ignore[attr-defined]
    return Agent(config, policy, world)


def looks(world: WorldModel, obs: Obs, n: int = 32) -> NDArray[Any]:
    """Observations of that kind."""
    rng, space = np.random.default_rng(0), ImaginedEnv(world, obs=obs).observation_space
    assert isinstance(space, spaces.Box) and space.shape is not None
    return rng.integers(int(space.high.max()) + 1, size=(n, *space.shape)).astype(space.dtype)


@pytest.fixture(scope="module")
def model(world: WorldModel, tmp_path_factory: pytest.TempPathFactory) -> str:
    folder = tmp_path_factory.mktemp("models") / "tiny"
    world.save_pretrained(folder)
    return str(folder)


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_a_saved_agent_acts_as_before(world: WorldModel, model: str, tmp_path: Path, obs: Obs) -> None:
    folder = tmp_path / "agent"
    make_agent(world, obs, seed=9).save(folder)
    agent = make_agent(world, obs, model=model) if obs != "pixels" else make_agent(None, obs)
    agent.save(folder, card="# Me\n")  # in place of the other
    loaded = Agent.load(folder)
    assert loaded.config == agent.config and (folder / "README.md").read_text() == "# Me\n"
    assert sorted(path.name for path in folder.iterdir()) == ["README.md", "config.json", "policy.safetensors"]
    assert (loaded.world is None) == (obs == "pixels")
    observations = looks(world, obs)
    actions = agent.act(observations, [])
    assert actions.shape == (32,) and len(np.unique(actions)) > 1
    np.testing.assert_array_equal(loaded.act(observations, []), actions)
    np.testing.assert_array_equal([int(loaded.act(each[None], [])[0]) for each in observations], actions)
    assert list(tmp_path.iterdir()) == [folder]


def test_codes_that_the_tokenizer_holds_alike_are_alike_to_an_agent(tmp_path: Path) -> None:
    world = tiny_world()
    world.video.quantizer.embedding[1] = world.video.quantizer.embedding[0]
    agent, zeros = make_agent(world, "history"), np.zeros((1, RECENT, *CODE_SHAPE), np.int64)
    opinions = [
        agent.policy.get_distribution(torch.from_numpy(seen)).distribution.logits  # type: ignore[attr-defined]
        for seen in (zeros, zeros + 1, zeros + 2)
    ]
    assert torch.equal(opinions[0], opinions[1]) and not torch.allclose(opinions[0], opinions[2])
    agent.save(tmp_path / "agent")
    assert not any("codebook" in name for name in read_tensors(tmp_path / "agent" / "policy.safetensors"))


def test_an_agent_is_loaded_into_the_world_that_it_is_given(world: WorldModel, tmp_path: Path) -> None:
    make_agent(world, "latents", model="moved/away/long ago").save(tmp_path / "agent")
    assert Agent.load(tmp_path / "agent", world=world).world is world
    with pytest.raises(UserError, match="moved/away"):
        Agent.load(tmp_path / "agent")
    make_agent(world, "latents").save(tmp_path / "agent")
    with pytest.raises(UserError, match="does not say of which"):
        Agent.load(tmp_path / "agent")


def test_a_fingerprint_survives_a_change_of_precision(world: WorldModel, model: str) -> None:
    loaded = WorldModel.from_pretrained(model)
    names = {
        w.video.codebook_fingerprint() for w in (world, loaded, WorldModel.from_pretrained(model, dtype=torch.bfloat16))
    }
    assert len(names) == 1


def other_codebook() -> WorldModel:
    world = tiny_world()
    world.video.quantizer.embedding.add_(1.0)
    return world


def refusal(call: Any, *arguments: Any, **named: Any) -> str:
    with pytest.raises(UserError) as caught:
        call(*arguments, **named)
    sentence = str(caught.value)
    assert len(sentence.splitlines()) == 1 and sentence.endswith("."), sentence
    return sentence


def test_a_model_that_an_agent_did_not_learn_in_is_refused(world: WorldModel, tmp_path: Path) -> None:
    make_agent(world, "history", model="the one").save(tmp_path / "agent")
    assert "another tokenizer" in refusal(Agent.load, tmp_path / "agent", world=other_codebook())
    assert "the one as it was then" in refusal(Agent.load, tmp_path / "agent", world=other_codebook())


def test_a_world_that_an_agent_cannot_play_is_refused(world: WorldModel) -> None:
    meanings = ["left", "right", "stay"]
    for agent in (make_agent(world, "latents"), make_agent(None, "pixels")):
        agent.check_fits(FRAME_SHAPE, meanings)
        assert "frames [42, 42, 3], and this world shows [84, 84, 3]" in refusal(
            agent.check_fits, (84, 84, 3), meanings
        )
        assert "3 actions (left, right, stay), and this world has 2" in refusal(
            agent.check_fits, FRAME_SHAPE, meanings[:2]
        )
        assert "(left, stay, right)" in refusal(agent.check_fits, FRAME_SHAPE, ["left", "stay", "right"])


def test_an_agent_without_names_for_its_actions_goes_by_their_number() -> None:
    agent = make_agent(None, "pixels")
    nameless = Agent(dataclasses.replace(agent.config, action_meanings=("0", "1", "2")), agent.policy)
    nameless.check_fits(FRAME_SHAPE, ["left", "right", "stay"])
    assert "has 4" in refusal(nameless.check_fits, FRAME_SHAPE, ["a", "b", "c", "d"])


@pytest.mark.parametrize("name", ["no such agent", "tests"])
def test_an_agent_that_there_is_not(name: str) -> None:
    assert f"no agent {name}" in refusal(Agent.load, name)


@pytest.mark.parametrize(
    ("file", "content"),
    [
        ("config.json", b"{"),
        ("config.json", b"[]"),
        ("config.json", b"\xff"),
        ("config.json", b'{"obs": "latents"}'),
        ("config.json", {"obs": "smells"}),
        ("config.json", {"observation_shape": [6]}),
        ("config.json", {"observation_shape": [9, 9]}),
        ("config.json", {"num_codes": 99}),
        ("config.json", {"num_codes": "many"}),
        ("config.json", {"action_meanings": []}),
        ("config.json", {"action_meanings": ["left", "right"]}),
        ("config.json", {"action_meanings": [1, 2, 3]}),
        ("config.json", {"obs": "pixels", "observation_shape": [20, 20, 3]}),
        ("config.json", {"obs": "pixels", "observation_shape": [42, 42, 5]}),
        ("config.json", {"from": "the future"}),
        ("policy.safetensors", b""),
        ("policy.safetensors", b"junk" * 99),
        ("policy.safetensors", None),
    ],
)
def test_a_damaged_agent_is_one_sentence(
    world: WorldModel, tmp_path: Path, file: str, content: bytes | dict[str, Any] | None
) -> None:
    folder = tmp_path / "agent"
    make_agent(world, "latents").save(folder)
    if isinstance(content, dict):
        content = json.dumps(json.loads((folder / file).read_text()) | content).encode()
    (folder / file).write_bytes(content) if content is not None else (folder / file).unlink()
    assert str(folder) in refusal(Agent.load, folder, world=world)


def test_an_agent_does_not_replace_something_else(world: WorldModel, tmp_path: Path) -> None:
    (tmp_path / "thesis.txt").write_text("all of it")
    assert "holds something else (thesis.txt)" in refusal(make_agent(world, "latents").save, tmp_path)
    assert (tmp_path / "thesis.txt").read_text() == "all of it"


def test_frames_too_small_to_look_at_are_refused() -> None:
    for shape in ((3, 20, 60), (60, 20, 3)):
        assert "36x36" in refusal(make_policy, spaces.Box(0, 255, shape, np.uint8), spaces.Discrete(2))


def test_latents_of_nobody_knows_which_model_are_refused() -> None:
    latents = spaces.Box(0, N_CODES - 1, CODE_SHAPE, np.int64)
    assert "give its world" in refusal(make_policy, latents, spaces.Discrete(2))


# --- Who else acts.


def test_exploring_takes_the_agents_action_or_any(world: WorldModel) -> None:
    rngs = generators(0, 3000)
    chosen = Exploring(ConstantActor(2), N_ACTIONS, 0.3).act(np.zeros(3000), rngs)
    share = np.bincount(chosen, minlength=3) / 3000
    np.testing.assert_allclose(share, [0.1, 0.1, 0.8], atol=0.04)
    agent = make_agent(world, "latents")
    never = Exploring(agent, N_ACTIONS, 0.0)
    assert (never.obs, never.world) == ("latents", world)
    np.testing.assert_array_equal(
        never.act(looks(world, "latents"), generators(0, 32)), agent.act(looks(world, "latents"), [])
    )


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_in_a_real_world_an_agent_sees_as_it_learned_to(world: WorldModel, obs: Obs) -> None:
    agent = make_agent(world if obs != "pixels" else None, obs)
    seen = film(Flicker() if obs == "pixels" else LatentObservation(Flicker(), world, obs), 5)
    frames, policy = film(Flicker(), 5), in_real_world(agent)
    for _ in range(2):  # each episode has a player, and eyes, of its own
        player = policy(np.random.default_rng(0))
        assert [player(frame) for frame in frames] == agent.act(seen, []).tolist()


# --- What they earn.


def test_a_score_of_known_numbers() -> None:
    score = Score.of([Outcome(i, earned, 1) for i, earned in enumerate([1.0, 2.0, 3.0, 6.0])])
    assert (score.episodes, score.mean) == (4, 3.0)
    assert score.std == pytest.approx(math.sqrt(3.5))
    assert Score.of([Outcome(0, 5.0, 1)] * 3) == Score(3, 5.0, 0.0, (5.0, 5.0))
    many = np.random.default_rng(0).normal(10, 4, 400)
    low, high = Score.of([Outcome(i, x, 1) for i, x in enumerate(many)]).ci95
    half = 1.96 * many.std() / math.sqrt(400)  # which the bootstrap tends to
    np.testing.assert_allclose([low, high], [many.mean() - half, many.mean() + half], atol=0.05)


@pytest.mark.parametrize("obs", ["pixels", "history"])
def test_dreamed_returns_are_those_of_single_dreams(world: WorldModel, obs: Obs) -> None:
    agent = make_agent(world if obs != "pixels" else None, obs)
    outcomes = dream(agent, world, [7, 3, 11, 40], horizon=12, temperature=1.2)
    assert [o.seed for o in outcomes] == [7, 3, 11, 40]
    for found in outcomes:
        env = ImaginedEnv(world, obs=obs, horizon=12, temperature=1.2)
        seen, _ = env.reset(seed=found.seed)
        earned, steps, ended = 0.0, 0, False
        while not ended:
            seen, reward, terminated, truncated, _ = env.step(agent.act(seen[None], [])[0])
            earned, steps, ended = earned + reward, steps + 1, terminated or truncated
        assert (found.earned, found.steps) == (pytest.approx(earned), steps)
    assert len({o.steps for o in outcomes}) > 1


def test_an_actors_luck_depends_on_the_seed_alone(world: WorldModel) -> None:
    actor = RandomActor(N_ACTIONS, obs="latents")
    together = dream(actor, world, [1, 2, 3], horizon=9)
    assert together == [dream(actor, world, [seed], horizon=9)[0] for seed in (1, 2, 3)]


def test_real_returns_are_the_sums_of_the_rewards() -> None:
    episodes = list(play(ConstantActor(2), Flicker, [3, 1, 2], worlds=2))
    assert [outcome(e) for e in episodes] == [Outcome(seed, 18.0, 9) for seed in (3, 1, 2)]
    cut = next(play(ConstantActor(2), Flicker, [3], max_steps=4))
    assert outcome(cut) == Outcome(3, 8.0, 4) and cut.truncated[-1]


@pytest.mark.parametrize("mode", [AutoresetMode.SAME_STEP, AutoresetMode.NEXT_STEP])
def test_dreams_pay_less_where_they_are_surprised(world: WorldModel, mode: AutoresetMode) -> None:
    def make() -> ImaginedVectorEnv:
        return ImaginedVectorEnv(world, 4, obs="latents", horizon=5, temperature=1.5, autoreset_mode=mode)

    plain, careful = make(), SurprisePenalty(make(), 0.5)
    np.testing.assert_array_equal(careful.reset(seed=0)[0], plain.reset(seed=0)[0])
    surprises: list[float] = []  # of all steps so far, in bits a code
    docked = 0
    for step in range(20):
        actions = np.full(4, step % N_ACTIONS)
        seen, rewards, *rest, info = plain.step(actions)
        result = careful.step(actions)
        np.testing.assert_array_equal(result[0], seen)
        np.testing.assert_array_equal(result[2:4], rest)
        log_probs = np.zeros(4)
        for row in range(4):
            source = info["final_info"] if "final_info" in info and info["_final_info"][row] else info
            log_probs[row] = source["log_prob"][row] if "log_prob" in source else 0.0
        bits = -log_probs / math.log(2) / (CODE_SHAPE[0] * CODE_SHAPE[1])
        surprises += [b for b in bits if b != 0]  # a row that is only reset takes no step
        penalty = 0.5 * np.where(bits != 0, np.maximum(bits - np.mean(surprises), 0), 0)
        docked += int((penalty > 0).sum())
        np.testing.assert_allclose(result[1], rewards - penalty, rtol=1e-9)
    assert 20 < docked < 60
