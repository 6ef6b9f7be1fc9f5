"""Every model that comes with the package is there in one piece, and works."""

import math
from pathlib import Path

import numpy as np
import pytest
import torch

from agents.agent import BUNDLED as AGENTS
from agents.agent import Agent
from worldmodel.audio import SAMPLE_RATE
from worldmodel.audio_data import Audio
from worldmodel.audio_model import AudioModel
from worldmodel.audio_recipe import AudioRecipe, check_trainable
from worldmodel.folders import BUNDLED as MODELS
from worldmodel.image_model import ImageModel
from worldmodel.world import WorldModel

WORLDS = ("dmlab-explore", "dmlab-seekavoid", "doom-take-cover")


def names(folder: Path) -> set[str]:
    return {path.parent.name for path in folder.glob("*/config.json")}


def test_none_is_left_out_here() -> None:
    assert names(MODELS) == {*WORLDS, "dmlab-images", "speech-25hz"}
    assert names(AGENTS) == {"seekavoid", "take-cover"}


@pytest.mark.parametrize("name", WORLDS)
def test_a_world_knows_its_own_starts(name: str) -> None:
    """Which fails where weights are of another shape or of another model than they are said to be."""
    world = WorldModel.from_pretrained(name)
    codes, actions = world.contexts.codes[:4].long(), world.contexts.actions[:4].long()
    with torch.no_grad():
        logits = world.dynamics(codes, actions, given=codes.shape[1] - 1).logits  # [4, 1, h, w, K]
    nats = torch.nn.functional.cross_entropy(logits.flatten(0, -2), codes[:, -1:].flatten())
    assert nats / math.log(2) < 5
    assert (world.video.encode(world.video.decode(codes)) == codes).float().mean() > 0.3


@pytest.mark.parametrize("name", WORLDS)
def test_frames_have_the_same_codes_in_any_precision(name: str) -> None:
    """Or an agent that trains in one and plays in another would see another world."""
    exact, fast = (WorldModel.from_pretrained(name, dtype=dtype) for dtype in (torch.float32, torch.bfloat16))
    frames = exact.video.decode(exact.contexts.codes[:2].long())
    assert torch.equal(exact.video.encode(frames), fast.video.encode(frames))


def test_a_model_of_images_draws() -> None:
    assert ImageModel.from_pretrained("dmlab-images").sample(1).shape == (1, 84, 84, 3)


def test_a_model_of_speech_speaks_and_can_be_trained_on() -> None:
    model = AudioModel.from_pretrained("speech-25hz")
    assert model.sample(1, torch.tensor([0])).isfinite().all()
    names = model.config.speakers
    speech = Audio([torch.zeros(640)], torch.tensor([0]), names, ("silence",), None, SAMPLE_RATE)
    check_trainable(speech, AudioRecipe(preset="25hz", steps=0, settle_steps=1), model)


@pytest.mark.parametrize("name", ["seekavoid", "take-cover"])
def test_an_agent_acts(name: str) -> None:
    agent = Agent.load(name)
    seen = np.zeros((2, *agent.config.observation_shape), np.float32)
    assert agent.act(seen, [np.random.default_rng(0)] * 2).shape == (2,)
