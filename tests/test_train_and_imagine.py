"""`worldmodel train` and `worldmodel imagine`, run as a user runs them, on a store too small to learn from."""

import dataclasses
import json
import re
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image
from torch import Tensor

from tests.command_line import refused, run
from tests.made_episodes import N_ACTIONS, PROVENANCE, make_episode
from tests.tiny_world import FRAME_SHAPE, tiny_world
from worldmodel import coded_store
from worldmodel.coded_store import encode_store
from worldmodel.episodes import EpisodeStore
from worldmodel.files import read_metadata
from worldmodel.tokenizer import load_tokenizer
from worldmodel.video import VideoVQVAE, video_preset
from worldmodel.world import WorldModel

ROOT = Path(__file__).parent.parent
SIZE = (28, 28, 3)
STEPS = ["--tokenizer-steps", "3", "--prior-steps", "2", "--dream-steps", "2", "--outcome-steps", "2"]


def store(folder: Path, lengths: list[int], shape: tuple[int, int, int] = SIZE) -> Path:
    episodes = EpisodeStore.create(str(folder), frame_shape=shape, n_actions=N_ACTIONS, provenance=PROVENANCE)
    for seed, steps in enumerate(lengths):
        episodes.append(make_episode(steps, seed, shape))
    return folder


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with a store and a model trained on it for a moment."""
    folder = tmp_path_factory.mktemp("trained")
    store(folder / "store", [30, 40])
    assert run("train", folder / "store", "--out", folder / "run", *STEPS) == 0
    return folder


def test_training_leaves_a_model_with_its_settings_logs_starts_and_card(trained: Path) -> None:
    run = trained / "run"
    assert json.loads((run / "train.json").read_text())["prior_steps"] == 2
    for part in ("tokenizer", "prior"):
        assert list((run / part).glob("events.out.tfevents.*"))
    world = WorldModel.from_pretrained(run / "model")
    assert world.action_meanings == ["left", "right", "stay"] and world.frame_shape == SIZE
    assert world.contexts is not None and len(world.contexts) > 0
    assert "worldmodel train" in (run / "model" / "README.md").read_text()


def test_a_prior_alone_is_trained_on_the_tokenizer_of_another_model(trained: Path, tmp_path: Path) -> None:
    assert run(
        "train", trained / "store", "--out", tmp_path, "--tokenizer", trained / "run" / "model", "--order", "raster",
        "--prior-steps", 2, "--dream-steps", 0, "--outcome-steps", 2,
    ) == 0  # fmt: skip
    given, made = (WorldModel.from_pretrained(f) for f in (trained / "run" / "model", tmp_path / "model"))
    for one, other in zip(given.video.parameters(), made.video.parameters(), strict=True):
        assert one.equal(other)
    assert made.config.dynamics.order == "raster"


def test_a_tokenizer_is_trained_by_itself_and_given_to_a_prior(trained: Path, tmp_path: Path) -> None:
    address, first, second = trained / "store", tmp_path / "first", tmp_path / "second"
    steps = ["--tokenizer-steps", 3, "--seed", 5]
    assert run("train", address, "--out", first, "--stage", "tokenizer", *steps) == 0
    tokenizer = first / "tokenizer" / "model"
    card = (tokenizer / "README.md").read_text()
    assert "A tokenizer of" in card and "--stage tokenizer" in card and "14 x 14 codes of 512" in card
    world = WorldModel.from_pretrained(trained / "run" / "model")
    kept = load_tokenizer(tokenizer)
    assert not kept.quantizer.embedding.equal(world.video.quantizer.embedding)
    start = ["--init", trained / "run" / "model"]  # whose prior is translated into these codes
    assert run("train", address, "--out", second, "--tokenizer", tokenizer, *start, *STEPS[2:]) == 0
    made = WorldModel.from_pretrained(second / "model").video
    assert all(one.equal(other) for one, other in zip(kept.parameters(), made.parameters(), strict=True))
    assert run("train", address, "--out", first, *STEPS[2:], *steps) == 0  # or with a prior in the same place
    made = WorldModel.from_pretrained(first / "model").video
    assert all(one.equal(other) for one, other in zip(kept.parameters(), made.parameters(), strict=True))
    assert "model is a tokenizer, not a world model" in refused("imagine", "--model", tokenizer)
    again = ["train", address, "--out", second, "--tokenizer", tokenizer, *start, *STEPS[2:]]
    unused = ["--preset", "paper", "--tokenizer-steps", 7]
    assert "--preset and --tokenizer-steps would do nothing with --tokenizer" in refused(*again, *unused)
    shutil.rmtree(first)
    assert run("train", address, "--out", first, "--stage", "tokenizer", "--tokenizer-steps", 4) == 0
    assert "holds a training with codebook" in refused(*again)
    (tokenizer / "config.json").write_text("{")
    assert "config.json is damaged" in refused("train", address, "--out", second, "--tokenizer", tokenizer, *STEPS[2:])


def test_a_prior_that_goes_on_has_its_outcomes_learned_anew_and_keeps_them(trained: Path, tmp_path: Path) -> None:
    def train(prior_steps: int, dream_steps: int = 0) -> list[object]:
        tokenizer = trained / "run" / "model"
        steps = ["--prior-steps", prior_steps, "--dream-steps", dream_steps, "--outcome-steps", 2]
        return ["train", trained / "store", "--out", tmp_path, "--tokenizer", tokenizer, *steps]

    assert run(*train(2)) == 0
    assert run(*train(4)) == 0
    assert run(*train(4, dream_steps=1)) == 0
    made = sorted(path.name for path in (tmp_path / "prior").glob("outcomes_*"))
    assert made == ["outcomes_after_2_and_0", "outcomes_after_4_and_0", "outcomes_after_4_and_1"]
    card = (tmp_path / "model" / "README.md").read_text()
    assert "has had 4 steps: give it as many" in refused(*train(2, dream_steps=1))
    assert (tmp_path / "model" / "README.md").read_text() == card


def test_a_prior_that_goes_on_encodes_its_store_once(
    trained: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    encoded = []

    def encode(video: VideoVQVAE, store: EpisodeStore) -> tuple[Tensor, Tensor]:
        encoded.append(store.address)
        return encode_store(video, store)

    monkeypatch.setattr(coded_store, "encode_store", encode)
    words = ["train", trained / "store", "--out", tmp_path, "--tokenizer", trained / "run" / "model"]
    words += ["--dream-steps", 0, "--outcome-steps", 2, "--prior-steps"]
    assert run(*words, 2) == 0
    kept = (tmp_path / "prior" / "codes.safetensors").read_bytes()
    assert run(*words, 3) == 0
    assert len(encoded) == 1
    (tmp_path / "prior" / "codes.safetensors").write_bytes(kept[:-8])
    assert run(*words, 4) == 0
    assert len(encoded) == 2 and (tmp_path / "prior" / "codes.safetensors").read_bytes() == kept


def test_codes_are_kept_for_one_tokenizer_and_one_recording(tmp_path: Path) -> None:
    stores = [
        EpisodeStore.open(str(store(tmp_path / name, lengths, FRAME_SHAPE)))
        for name, lengths in (("one", [20]), ("other", [9, 12]))
    ]
    first, second = tiny_world().video, tiny_world().video
    second.quantizer.embedding.data.neg_()
    other = dataclasses.replace(stores[0][0], frames=255 - stores[0][0].frames)  # the same steps, drawn otherwise
    stores.append(
        EpisodeStore.create(
            str(tmp_path / "redrawn"), frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE
        )
    )
    stores[-1].append(other)
    for episodes in stores:
        for video in (first, second):
            expected = encode_store(video, episodes)
            for found in [coded_store.coded_store(video, episodes, tmp_path / "run") for _ in range(2)]:
                assert all(one.equal(other) for one, other in zip(found, expected, strict=True))


def test_what_would_stop_a_training_at_its_end_stops_it_at_once(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "run", tmp_path / "run")
    words = ["train", trained / "store", "--out", tmp_path / "run", *STEPS]
    notes, before = tmp_path / "run" / "model" / "notes.txt", (tmp_path / "run" / "train.json").read_bytes()
    notes.write_text("mine")
    assert "holds something else (notes.txt)" in refused(*words, "--prior-lr", "0.001")
    notes.unlink()
    for checkpoint in (tmp_path / "run").rglob("checkpoint.safetensors"):
        content = checkpoint.read_bytes()
        checkpoint.write_bytes(content[:-8])
        assert f"{checkpoint} is damaged" in refused(*words, "--prior-lr", "0.001")
        checkpoint.write_bytes(content)
    assert (tmp_path / "run" / "train.json").read_bytes() == before
    assert run(*words) == 0


def test_a_tokenizer_is_not_trained_on_under_its_prior(trained: Path) -> None:
    more = ["--tokenizer-steps", "4", "--prior-steps", "2"]
    error = refused("train", trained / "store", "--out", trained / "run", *more)
    assert "holds a training with tokenizer_steps" in error


def test_training_can_begin_with_the_weights_of_another_model(trained: Path, tmp_path: Path) -> None:
    other = trained / "run" / "model"
    # A first step is a tiny one.
    steps = ["--tokenizer-steps", 1, "--prior-steps", 1, "--dream-steps", 1, "--outcome-steps", 1, "--seed", 7]
    assert run("train", trained / "store", "--out", tmp_path, "--init", other, *steps) == 0
    given, made = (WorldModel.from_pretrained(f) for f in (other, tmp_path / "model"))
    # The embedding follows the data and its averages, not the gradient; and what the prior knows of codes, them.
    of_codes = re.compile(r"video\.quantizer\.embedding|dynamics\..*(embed|logits)\..*")
    for (name, one), moved in zip(given.named_parameters(), made.parameters(), strict=True):
        if not of_codes.fullmatch(name):
            assert one.sub(moved).abs().max() < 0.01, name
    with_other_codes = ["--init", other, "--preset", "paper", *steps]
    assert "without --init" in refused("train", trained / "store", "--out", tmp_path / "paper", *with_other_codes)
    assert not (tmp_path / "paper").exists()


def test_training_goes_on_from_the_very_weights_that_it_began_with(trained: Path, tmp_path: Path) -> None:
    start = WorldModel.from_pretrained(trained / "run" / "model")
    start.save_pretrained(tmp_path / "start", card="")
    steps = ["--prior-steps", 0, "--dream-steps", 1, "--outcome-steps", 1, "--tokenizer", trained / "run" / "model"]
    argv = ["train", trained / "store", "--out", tmp_path / "out", "--init", tmp_path / "start", *steps]
    assert run(*argv) == 0
    assert run(*argv) == 0
    torch.nn.init.zeros_(start.dynamics.outcome.termination.bias)
    start.save_pretrained(tmp_path / "start", card="")
    assert "holds a training with init_weights" in refused(*argv)


def test_a_model_to_start_from_keeps_the_shape_of_its_tokenizer(trained: Path, tmp_path: Path) -> None:
    address, size = trained / "store", EpisodeStore.open(str(trained / "store")).frame_shape[:2]
    video = dataclasses.replace(video_preset("compact", size), encoder_kernel=3)
    config = WorldModel.from_pretrained(trained / "run" / "model").config
    WorldModel(dataclasses.replace(config, video=video)).save_pretrained(tmp_path / "start")
    assert run("train", address, "--out", tmp_path / "out", "--init", tmp_path / "start", *STEPS) == 0
    assert WorldModel.from_pretrained(tmp_path / "out" / "model").config.video == video


def test_imagining_along_a_recorded_episode_writes_a_strip_a_film_and_arrays(trained: Path, tmp_path: Path) -> None:
    assert run("imagine", "--model", trained / "run" / "model", "--store", trained / "store", "--out", tmp_path) == 0
    dream = np.load(tmp_path / "dream.npz")
    truth = make_episode(30, 0, SIZE)
    np.testing.assert_array_equal(dream["actions"], truth.actions[15:])
    assert dream["frames"].shape == (15, *SIZE) and dream["frames"].dtype == np.uint8
    assert dream["codes"].shape == (15, 14, 14) and dream["rewards"].shape == dream["terminated"].shape == (15,)
    assert (tmp_path / "dream.mp4").stat().st_size > 0
    assert Image.open(tmp_path / "strip.png").size[0] >= 28 * 20


def test_actions_are_given_by_name_count_id_or_file(trained: Path, tmp_path: Path) -> None:
    model = trained / "run" / "model"
    np.savetxt(tmp_path / "actions.txt", [2, 0, 1], fmt="%d")
    cases = {"right*3, 0, stay*2, none": [1, 1, 1, 0, 2, 2, 3], str(tmp_path / "actions.txt"): [2, 0, 1]}
    for text, actions in cases.items():
        assert run("imagine", "--model", model, "--actions", text, "--out", tmp_path) == 0
        assert np.load(tmp_path / "dream.npz")["actions"].tolist() == actions


def test_the_same_command_writes_the_same_dream(trained: Path, tmp_path: Path) -> None:
    words = ["imagine", "--model", trained / "run" / "model", "--actions", "left*5", "--out"]
    assert run(*words, tmp_path / "one") == 0
    elsewhere = [sys.executable, "-m", "scripts.cli", *words, tmp_path / "two"]
    assert subprocess.run(elsewhere, cwd=ROOT, capture_output=True).returncode == 0
    np.testing.assert_array_equal(*(np.load(tmp_path / name / "dream.npz")["frames"] for name in ("one", "two")))


def test_ctrl_c_ends_a_training_cleanly_and_the_same_command_goes_on(tmp_path: Path) -> None:
    store(tmp_path / "store", [30])
    words = [
        "train",
        str(tmp_path / "store"),
        "--out",
        str(tmp_path / "run"),
        "--prior-steps",
        "1",
        "--dream-steps",
        "1",
        "--outcome-steps",
        "1",
        "--tokenizer-steps",
    ]
    process = subprocess.Popen(
        [sys.executable, "-c", "from scripts.cli import main; raise SystemExit(main())", *words, "100000"],
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
        cwd=ROOT,
        preexec_fn=lambda: signal.signal(signal.SIGINT, signal.SIG_DFL),
    )
    while not list((tmp_path / "run").glob("tokenizer/events*")):
        time.sleep(0.1)
        assert process.poll() is None
    time.sleep(2)
    process.send_signal(signal.SIGINT)
    try:
        out, error = process.communicate(timeout=60)
    finally:
        process.kill()
    assert process.returncode == 130 and "goes on from here" in out and "Traceback" not in error, out + error
    had = int(read_metadata(tmp_path / "run" / "tokenizer" / "checkpoint.safetensors")["step"])
    assert f"has had {had} steps: give it as many" in refused(*words, "1")
    assert run(*words, had) == 0
    assert (tmp_path / "run" / "model" / "config.json").exists()


def test_mistakes_in_training_are_one_sentence(trained: Path, tmp_path: Path) -> None:
    out = tmp_path / "out"
    model = trained / "run" / "model"
    assert "no" in refused("train", tmp_path / "nothing", "--out", out)
    assert "empty" in refused("train", store(tmp_path / "empty", []), "--out", out, *STEPS)
    short = store(tmp_path / "short", [5])
    assert "the window needs 16" in refused("train", short, "--out", out, "--tokenizer", model)
    large = store(tmp_path / "large", [30], (56, 56, 3))
    assert "frames" in refused("train", large, "--out", out, "--tokenizer", model)
    odd = store(tmp_path / "odd", [30], (31, 28, 3))
    assert "do not divide" in refused("train", odd, "--out", out, *STEPS)
    assert not (out / "model").exists()


def test_a_prior_goes_on_in_the_codes_of_another_tokenizer(trained: Path, tmp_path: Path) -> None:
    start, other, out = trained / "run" / "model", tmp_path / "other", tmp_path / "out"
    world = WorldModel.from_pretrained(start)
    renamed = torch.randperm(world.num_codes)
    world.video.quantizer.embedding.data[renamed] = world.video.quantizer.embedding.data.clone()
    world.save_pretrained(other)
    words = ["train", trained / "store", "--out", out, "--tokenizer", other, "--init", start, *STEPS[2:]]
    assert run(*words, "--prior-steps", "0", "--dream-steps", "0") == 0
    before, after = (WorldModel.from_pretrained(model).dynamics.head.logits.weight for model in (start, out / "model"))
    frames = torch.from_numpy(EpisodeStore.open(str(trained / "store"))[0].frames)
    seen = world.video.encode(frames[None]).unique()  # by their new names
    torch.testing.assert_close(after[seen], before[renamed.argsort()[seen]], atol=0.02, rtol=0.02)


def test_what_is_no_training_is_not_trained_in(trained: Path, tmp_path: Path) -> None:
    address = store(tmp_path / "store", [30])
    before = sorted(tmp_path.rglob("*"))
    assert "not a training" in refused("train", address, "--out", address, *STEPS)
    assert "not a training" in refused("train", address, "--out", tmp_path, *STEPS)
    assert sorted(tmp_path.rglob("*")) == before


def test_a_store_may_be_spelled_otherwise_when_a_training_goes_on(
    trained: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(trained)
    assert run("train", "./store", "--out", trained / "run", *STEPS) == 0
    changed = json.loads((trained / "run" / "train.json").read_text())
    (trained / "other").mkdir(exist_ok=True)
    (trained / "other" / "train.json").write_text(json.dumps({"data": "speech", "seed": changed["seed"]}))
    assert "by another command" in refused("train", "./store", "--out", "other", *STEPS)
    assert "holds a training with store" in refused("train", store(trained / "two", [30]), "--out", "run", *STEPS)


def test_a_training_does_not_go_on_with_other_episodes(trained: Path, tmp_path: Path) -> None:
    shutil.copytree(trained / "store", tmp_path / "store")
    argv = ["train", tmp_path / "store", "--out", tmp_path / "run", *STEPS]
    assert run(*argv) == 0
    grown = EpisodeStore.open(str(tmp_path / "store"), append=True)
    before = len(grown)
    grown.append(grown[0])
    assert f"holds a training with episodes {before}" in refused(*argv)


def test_mistakes_in_imagining_are_one_sentence_and_leave_nothing(trained: Path, tmp_path: Path) -> None:
    out, model = tmp_path / "out", trained / "run" / "model"
    assert "no model" in refused("imagine", "--model", "nowhere", "--out", out)
    assert 'no action "jump"' in refused("imagine", "--model", model, "--actions", "jump*3", "--out", out)
    assert 'no action "7"' in refused("imagine", "--model", model, "--actions", "7", "--out", out)
    assert "count" in refused("imagine", "--model", model, "--actions", "left*x", "--out", out)
    assert "no file" in refused("imagine", "--model", model, "--actions", "gone.npy", "--out", out)
    assert "does not know both" in refused("imagine", "--model", model, "--figure7", "--out", out)
    large = store(tmp_path / "large", [30], (56, 56, 3))
    assert "56" in refused("imagine", "--model", model, "--store", large, "--out", out)
    np.save(tmp_path / "ids.npy", np.array([0, 1, 9]))
    assert "actions from 0 to 9" in refused(
        "imagine", "--model", model, "--actions", tmp_path / "ids.npy", "--out", out
    )
    (tmp_path / "zip.npy").write_bytes(b"PK and no more")
    assert "not a list" in refused("imagine", "--model", model, "--actions", tmp_path / "zip.npy", "--out", out)
    assert "up to" in refused("imagine", "--model", model, "--actions", f"left*{10**20}", "--out", out)
    recorded = ["imagine", "--model", model, "--store", trained / "store", "--out", out]
    assert "none are left" in refused(*recorded, "--given", 99)
    assert "--given is 1 or more" in refused(*recorded, "--given", 0)
    assert "0 or more" in refused(*recorded, "--start", -3)
    assert "in a --store" in refused("imagine", "--model", model, "--start", 3, "--out", out)
    assert not out.exists()
