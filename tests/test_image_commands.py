"""The commands for images, run as a user would, on small data."""

import json
import os
from dataclasses import replace
from pathlib import Path
from unittest import mock

import numpy as np
import pytest
import torch
from made_episodes import PROVENANCE, make_episode
from PIL import Image

from tests.command_line import refused, run
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.image import PRESETS, ImageConfig, ImageVQVAE
from worldmodel.image_data import Images
from worldmodel.image_evaluation import evaluate_bound, evaluate_images
from worldmodel.image_model import ImageModel, ImageModelConfig
from worldmodel.pixelcnn import PixelCNNConfig
from worldmodel.two_stage import GlobalConfig, GlobalVQVAE

TINY_TRAINING = ["--steps", "2", "--batch", "2", "--prior-steps", "2", "--prior-batch", "2"]


def test_classes_are_learned_drawn_reconstructed_and_measured(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        for name in ("ant", "bee"):
            (tmp_path / "data" / split / name).mkdir(parents=True)
            for i in range(3):
                picture = Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8))
                picture.save(tmp_path / "data" / split / name / f"{i}.png")
    data, out = tmp_path / "data", tmp_path / "run"
    assert run("train-image", data, "--preset", "cifar10", "--out", out, *TINY_TRAINING) == 0
    assert run("train-image", data, "--preset", "cifar10", "--out", out, *TINY_TRAINING) == 0  # resumes
    model = out / "model"
    assert run("sample", "--model", model, "--label", "bee", "0", "--rows", 1, "--out", out / "s.png") == 0
    assert Image.open(out / "s.png").size == (8 * 32, 2 * 32)
    assert run("reconstruct", "--model", model, "--data", data, "--n", 3, "--out", out / "r.png") == 0
    assert Image.open(out / "r.png").width == 3 * 32
    assert run("likelihood", "--model", model, "--data", data, "--out", out / "bits.json") == 0
    with monkeypatch.context() as unmeasured:
        unmeasured.setattr("scripts.likelihood.evaluate_images", None)  # it is known before
        assert "run is a folder" in refused("likelihood", "--model", model, "--data", data, "--out", out)
    bits = json.loads((out / "bits.json").read_text())["bits_per_dim"]
    rate = 8 * 8 * 10 * 9 / (32 * 32 * 3)
    assert bits["uniform prior"] == pytest.approx(bits["distortion alone"] + rate, rel=1e-5)
    assert "no class cat; the model knows ant, bee" in refused("sample", "--model", model, "--label", "cat")
    assert "holds a training with steps 2" in refused("train-image", data, "--preset", "cifar10", "--out", out)
    again = ["train-image", data, "--preset", "cifar10", "--out", out, *TINY_TRAINING]
    for split in ("train", "test"):
        (data / split / "ant").rename(data / split / "cow")
    assert "holds a training with classes ['ant', 'bee']" in refused(*again)
    assert "lies in" in refused("train-image", data, "--out", data / "train" / "run")
    assert "A batch is 1 to 65536" in refused("train-image", data, "--out", out / "no", "--batch", 10**24)
    nothing = ["--data", tmp_path / "nothing", "--out", out / "no" / "r.png"]
    assert "no folder and no episode store" in refused("reconstruct", "--model", model, *nothing)
    assert not (out / "no").exists()
    assert "1 to 100 rows" in refused("sample", "--model", model, "--rows", 10**9)
    assert "model is a model of images, not a world model, which `worldmodel train` makes" in refused(
        "imagine", "--model", model
    )
    assert "not a model of images" in refused("sample", "--model", "dmlab-seekavoid")


