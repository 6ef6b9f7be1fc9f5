"""`worldmodel train-agent`, `evaluate` and `collect --agent`, by running them on a world too small to learn in."""

import json
import shutil
import signal
import subprocess
import sys
from collections.abc import Callable
from io import BytesIO
from pathlib import Path
from typing import Any
from zipfile import ZipFile

import imageio.v3 as iio
import numpy as np
import pytest
from PIL import Image
from tensorboard.backend.event_processing.event_accumulator import EventAccumulator

from tests.command_line import refused, run
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.world import WorldModel

pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from stable_baselines3.common.save_util import load_from_zip_file  # noqa: E402

from agents import training  # noqa: E402
from agents.actors import in_real_world  # noqa: E402
from agents.agent import Agent  # noqa: E402
from agents.evaluation import Outcome  # noqa: E402

FLICKER = "flicker:Flicker-v0"
ROOT = Path(__file__).parents[1]
SHORT = ["--batch", "64", "--minibatch", "32", "--epochs", "1", "--every", "64"]
REAL, BRIEF = [*SHORT, "--num-envs", "2"], [*SHORT, "--num-envs", "8", "--dreams", "5"]


@pytest.fixture(scope="module")
def agent(model: str, tmp_path_factory: pytest.TempPathFactory) -> str:
    """One that learned in dreams of the model, for a moment."""
    out = tmp_path_factory.mktemp("agents") / "run"
    assert run("train-agent", "--model", model, "--out", out, *BRIEF, "--steps", 64) == 0
    return str(out / "agent")


def read(path: Path) -> Any:
    return json.loads(path.read_text())


# --- train-agent.


