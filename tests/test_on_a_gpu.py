"""On a GPU a step is recorded once and replayed: it teaches what the same steps teach when each is taken by itself."""

from collections.abc import Callable
from pathlib import Path

import pytest
import torch

from tests.test_outcomes import some_codes, sparse_store
from tests.tiny_world import N_CODES, tiny_world
from worldmodel import step
from worldmodel.audio import AudioConfig, AudioVQVAE
from worldmodel.audio_data import Audio
from worldmodel.audio_objectives import AudioObjective, SpeechCodesObjective
from worldmodel.baselines import ImageVAE, ImageVIMCO
from worldmodel.coded_store import encode_store
from worldmodel.dreaming import DreamingObjective
from worldmodel.image import ImageConfig, ImageVQVAE
from worldmodel.image_data import Images
from worldmodel.image_objectives import AnyImageModel, CodesObjective, GlobalObjective, ImageObjective
from worldmodel.objectives import DynamicsObjective, VideoObjective
from worldmodel.outcomes import OutcomeObjective
from worldmodel.pixelcnn import PixelCNN, PixelCNNConfig
from worldmodel.recipe import Recipe, learn_prior
from worldmodel.step import Batch
from worldmodel.training import Dataset, FitConfig, Objective, fit
from worldmodel.two_stage import GlobalConfig, GlobalVQVAE
from worldmodel.wavenet import WaveNet, WaveNetConfig

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a GPU")

STEPS, BATCH = 12, 4
IMAGE = ImageConfig((8, 8), width=16, blocks=1, maps=2, num_codes=16, code_dim=4, likelihood="logistic")


def images(model: Callable[[ImageConfig], AnyImageModel]) -> Objective:
    pixels = torch.randint(256, (50, 8, 8, 3), dtype=torch.uint8)
    return ImageObjective(model(IMAGE).cuda(), Images(pixels, None, ()))


def codes() -> Objective:
    config = PixelCNNConfig((5, 6), 16, maps=2, width=16, layers=2, classes=3)
    return CodesObjective(PixelCNN(config).cuda(), torch.randint(16, (50, 2, 5, 6)), torch.randint(3, (50,)))


def second_stage() -> Objective:
    config = GlobalConfig((5, 6), 16, num_latent_codes=8, width=16, layers=2)
    return GlobalObjective(GlobalVQVAE(config).cuda(), torch.randint(16, (50, 1, 5, 6)))


def tokenizer() -> Objective:
    return VideoObjective(tiny_world().float().requires_grad_(True).video.cuda(), sparse_store(), size=STEPS * BATCH)


def prior(kind: type[DynamicsObjective] = DynamicsObjective) -> Objective:
    world, store = tiny_world().float().requires_grad_(True).cuda(), sparse_store()
    salience = torch.rand(N_CODES).cuda()
    return kind(world, store, some_codes(store), salience, size=STEPS * BATCH)


def outcomes() -> Objective:
    world, store = tiny_world().float().requires_grad_(True).cuda(), sparse_store()
    return OutcomeObjective(world.dynamics, store, some_codes(store), size=STEPS * BATCH)


SPEECH = AudioConfig(
    (2,), num_codes=8, code_dim=4, width=8, blocks=1, features="mel", decoder_width=8, decoder_skip=8, decoder_layers=3,
    hidden=0.1, speakers=2,
)  # fmt: skip


def recordings() -> Audio:
    return Audio([torch.rand(2_000) - 0.5] * 2, torch.arange(2), ("ann", "bob"), ("a", "b"), None, 16_000)


def speech() -> Objective:
    return AudioObjective(AudioVQVAE(SPEECH).cuda(), recordings(), 960, 320)


def speech_codes() -> Objective:
    model = WaveNet(WaveNetConfig(8, width=8, skip=8, layers=2)).cuda()
    return SpeechCodesObjective(model, AudioVQVAE(SPEECH).cuda().eval(), recordings(), 30)


OBJECTIVES: dict[str, Callable[[], Objective]] = {
    "VQ-VAE": lambda: images(ImageVQVAE),
    "VAE": lambda: images(ImageVAE),
    "VIMCO": lambda: images(lambda config: ImageVIMCO(config, samples=5)),
    "PixelCNN": codes,
    "second stage": second_stage,
    "tokenizer": tokenizer,
    "prior": prior,
    "dreams": lambda: prior(DreamingObjective),
    "outcomes": outcomes,
    "speech": speech,
    "prior over speech": speech_codes,
}


def learned(make: Callable[[], Objective], folder: Path) -> torch.Tensor:
    torch.manual_seed(0)
    objective = make()
    fit(objective, FitConfig(STEPS, BATCH, 1e-3), folder)
    return torch.cat([p.detach().flatten() for p in objective.model.parameters()])


@pytest.mark.parametrize("name", OBJECTIVES)
def test_a_recorded_step_teaches_what_a_step_by_itself_teaches(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    recorded = learned(OBJECTIVES[name], tmp_path / "recorded")
    with monkeypatch.context() as patch:
        patch.setattr(step, "WARMUP", STEPS)
        single = learned(OBJECTIVES[name], tmp_path / "single")
    torch.manual_seed(0)
    before = torch.cat([p.detach().flatten() for p in OBJECTIVES[name]().model.parameters()])
    moved = (single - before).norm()
    assert moved > 0
    assert (recorded - single).norm() < 0.05 * moved  # sums in another order, rounded to bfloat16 on the way


def test_a_world_is_learned_on_the_gpu(tmp_path: Path) -> None:
    video, store = tiny_world().float().requires_grad_(True).video.cuda(), sparse_store()
    codes, salience = encode_store(video, store)
    on_the_cpu = encode_store(video.cpu(), store)
    assert (codes == on_the_cpu[0]).float().mean() > 0.99  # rounding may decide between two codes as near
    torch.testing.assert_close(salience, on_the_cpu[1], rtol=0.05, atol=0.05)
    world = learn_prior(
        store, video.cuda(), Recipe(prior_steps=2, prior_batch=2, dream_steps=4, outcome_steps=2), tmp_path
    )
    assert next(world.parameters()).is_cuda and world.contexts is not None


class _Ends:
    """A dataset that is interrupted halfway."""

    def __init__(self, dataset: Dataset) -> None:
        self.dataset = dataset

    def batch(self, first: int, size: int) -> Batch:
        if first >= STEPS // 2 * BATCH:
            raise KeyboardInterrupt
        return self.dataset.batch(first, size)


def test_an_interrupted_training_goes_on_from_its_checkpoint(tmp_path: Path) -> None:
    whole = learned(codes, tmp_path / "whole")
    torch.manual_seed(0)
    half = codes()
    half.dataset = _Ends(half.dataset)  # type: ignore[misc]
    with pytest.raises(KeyboardInterrupt):
        fit(half, FitConfig(STEPS, BATCH, 1e-3, checkpoint_every=0), tmp_path / "parts")
    torch.testing.assert_close(learned(codes, tmp_path / "parts"), whole, atol=1e-4, rtol=0)
