"""A model on another device dreams, watches, is measured and benchmarked there as it is here."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
from PIL import Image

from envs.imagined_vector import ImaginedVectorEnv
from envs.latents import LatentStream
from envs.observations import Obs
from scripts import (
    audio_convert,
    audio_phonemes,
    audio_reconstruct,
    audio_sample,
    benchmark,
    imagine,
    likelihood,
    measure,
    reconstruct,
    sample,
)
from tests.made_episodes import PROVENANCE, make_episode
from tests.made_speech import write_speech
from tests.pretended_device import a_second_device
from tests.tiny_world import FRAME_SHAPE, N_ACTIONS
from worldmodel.audio import PRESETS as AUDIO_PRESETS
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.episodes import EpisodeStore
from worldmodel.image import ImageConfig
from worldmodel.image_model import ImageModel, ImageModelConfig
from worldmodel.pixelcnn import PixelCNNConfig
from worldmodel.probe import Foresight
from worldmodel.state import generators
from worldmodel.two_stage import GlobalConfig
from worldmodel.wavenet import WaveNetConfig
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


@pytest.fixture(scope="module")
def image_model(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """One of all parts, with classes."""
    torch.manual_seed(0)
    grid: Any = {"code_shape": (4, 4), "num_codes": 8}
    config = ImageModelConfig(
        ImageConfig((8, 8), width=8, downsamplings=1, num_codes=8, likelihood="logistic"),
        PixelCNNConfig(**grid, width=8, layers=2, classes=2),
        GlobalConfig(**grid, num_latent_codes=4, latent_dim=4, width=8, layers=2),
        ("ant", "bee"),
    )
    folder = tmp_path_factory.mktemp("image")
    ImageModel(config).save_pretrained(folder / "model", card="")
    rng = np.random.default_rng(0)
    for place in ("train/ant", "train/bee", "test/ant", "test/bee"):
        (folder / place).mkdir(parents=True)
        for i in range(2):
            picture = Image.fromarray(rng.integers(256, size=(8, 8, 3), dtype=np.uint8))
            picture.save(folder / place / f"{i}.png")
    return folder


def test_images_are_drawn_reconstructed_and_measured_the_same(image_model: Path, tmp_path: Path) -> None:
    def write(device: str, out: Path) -> list[bytes]:
        model = str(image_model / "model")
        run_on(device, sample, model=model, out=out / "drawn.png", rows=1)
        run_on(device, reconstruct, model=model, data=str(image_model), out=out / "again.png", n=3)
        run_on(device, likelihood, model=model, data=str(image_model), out=out / "bits.json")
        return [(out / name).read_bytes() for name in ("drawn.png", "again.png", "bits.json")]

    here = write("cpu", tmp_path / "here")
    with a_second_device() as elsewhere:
        assert write(elsewhere, tmp_path / "there") == here


def test_speech_is_drawn_said_again_and_mapped_the_same(tmp_path: Path) -> None:
    (tmp_path / "speech").mkdir()
    speech = write_speech(tmp_path / "speech")
    torch.manual_seed(0)
    config = dataclasses.replace(AUDIO_PRESETS["25hz"], speakers=2)
    prior = WaveNetConfig(classes=128, width=8, skip=8, stacks=1, layers=2)
    AudioModel(AudioModelConfig(config, prior, ("ann", "bob"))).save_pretrained(tmp_path / "model", card="")

    def write(device: str, out: Path) -> list[bytes]:
        model, brief = str(tmp_path / "model"), {"seconds": 0.05}
        given: dict[str, Any] = {"model": model, "data": str(speech)}
        run_on(device, audio_sample, model=model, out=out / "new", **brief)
        run_on(device, audio_reconstruct, **given, out=out / "again", n=2, **brief)
        run_on(device, audio_convert, **given, out=out / "as_bob", speaker=("bob",), n=2, **brief)
        run_on(device, audio_phonemes, **given, out=out / "phonemes.json")
        return [path.read_bytes() for path in sorted(out.rglob("*")) if path.is_file()]

    here = write("cpu", tmp_path / "here")
    with a_second_device() as elsewhere:
        assert write(elsewhere, tmp_path / "there") == here