def test_a_training_leaves_an_agent_the_best_one_its_progress_and_logs(
    model: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train-agent", "--model", model, "--out", out, *BRIEF, "--horizon", "9", "--surprise-penalty", "0.1"]
    command += ["--real-env", FLICKER, "--real-episodes", "3"]
    assert run(*command, "--steps", 192) == 0
    assert str(out / "agent") in capsys.readouterr().out
    progress = read(out / "progress.json")
    assert [entry["steps"] for entry in progress] == [64, 128, 192]
    for entry in progress:
        assert (entry["dream"]["episodes"], entry["real"]["episodes"]) == (5, 3)
        low, high = entry["dream"]["ci95"]
        assert low <= entry["dream"]["mean"] <= high
    for name in ("agent", "best"):
        saved = Agent.load(out / name)
        assert (saved.obs, saved.config.model) == ("history", model)
        assert "train-agent" in (out / name / "README.md").read_text()
    with pytest.raises(UserError, match="no agent of pixels .*: it sees latents"):
        Agent.load(out / "checkpoint.zip")
    assert Image.open(out / "learning.png").size[0] > 500
    logs = EventAccumulator(str(out)).Reload().Tags()["scalars"]
    assert {"evaluation/dream", "evaluation/real", "rollout/ep_rew_mean"} <= set(logs)


def test_the_best_agent_is_the_one_that_dreams_rated_best(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, ratings = tmp_path / "run", iter([1.0, 3.0, 2.0])

    def rated(agent: Agent, *_: Any, **__: Any) -> list[Any]:
        kept.append(agent.policy.action_net.weight.detach().bfloat16().float())  # as it is saved
        return [Outcome(0, next(ratings), 1)]

    kept: list[Any] = []
    monkeypatch.setattr("scripts.train_agent.dream", rated)
    assert run("train-agent", "--model", model, "--out", out, *BRIEF, "--steps", 192) == 0
    assert Agent.load(out / "best").policy.action_net.weight.equal(kept[1])
    assert Agent.load(out / "agent").policy.action_net.weight.equal(kept[2])
    assert not kept[1].equal(kept[2])


def test_an_interrupted_training_goes_on_from_its_last_checkpoint_and_a_finished_one_with_more_steps(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    out = tmp_path / "run"
    command = ["train-agent", "--model", model, "--out", out, *BRIEF, "--every", 128]

    def ctrl_c(watch: training._Watch, on_step: Callable[[training._Watch], bool] = training._Watch._on_step) -> bool:
        if watch.num_timesteps > 200:
            signal.raise_signal(signal.SIGINT)
        return on_step(watch)

    with monkeypatch.context() as interrupted:
        interrupted.setattr(training._Watch, "_on_step", ctrl_c)
        assert run(*command, "--steps", 256) == 130
    assert "the same command goes on from here" in capsys.readouterr().out
    assert [entry["steps"] for entry in read(out / "progress.json")] == [128]
    data, _, _ = load_from_zip_file(out / "checkpoint.zip")
    assert data is not None and data["num_timesteps"] == 192  # what was learned since the evaluation is kept
    assert not (out / "agent").exists()

    assert run(*command, "--steps", 256) == 0
    assert [entry["steps"] for entry in read(out / "progress.json")] == [128, 256]
    finished = (out / "agent" / "policy.safetensors").read_bytes()
    assert run(*command, "--steps", 256) == 0  # nothing is left to do
    assert (out / "agent" / "policy.safetensors").read_bytes() == finished

    capsys.readouterr()
    assert run(*command, "--steps", 128) == 0  # it has had more, and says so
    assert "agent, of 256 steps, is in" in capsys.readouterr().out

    before = Agent.load(out / "agent").policy.action_net.weight
    assert run(*command, "--steps", 384, "--learning-rate", "1e-7") == 0
    assert [entry["steps"] for entry in read(out / "progress.json")] == [128, 256, 384]
    moved = (Agent.load(out / "agent").policy.action_net.weight - before).abs().max()
    assert 0 < moved < 1e-5  # the same agent, and as slow as it was told to be


def test_an_agent_begins_with_what_another_has_learned(model: str, tmp_path: Path) -> None:
    command = ["train-agent", "--model", model, *BRIEF, "--steps", 64]
    assert run(*command, "--out", tmp_path / "first") == 0
    first = tmp_path / "first" / "agent"
    assert run(*command, "--out", tmp_path / "second", "--init", first, "--learning-rate", "1e-7", "--seed", 5) == 0
    weights = [Agent.load(agent).policy.action_net.weight for agent in (first, tmp_path / "second" / "agent")]
    assert 0 < (weights[0] - weights[1]).abs().max() < 1e-5
    assert "choose one that sees the same" in refused(
        *command, "--out", tmp_path / "third", "--init", first, "--obs", "latents"
    )
    nobody = shutil.copytree(first, tmp_path / "nobody")
    config = read(nobody / "config.json")
    (nobody / "config.json").write_text(json.dumps(config | {"action_meanings": ["left", "right", "jump"]}))
    assert "(left, right, jump)" in refused(*command, "--out", tmp_path / "third", "--init", nobody)
    assert not (tmp_path / "third").exists()


def test_a_damaged_checkpoint_is_one_sentence(model: str, tmp_path: Path) -> None:
    command = ["train-agent", "--model", model, "--out", tmp_path / "run", *BRIEF]
    assert run(*command, "--steps", 64) == 0
    path = tmp_path / "run" / "checkpoint.zip"
    with ZipFile(path) as archive:
        parts = {name: archive.read(name) for name in archive.namelist()}
    emptied = BytesIO()
    with ZipFile(emptied, "w") as archive:
        for name, part in (parts | {"data": b"[]"}).items():
            archive.writestr(name, part)
    for content in (path.read_bytes()[:-100], b"", b"junk" * 50, emptied.getvalue()):
        path.write_bytes(content)
        assert "checkpoint" in refused(*command, "--steps", 128)


def test_a_damaged_record_of_evaluations_is_known_before_the_training(model: str, tmp_path: Path) -> None:
    command = ["train-agent", "--model", model, "--out", tmp_path / "run", *BRIEF]
    assert run(*command, "--steps", 64) == 0
    checkpoint = (tmp_path / "run" / "checkpoint.zip").read_bytes()
    for content in ("[{", '[{"steps": 64}]', '[{"steps": 64, "dream": {"mean": 1.0}}]'):
        (tmp_path / "run" / "progress.json").write_text(content)
        assert "progress.json is damaged" in refused(*command, "--steps", 128)
    assert (tmp_path / "run" / "checkpoint.zip").read_bytes() == checkpoint


def test_a_checkpoint_of_other_observations_is_refused(model: str, tmp_path: Path) -> None:
    command = ["train-agent", "--model", model, "--out", tmp_path / "run", *BRIEF]
    assert run(*command, "--steps", 64) == 0
    settings = tmp_path / "run" / "train.json"
    settings.write_text(settings.read_text().replace('"obs": "history"', '"obs": "latents"'))
    assert "another agent" in refused(*command, "--steps", 128, "--obs", "latents")


def test_a_training_of_other_things_is_refused_and_its_settings_are_kept(model: str, tmp_path: Path) -> None:
    out, elsewhere = tmp_path / "run", str(shutil.copytree(model, tmp_path / "elsewhere"))
    command = ["train-agent", "--out", out, *BRIEF]
    assert run(*command, "--model", model, "--steps", 64, "--seed", 3) == 0
    settings = read(out / "train.json")
    assert (settings["model"], settings["seed"], settings["steps"], settings["obs"]) == (model, 3, 64, "history")
    for other in (
        ["--model", elsewhere, "--seed", 3],
        ["--model", model],
        ["--model", model, "--seed", 3, "--dreams", 6],
    ):
        assert "holds a training with" in refused(*command, "--steps", 128, *other)
    assert read(out / "train.json") == settings
    # Nor does it go on in another model that has taken the place of its own.
    world = WorldModel.from_pretrained(model)
    world.dynamics.outcome.reward.bias.data += 1
    shutil.move(model, tmp_path / "own")
    world.save_pretrained(model)
    assert "holds a training with model_weights" in refused(*command, "--steps", 128, "--model", model, "--seed", 3)
    shutil.rmtree(model)
    shutil.move(tmp_path / "own", model)
    assert [entry["steps"] for entry in read(out / "progress.json")] == [64]
    assert run(*command, "--model", model, "--steps", 128, "--seed", 3, "--epochs", 2, "--num-envs", 4) == 0


@pytest.mark.parametrize("obs", ["pixels", "latents"])
def test_an_agent_can_learn_in_the_real_world(model: str, tmp_path: Path, obs: str) -> None:
    command = ["train-agent", "--env", FLICKER, "--obs", obs, "--out", tmp_path, *REAL]
    command += ["--real-episodes", "2", *(["--model", model] if obs == "latents" else [])]
    assert run(*command, "--steps", 64) == 0
    (entry,) = read(tmp_path / "progress.json")
    assert entry["real"]["episodes"] == 2
    saved = Agent.load(tmp_path / "agent")
    assert (saved.obs, saved.world is None) == (obs, obs == "pixels")
    assert saved.config.action_meanings == ("left", "right", "stay")


def test_real_episodes_to_learn_from_are_cut_short_like_those_of_evaluations(tmp_path: Path) -> None:
    command = ["train-agent", "--env", FLICKER, "--obs", "pixels", "--out", tmp_path, *REAL]
    assert run(*command, "--steps", 64, "--real-episodes", "2", "--max-steps", "4") == 0  # by itself it ends after 9
    lengths = EventAccumulator(str(tmp_path)).Reload().Scalars("rollout/ep_len_mean")
    assert [event.value for event in lengths] == [4.0]


# --- evaluate.


def test_an_evaluation_in_dreams_says_what_is_earned(
    model: str, agent: str, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    command = ["evaluate", "--agent", agent, "--model", model, "--horizon", "9", "--episodes", "70"]
    assert run(*command, "--out", tmp_path / "one") == 0
    report = read(tmp_path / "one" / "evaluation.json")
    assert (report["episodes"], report["unit"]) == (70, "reward")
    assert (len(report["returns"]), len(report["steps"])) == (70, 70)
    assert report["mean"] == pytest.approx(np.mean(report["returns"]))
    assert report["std"] == pytest.approx(np.std(report["returns"]))
    assert report["ci95"][0] < report["mean"] < report["ci95"][1]
    assert 1 <= min(report["steps"]) < max(report["steps"]) <= 9
    assert "70 episodes" in capsys.readouterr().out
    assert run(*command, "--out", tmp_path / "two") == 0
    assert read(tmp_path / "two" / "evaluation.json")["returns"] == report["returns"]


@pytest.mark.parametrize("who", ["random", "always:stay", "the agent"])
def test_an_evaluation_in_the_real_world_comes_with_films(agent: str, tmp_path: Path, who: str) -> None:
    name = agent if who == "the agent" else who
    command = ["evaluate", "--agent", name, "--env", FLICKER, "--episodes", "3", "--out", tmp_path, "--max-steps", "7"]
    assert run(*command) == 0
    report = read(tmp_path / "evaluation.json")
    assert {"episodes", "mean", "std", "ci95", "unit"} <= report.keys() and report["episodes"] == 3
    assert report["steps"] == [7, 7, 7]
    if who == "always:stay":
        assert (report["mean"], report["std"], report["ci95"]) == (14.0, 0.0, [14.0, 14.0])
    for film in ("worst", "median", "best"):
        frames = iio.imread(tmp_path / f"{film}.mp4")
        wide = 2 if who == "the agent" else 1  # with its dream beside it
        assert frames.shape == (8, 168, wide * 168, 3)


def test_an_evaluation_is_there_whole_or_not_at_all(
    model: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    out, written = tmp_path / "out", iter(["worst"])

    def ctrl_c(*_: Any) -> None:
        if next(written, None) is None:
            raise KeyboardInterrupt

    monkeypatch.setattr("scripts.evaluate.write_film", ctrl_c)
    command = ["evaluate", "--agent", "random", "--episodes", "3", "--out", out]
    assert run(*command, "--env", FLICKER, "--max-steps", "7") == 130
    assert list(tmp_path.iterdir()) == []
    assert run(*command, "--model", model, "--horizon", "9") == 0
    kept = (out / "evaluation.json").read_bytes()
    for other in (["--env", FLICKER], ["--model", model, "--seed", "1"]):
        assert "holds something else (evaluation.json)" in refused(*command, *other)
    assert [path.read_bytes() for path in out.iterdir()] == [kept]


@pytest.mark.parametrize("who", ["random", "always:left"])
def test_simple_policies_are_measured_in_dreams_too(model: str, tmp_path: Path, who: str) -> None:
    command = ["evaluate", "--agent", who, "--model", model, "--horizon", "9", "--episodes", "5", "--out", tmp_path]
    assert run(*command) == 0
    assert read(tmp_path / "evaluation.json")["episodes"] == 5


def test_doom_is_scored_in_its_own_unit(tmp_path: Path) -> None:
    pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")
    command = ["evaluate", "--agent", "always:left", "--env", "worldmodel/Doom-v0", "--scenario", "take-cover"]
    command += ["--episodes", "2", "--max-steps", "20", "--out", tmp_path]
    assert run(*command) == 0
    report = read(tmp_path / "evaluation.json")
    assert (report["unit"], report["steps"]) == ("tics", [20, 20])
    assert (tmp_path / "best.mp4").stat().st_size > 0


def test_without_the_extra_it_is_named(tmp_path: Path) -> None:
    code = "import sys; sys.modules['stable_baselines3'] = None; from scripts.cli import main; sys.exit(main())"
    command = [sys.executable, "-c", code, "evaluate", "--agent", "random", "--env", FLICKER, "--out", tmp_path / "out"]
    run = subprocess.run(command, cwd=ROOT, capture_output=True, text=True)
    assert run.returncode == 2 and "worldmodel[agents]" in run.stderr, run.stderr
    assert len(run.stderr.strip().splitlines()) == 1


# --- collect.


def test_an_agent_records(agent: str, tmp_path: Path) -> None:
    store = tmp_path / "store"
    command = ["collect", FLICKER, "--store", store, "--episodes", "3", "--agent", agent, "--explore", "0"]
    assert run(*command) == 0
    player = Agent.load(agent)
    for episode in EpisodeStore.open(str(store)):
        play = in_real_world(player)(np.random.default_rng(0))
        assert [play(frame) for frame in episode.frames[:-1]] == episode.actions.tolist()


# --- Mistakes: one sentence, exit code 2, nothing written.


def mistake(out: Path, *argv: object) -> str:
    """The sentence with which a command that would write to `out` is refused."""
    sentence = refused(*argv, "--out", out)
    assert not out.exists()
    return sentence


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        ([], "Dreams need a model"),
        (["--model", "no-such-model"], "no-such-model"),
        (["--model", "MODEL", "--num-envs", "0"], "--num-envs"),
        (["--model", "MODEL", "--every", "0"], "--every"),
        (["--model", "MODEL", "--dreams", "0"], "--dreams"),
        (["--model", "MODEL", "--steps", "0"], "--steps"),
        (["--model", "MODEL", "--batch", "1"], "--batch"),
        (["--model", "MODEL", "--minibatch", "1"], "--minibatch"),
        (["--model", "MODEL", "--minibatch", "8192"], "minibatch of 8192 steps is larger than its batch of 2048"),
        (["--model", "MODEL", "--steps", "512"], "takes as many at least"),
        (["--model", "MODEL", "--scenario", "take-cover"], "real worlds"),
        (["--model", "MODEL", "--epochs", "0"], "--epochs"),
        (["--model", "MODEL", "--learning-rate", "0"], "--learning-rate"),
        (["--model", "MODEL", "--surprise-penalty", "nan"], "--surprise-penalty"),
        (["--model", "MODEL", "--learning-rate", "nan"], "--learning-rate"),
        (["--model", "MODEL", "--entropy", "nan"], "--entropy"),
        (["--model", "MODEL", "--batch", "600", "--num-envs", "400"], "two steps of each of 400"),
        (["--model", "MODEL", "--max-steps", "9"], "--max-steps would do nothing"),
        (["--model", "MODEL", "--real-episodes", "3"], "--real-episodes would do nothing"),
        (["--env", FLICKER, "--obs", "pixels", "--horizon", "3", "--temperature", "2"], "--horizon and --temperature"),
        (["--env", FLICKER, "--obs", "pixels", "--dreams", "9"], "--dreams would do nothing"),
        (["--model", "MODEL", "--gamma", "1.5"], "--gamma"),
        (["--model", "MODEL", "--temperature", "0"], "temperature"),
        (["--model", "MODEL", "--horizon", "0"], "horizon"),
        (["--model", "MODEL", "--seed", "-1"], "--seed"),
        (["--model", "MODEL", "--seed", str(2**32)], "--seed"),
        (["--model", "MODEL", "--real-env", "Nowhere-v0"], "Nowhere"),
        (["--model", "MODEL", "--real-env", FLICKER, "--env-kwargs", "shape=(42,28,3)"], "The model was trained on"),
        (["--model", "MODEL", "--real-env", FLICKER, "--env-kwargs", "n_actions=2"], "The model takes 3 actions"),
        (["--env", FLICKER, "--env-kwargs", "n_actions=2", "--obs", "pixels", "--model", "MODEL"], "this world has 2"),
        (["--env", "Nowhere-v0", "--obs", "pixels"], "Nowhere"),
        (["--model", "MODEL", "--init", "take-cover"], "another tokenizer"),
        (["--model", "MODEL", "--init", "nobody"], "no agent nobody"),
        (["--env", FLICKER], "--obs history needs --model"),
        (["--env", FLICKER, "--env-kwargs", "shape=(42,28,3)", "--model", "MODEL"], "The model was trained on"),
        (["--env", FLICKER, "--obs", "pixels", "--env-kwargs", "shape"], "name=value"),
    ],
)
def test_a_training_that_makes_no_sense_is_refused(
    model: str,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    argv = [model if word == "MODEL" else word for word in arguments]
    assert sentence in mistake(tmp_path / "out", "train-agent", *argv)


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["--agent", "nobody", "--model", "MODEL"], "no agent nobody"),
        (["--agent", "no.zip", "--env", FLICKER], "no.zip"),
        (["--agent", "random"], "Dreams need a model"),
        (["--agent", "random", "--env", "Nowhere-v0"], "Nowhere"),
        (["--agent", "random", "--env", "CartPole-v1"], "uint8 RGB"),
        (["--agent", "always:fly", "--model", "MODEL"], "no action 'fly'"),
        (["--agent", "always:fly", "--env", FLICKER], "left, right, stay"),
        (["--agent", "random", "--model", "MODEL", "--episodes", "0"], "--episodes"),
        (["--agent", "random", "--env", FLICKER, "--worlds", "0"], "--worlds"),
        (["--agent", "random", "--model", "MODEL", "--max-steps", "9"], "--max-steps would do nothing in dreams"),
        (["--agent", "random", "--model", "MODEL", "--worlds", "3"], "--worlds would do nothing in dreams"),
        (["--agent", "random", "--env", FLICKER, "--horizon", "9"], "--horizon would do nothing"),
        (["--agent", "random", "--env", FLICKER, "--temperature", "0.5"], "--temperature would do nothing"),
        (["--agent", "random", "--env", FLICKER, "--model", "MODEL"], "does not see through a model"),
        (["--agent", "random", "--env", FLICKER, "--max-steps", "0"], "--max-steps"),
        (["--agent", "random", "--env", FLICKER, "--seed", "-1"], "--seed"),
        (["--agent", "AGENT", "--env", FLICKER, "--env-kwargs", "shape=(42,28,3)"], "trained on frames"),
        (["--agent", "AGENT", "--model", "dmlab-seekavoid"], "another tokenizer"),
        (["--agent", "MODEL", "--model", "MODEL"], "is not an agent"),
        (["--agent", "RUN", "--model", "MODEL"], "agent may"),
        (["--agent", "AGENT", "--model", "AGENT"], "is not a model"),
        (["--agent", "random", "--model", "MODEL", "--level", "seekavoid_arena_01"], "real worlds"),
    ],
)
def test_an_evaluation_that_makes_no_sense_is_refused(
    model: str,
    agent: str,
    tmp_path: Path,
    arguments: list[str],
    sentence: str,
) -> None:
    names = {"MODEL": model, "AGENT": agent, "RUN": str(Path(agent).parent)}
    argv = [names.get(word, word) for word in arguments]
    assert sentence in mistake(tmp_path / "out", "evaluate", *argv)


def test_an_agent_records_no_world_that_it_cannot_play(
    agent: str,
    tmp_path: Path,
) -> None:
    store = tmp_path / "store"
    command = ["collect", FLICKER, "--store", store, "--episodes", "3", "--agent", agent]
    assert "trained on frames" in refused(*command, "--env-kwargs", "shape=(42,28,3)")
    assert not store.exists()
