"""The benchmarks beside the commands write what they measure, by the models' names."""

import json
import subprocess
import sys
from pathlib import Path

import numpy as np
from PIL import Image

from benchmarks import horizon
from benchmarks.images import comparison
from tests.made_episodes import PROVENANCE, make_episode
from tests.made_speech import write_speech
from tests.tiny_world import FRAME_SHAPE, N_ACTIONS, tiny_world
from worldmodel.audio import AudioConfig
from worldmodel.audio_model import AudioModel, AudioModelConfig
from worldmodel.episodes import EpisodeStore
from worldmodel.wavenet import WaveNetConfig

ROOT = Path(__file__).parents[1]


def run(name: str, *argv: object) -> str:
    command = [sys.executable, str(ROOT / "benchmarks" / name), *map(str, argv)]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr
    return done.stdout


def test_both_orders_within_a_frame_join_the_report_of_the_model(tmp_path: Path) -> None:
    store = EpisodeStore.create(
        str(tmp_path / "store"), frame_shape=FRAME_SHAPE, n_actions=N_ACTIONS, provenance=PROVENANCE
    )
    store.append(make_episode(40, 0, FRAME_SHAPE))
    tiny_world().float().save_pretrained(tmp_path / "maze")
    given = ["--model", tmp_path / "maze", "--train-store", tmp_path / "store", "--store", tmp_path / "store"]
    run("order.py", *given, "--steps", 1, "--out", tmp_path)
    orders = json.loads((tmp_path / "world.json").read_text())["maze"]["orders"]
    page = (tmp_path / "world.md").read_text()
    assert orders["raster"]["bits_per_code"] != orders["diagonal"]["bits_per_code"]
    for order in ("diagonal", "raster"):
        assert f"| maze | 1 | {order} | {orders[order]['bits_per_code']['true']:.3f} |" in page
    assert f"python benchmarks/order.py --model {tmp_path / 'maze'}" in page


def test_three_models_of_images_are_compared(tmp_path: Path) -> None:
    rng = np.random.default_rng(0)
    for split in ("train", "test"):
        (tmp_path / "data" / split / "ant").mkdir(parents=True)
        for i in range(3):
            picture = Image.fromarray(rng.integers(256, size=(32, 32, 3), dtype=np.uint8))
            picture.save(tmp_path / "data" / split / "ant" / f"{i}.png")
    sizes = ["--steps", 2, "--batch", 2, "--width", 8, "--maps", 1, "--points", 2, "--test-images", 2]
    argv = ["images.py", "--data", tmp_path / "data", "--out", tmp_path / "out", "--device", "cpu", *sizes]
    table = run(*argv)
    rows = json.loads((tmp_path / "out" / "images.json").read_text())
    assert [row["model"] for row in rows] == ["VAE", "VQ-VAE", "VIMCO"]
    for row in rows:
        assert row["bits_per_dim"] == row["rate"] + row["distortion"] == row["curve"]["2"]
        assert f"| {row['model']} | 1 | 2 | logistic | {row['bits_per_dim']:.3f} |" in table
    assert rows[1]["rate"] == 8 * 8 * 9 / (32 * 32 * 3)
    assert table.endswith(run(*argv))
    assert json.loads((tmp_path / "out" / "images.json").read_text()) == rows


def test_the_page_of_horizons_is_that_of_its_record() -> None:
    record = json.loads((ROOT / "benchmarks" / "horizon.json").read_text())
    assert horizon.page(record) == (ROOT / "benchmarks" / "horizon.md").read_text()


def test_a_mistake_is_one_sentence_and_leaves_the_record_of_horizons_alone(tmp_path: Path) -> None:
    record = tmp_path / "horizon.json"
    record.write_text('{"kept": 1}')
    argv = [sys.executable, ROOT / "benchmarks" / "horizon.py", "--stores", tmp_path, "--out", tmp_path]
    done = subprocess.run([*argv, "--runs", tmp_path / "runs"], cwd=ROOT, capture_output=True, text=True)
    assert done.returncode == 1
    assert "Traceback" not in done.stderr
    assert f"There is no episode store at {tmp_path}" in done.stderr
    assert record.read_text() == '{"kept": 1}'


def test_orders_of_a_pixelcnn_are_timed_and_no_mistake_costs_the_record(tmp_path: Path) -> None:
    record = tmp_path / "pixelcnn.json"
    run("pixelcnn.py", "--batch", 1, "--out", record)
    held = record.read_text()
    assert json.loads(held)["raster"]["naive"] > json.loads(held)["raster"]["cached"] > 0
    argv = [sys.executable, ROOT / "benchmarks" / "pixelcnn.py", "--out", record, "--batch", "0"]
    assert "A batch is 1 or more" in subprocess.run(argv, cwd=ROOT, capture_output=True, text=True).stderr
    assert record.read_text() == held


def test_the_table_of_images_is_that_of_their_record() -> None:
    rows = json.loads((ROOT / "benchmarks" / "images.json").read_text())
    assert comparison(rows) in (ROOT / "benchmarks" / "images.md").read_text()


def test_a_model_of_speech_is_measured(tmp_path: Path) -> None:
    write_speech(tmp_path)
    config = AudioConfig((2,) * 5, num_codes=8, code_dim=4, width=8, decoder_width=8, decoder_skip=8, decoder_layers=2,
                         decoder_stacks=1, hop=32, speakers=2)  # fmt: skip
    model = AudioModel(AudioModelConfig(config, WaveNetConfig(8, width=8, skip=8, layers=2), ("ann", "bob")))
    model.save_pretrained(tmp_path / "tiny", card="# Tiny\n")
    out = tmp_path / "audio.json"
    tables = run("audio.py", "--data", tmp_path, "--models", tmp_path / "tiny", "--out", out, "--device", "cpu")
    result = json.loads(out.read_text())["tiny"]
    ratio = result["seconds_for_one_of_speech"]["naive"] / result["seconds_for_one_of_speech"]["cached"]
    assert f"| {ratio:,.0f} |" in tables
    assert result["phonemes"]["most_frequent"] == {s: {"all": 0.5, "speech": 0.5} for s in ("test", "new-speakers")}
    assert result["phonemes"]["mfcc_k_means"]["test"]["all"] > 0.9
    assert result["speaker"]["real"] == 1
    assert f"| tiny, reconstructed | {result['mel_cepstral_distance']['reconstructed']:.2f} |" in tables
