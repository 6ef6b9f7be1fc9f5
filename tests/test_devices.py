"""A model on another device dreams, watches, is measured and benchmarked there as it is here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from envs.imagined import ImaginedVectorEnv, Obs
from envs.latents import LatentStream
from scripts import benchmark, imagine, measure
from tests.made_episodes import PROVENANCE, make_episode
from tests.pretended_device import a_second_device
from tests.tiny_world import FRAME_SHAPE, N_ACTIONS
from worldmodel.episodes import EpisodeStore
from worldmodel.probe import Foresight
from worldmodel.state import generators
from worldmodel.world import WorldModel


@pytest.fixture(scope="module")
def store(tmp_path_factory: pytest.TempPathFactory) -> str:
    address = str(tmp_path_factory.mktemp("stores") / "made")
    made = EpisodeStore.create(address, frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for seed in range(5):
        episode = make_episode(40, seed, FRAME_SHAPE)
        made.append(dataclasses.replace(episode, rewards=np.sign(episode.rewards) * (np.abs(episode.rewards) > 1.5)))
    return address


def test_the_pretended_device_is_strict() -> None:
    with a_second_device() as elsewhere:
        there, here = torch.arange(3.0, device=elsewhere), torch.ones(3)
        assert there.device.type == elsewhere and (there + 1).sum().item() == 6
        assert torch.equal(there.to("cpu"), torch.arange(3.0))
        with pytest.raises(RuntimeError, match="one device"):
            there + here
        with pytest.raises(TypeError, match="bring it here"):
            there.numpy()


def test_a_dream_is_the_same_there(model: str) -> None:
    def dream(device: str) -> list[np.ndarray]:
        world = WorldModel.from_pretrained(model, device=device)
        assert world.contexts is not None
        assert world.device.type == next(world.dynamics.parameters()).device.type == device
        state = world.observe_codes(world.contexts.codes[:2], world.contexts.actions[:2])
        rollout = world.imagine(state, torch.zeros(2, 5, dtype=torch.int64), rngs=generators(0, 2))
        state = world.observe(rollout.frames(), torch.zeros(2, 4, dtype=torch.int64))
        return [x.numpy(force=True) for x in (rollout.frames(), rollout.log_probs, rollout.terminated, state.codes)]

    here = dream("cpu")
    with a_second_device() as elsewhere:
        there = dream(elsewhere)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


@pytest.mark.parametrize("obs", ["pixels", "latents", "history"])
def test_an_environment_shows_the_same_from_there(obs: Obs, model: str) -> None:
    def play(device: str) -> list[np.ndarray]:
        envs = ImaginedVectorEnv(model, 3, obs=obs, device=device)
        seen = [envs.reset(seed=1)[0]]
        for _ in range(4):  # in which some dreams end
            seen += envs.step(np.array([0, 1, 2]))[:4]
        kept, branches = envs.get_state(), envs.branch(2, seed=0)
        return [*seen, branches.step(np.zeros(6, np.int64))[0], envs.set_state(kept)]

    here = play("cpu")
    with a_second_device() as elsewhere:
        there = play(elsewhere)
    for a, b in zip(here, there, strict=True):
        np.testing.assert_array_equal(a, b)


def test_the_real_world_is_seen_through_a_model_there(model: str) -> None:
    frames = make_episode(5, 0, FRAME_SHAPE).frames

    def watch(device: str) -> list[np.ndarray]:
        stream = LatentStream(WorldModel.from_pretrained(model, device=device), "history")
        return [stream.begin(frames[0]), *(stream.go_on(frame) for frame in frames[1:])]

    here = watch("cpu")
    with a_second_device() as elsewhere:
        assert np.array_equal(watch(elsewhere), here)


def run_on(device: str, command: Any, **args: Any) -> None:
    command.main(command.Args(device=device, **args))


@pytest.mark.parametrize("recorded", [False, True])
def test_imagine_writes_the_same(recorded: bool, model: str, store: str, tmp_path: Path) -> None:
    args = {"store": store, "episode": 1} if recorded else {"actions": "left*5, stay"}
    run_on("cpu", imagine, model=model, out=tmp_path / "here", **args)
    with a_second_device() as elsewhere:
        run_on(elsewhere, imagine, model=model, out=tmp_path / "there", **args)
    for name in ("strip.png", "dream.npz"):
        assert (tmp_path / "here" / name).read_bytes() == (tmp_path / "there" / name).read_bytes()


def test_benchmark_reports_the_same(model: str, store: str, tmp_path: Path) -> None:
    def report(device: str, out: Path) -> Any:
        run_on(device, benchmark, model=(model,), store=store, out=out, contexts=2, samples=2)
        return json.loads((out / "report.json").read_text())["predictors"]

    here = report("cpu", tmp_path / "here")
    with a_second_device() as elsewhere:
        assert report(elsewhere, tmp_path / "there") == here


def test_measure_reports_the_same(model: str, store: str, tmp_path: Path) -> None:
    parts = ("tokenizer", "prior", "rollouts", "outcomes")

    def report(device: str, out: Path) -> Any:
        run_on(device, measure, model=model, store=store, train_store=store, out=out, parts=parts)
        measured = json.loads((out / "world.json").read_text())["tiny"]
        return [measured[part] for part in parts]

    here = report("cpu", tmp_path / "here")
    with a_second_device() as elsewhere:
        assert report(elsewhere, tmp_path / "there") == here


def test_what_probes_learn_from_is_brought_here(model: str, store: str) -> None:
    episodes = EpisodeStore.open(store)
    here = Foresight.read(episodes, WorldModel.from_pretrained(model).video)
    with a_second_device() as elsewhere:
        there = Foresight.read(episodes, WorldModel.from_pretrained(model, device=elsewhere).video)
    assert torch.equal(there.codes, here.codes)