def test_classes_may_have_names_that_are_no_text(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    for name in (b"Andr\xe9", b"bee"):
        folder = tmp_path / "data" / os.fsdecode(name)
        folder.mkdir(parents=True)
        for i in range(2):
            Image.new("RGB", (32, 32)).save(folder / f"{i}.png")
    assert run("train-image", tmp_path / "data", "--out", tmp_path / "run", *TINY_TRAINING) == 0
    classes = ImageModel.from_pretrained(tmp_path / "run" / "model").config.classes
    assert [os.fsencode(name) for name in classes] == [b"Andr\xe9", b"bee"]
    argv = ["sample", "--model", tmp_path / "run" / "model", "--rows", 1]
    assert run(*argv, "--out", tmp_path / "a.png") == 0
    assert "Andr\\udce9, bee, from top to bottom" in capsys.readouterr().out
    # No class of one seed is drawn as any of another: a neighbour's draws would tell nothing new.
    rows = []
    for seed in (0, 1):
        assert run(*argv, "--label", 1, 1, "--seed", seed, "--out", tmp_path / "b.png") == 0
        rows += np.split(np.asarray(Image.open(tmp_path / "b.png")), 2)
    assert len({row.tobytes() for row in rows}) == 4


def test_frames_of_a_store_get_a_second_stage(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    store = EpisodeStore.create(address, frame_shape=(84, 84, 3), n_actions=3, provenance=PROVENANCE)
    store.append(make_episode(4, frame_shape=(84, 84, 3)))
    out = tmp_path / "run"
    argv = ["train-image", address, "--preset", "dmlab", "--out", out, *TINY_TRAINING, "--second-steps", "2"]
    assert run(*argv) == 0
    assert run(*argv, "--critic", 0.05, "--out", tmp_path / "sharper") == 0
    assert run(*argv, "--critic", 0.05, "--out", tmp_path / "sharper") == 0  # resumes
    assert "there is none for cifar10" in refused("train-image", address, "--critic", 0.05, "--out", tmp_path / "no")
    model = ImageModel.from_pretrained(out / "model")
    sharper = ImageModel.from_pretrained(tmp_path / "sharper" / "model")
    assert not torch.equal(sharper.vqvae.encoder.first.weight, model.vqvae.encoder.first.weight)
    images = torch.from_numpy(store.frames(0, 0, 2))
    again = model.resample(images, seed=1)
    assert again.shape == images.shape
    assert torch.equal(again, model.resample(images, seed=1))
    assert model.second_stage is not None
    assert model.second_stage.encode(model.vqvae.encode(images)).shape == (2, 3)
    seen = Images(images, None, ())
    assert evaluate_images(model, seen, seen)["images"] == 2
    with pytest.raises(UserError, match="takes two images at least"):  # or another's latents would be its own
        evaluate_images(model, Images(images[:1], None, ()), seen)


def test_training_goes_on_from_a_model(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    store = EpisodeStore.create(address, frame_shape=(84, 84, 3), n_actions=3, provenance=PROVENANCE)
    store.append(make_episode(4, frame_shape=(84, 84, 3)))
    torch.manual_seed(7)  # other weights than the training's own
    shape = {"code_shape": (21, 21), "num_codes": 512}
    config = ImageModelConfig(PRESETS["dmlab"], PixelCNNConfig(**shape), GlobalConfig(**shape))
    model = ImageModel(config).bfloat16().float()
    model.save_pretrained(tmp_path / "model", card="")
    steps = ["--steps", 0, "--prior-steps", 2, "--prior-batch", 2, "--second-steps", 2]
    argv = ["train-image", address, "--preset", "dmlab", "--out", tmp_path / "on", *steps]
    assert run(*argv, "--init", tmp_path / "model") == 0
    went_on = ImageModel.from_pretrained(tmp_path / "on" / "model")
    assert went_on.second_stage is not None and model.second_stage is not None
    torch.testing.assert_close(went_on.vqvae.state_dict(), model.vqvae.state_dict(), rtol=0, atol=0)
    for part, start in ((went_on.prior, model.prior), (went_on.second_stage.decoder, model.second_stage.decoder)):
        torch.testing.assert_close(part.state_dict(), start.state_dict(), rtol=0, atol=0.01)  # after two small steps
    torch.nn.init.zeros_(model.prior.logits.weight)
    model.save_pretrained(tmp_path / "model", card="")
    assert "holds a training with init_weights" in refused(*argv, "--init", tmp_path / "model")
    argv[argv.index("--out") + 1] = tmp_path / "no"
    assert "from scratch learns nothing" in refused(*argv)
    assert "--lr would do nothing with --steps 0" in refused(*argv, "--lr", 0.5)
    other = replace(config, prior=replace(config.prior, classes=2), classes=("ant", "bee"))
    ImageModel(other).save_pretrained(tmp_path / "other", card="")
    assert "other shapes or classes" in refused(*argv, "--init", tmp_path / "other")
    assert not (tmp_path / "no").exists()


def test_a_second_stage_learns_grids_that_its_latents_tell_apart() -> None:
    torch.manual_seed(0)
    model = GlobalVQVAE(GlobalConfig((5, 4), 6, latents=2, num_latent_codes=8, latent_dim=4, width=32, layers=1))
    first = torch.randint(6, (64, 1, 1, 1)).expand(-1, -1, 5, 4)
    noise = torch.randint(6, first.shape)
    codes = torch.where(
        torch.rand(first.shape) < 0.5, first, noise
    )  # a colour, half hidden: local context is not enough
    optimizer = torch.optim.Adam(model.parameters(), 3e-3)
    for _ in range(150):
        loss = model(codes)
        optimizer.zero_grad()
        loss.total.backward()
        optimizer.step()
    model.eval()
    with torch.no_grad():
        vector = model.vector(model.encode(codes))
        true = -model.decoder.log_prob(codes, vector=vector).mean()
        shuffled = -model.decoder.log_prob(codes, vector=vector.roll(1, 0)).mean()
    assert true < 0.9 * shuffled


def test_the_loss_of_a_second_stage_is_equation_3_in_nats_a_code() -> None:
    torch.manual_seed(0)
    model = GlobalVQVAE(GlobalConfig((5, 4), 6, latents=2, num_latent_codes=8, latent_dim=4, width=32, layers=1)).eval()
    codes = torch.randint(6, (3, 1, 5, 4))
    out = model(codes)
    z = model.encoder(model.embed(codes[:, 0]).permute(0, 3, 1, 2))  # [B, G * D]
    commitment = 0.25 * (z - model.vector(out.latents)).square().sum() / 3
    expected = (out.nats.mean() + commitment) / (5 * 4)
    assert out.total.item() == pytest.approx(expected.item(), rel=1e-5)


def test_where_no_picture_can_be_written_is_said_before_anything_is_drawn(tmp_path: Path) -> None:
    never, argv = AssertionError("drawn in vain"), ["--model", "dmlab-images", "--out", tmp_path]
    with (
        mock.patch.object(ImageModel, "sample", side_effect=never),
        mock.patch("scripts.reconstruct.load_images", side_effect=never),
    ):
        assert "is a folder: name a file" in refused("sample", *argv)
        assert "is a folder: name a file" in refused("reconstruct", *argv, "--data", tmp_path)
        argv[-1] = tmp_path / "new" / "drawn.jpg"
        assert "drawn.jpg does not end in .png" in refused("sample", *argv)
        assert "drawn.jpg does not end in .png" in refused("reconstruct", *argv, "--data", tmp_path)
    assert not (tmp_path / "new").exists()


def test_what_is_measured_is_held_out_and_of_the_models_kind(tmp_path: Path) -> None:
    address = str(tmp_path / "store")
    EpisodeStore.create(address, frame_shape=(84, 84, 3), n_actions=3, provenance=PROVENANCE)
    assert "--split would do nothing in the episode store" in refused(
        "reconstruct", "--model", "nowhere", "--data", address, "--split", "train"
    )
    assert "has no splits: give held-out episodes with --test" in refused(
        "likelihood", "--model", "nowhere", "--data", address
    )
    assert run("train-image", tmp_path / "none", "--preset", "cifar10", "--out", tmp_path / "out") == 2
    argv = ["train-image", address, "--preset", "cifar10", "--out", tmp_path / "out", "--second-steps", 7]
    assert "--second-steps would do nothing for cifar10, which has no second stage" in refused(*argv)
    assert not (tmp_path / "out").exists()


def test_scoring_a_model_leaves_it_and_the_random_numbers_alone() -> None:
    model = ImageVQVAE(ImageConfig((4, 4), width=8, downsamplings=1, blocks=1, maps=1, num_codes=8, code_dim=4))
    pixels = torch.randint(256, (6, 4, 4, 3), dtype=torch.uint8)
    before, state = {k: v.clone() for k, v in model.state_dict().items()}, torch.get_rng_state()
    score = evaluate_bound(model, pixels)
    assert model.training
    assert torch.equal(torch.get_rng_state(), state)
    assert all(torch.equal(v, before[k]) for k, v in model.state_dict().items())
    assert score["rate"] == pytest.approx(4 * 3 / 48)
