"""`worldmodel dyna`: rounds of playing, learning the world and learning to act build on each other."""

import dataclasses
import json
import shutil
from pathlib import Path
from typing import Any

import pytest
import torch
from tiny_world import tiny_world

pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from agents.training import PPOConfig
from scripts import dyna
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import read_tensors
from worldmodel.recipe import Recipe


def interrupted(*_: object) -> None:
    raise KeyboardInterrupt


def test_a_loop_goes_on_where_it_stopped_and_plays_with_what_it_learned(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")
    args = dyna.Args(
        out=tmp_path / "loop",
        env="envs:worldmodel/Doom-v0",
        scenario="take-cover",
        rounds=1,
        episodes=2,
        max_steps=20,
        horizon=5,
        dreams=2,
        test_episodes=2,
        recipe=Recipe(tokenizer_steps=2, prior_steps=2, dream_steps=0, outcome_steps=2),
        ppo=PPOConfig(steps=256, batch=128, minibatch=64, epochs=1),
        every=256,
        device="cpu",
    )
    monkeypatch.setattr(dyna, "_learn_world", interrupted)
    with pytest.raises(KeyboardInterrupt):
        dyna.main(dataclasses.replace(args, recipe=Recipe(tokenizer_steps=9)))
    monkeypatch.undo()
    dyna.main(args)  # what has not begun may still be another
    before = (args.out / "round0" / "model" / "model.safetensors").read_bytes()
    dyna.main(dataclasses.replace(args, rounds=2))
    rounds = json.loads((args.out / "rounds.json").read_text())
    assert [entry["real_steps"] for entry in rounds] == [40, 80] and {entry["unit"] for entry in rounds} == {"tics"}
    assert len(EpisodeStore.open(str(args.out / "episodes"))) == 4
    assert (args.out / "round0" / "model" / "model.safetensors").read_bytes() == before
    assert (args.out / "round1" / "agent" / "policy.safetensors").exists()
    learned = json.loads((args.out / "agent" / "progress.json").read_text())
    assert [entry["steps"] for entry in learned] == [256, 512]

    written = {path: path.stat().st_mtime_ns for path in args.out.rglob("*.safetensors")}
    dyna.main(dataclasses.replace(args, rounds=2))
    assert {path: path.stat().st_mtime_ns for path in args.out.rglob("*.safetensors")} == written
    dyna.main(args)  # a round fewer takes nothing away
    assert json.loads((args.out / "rounds.json").read_text()) == rounds
    elsewhere = dataclasses.replace(args, out=args.out.rename(tmp_path / "elsewhere"))
    shutil.rmtree(elsewhere.out / "round1" / "evaluation")
    dyna.main(dataclasses.replace(elsewhere, rounds=2))  # its agents still find the models they see through
    assert json.loads((elsewhere.out / "rounds.json").read_text()) == rounds
    begun = {name: str(elsewhere.out / "round0" / name) for name in ("model", "agent")}
    slow = dataclasses.replace(args.ppo, learning_rate=1e-7)
    kept = dataclasses.replace(args.recipe, tokenizer_steps=Recipe.tokenizer_steps)
    dyna.main(dataclasses.replace(args, out=tmp_path / "begun", ppo=slow, recipe=kept, **begun))  # type: ignore[arg-type]
    weights = [
        read_tensors(agent / "policy.safetensors")["action_net.weight"].float()
        for agent in (Path(begun["agent"]), tmp_path / "begun" / "round0" / "agent")
    ]
    torch.testing.assert_close(*weights, atol=1e-4, rtol=1e-2)
    args = elsewhere
    (args.out / "rounds.json").write_text("{")
    with pytest.raises(UserError, match="rounds.json is damaged; remove it"):
        dyna.main(dataclasses.replace(args, rounds=2))
    settings = json.loads((args.out / "train.json").read_text())
    assert (settings["scenario"], settings["rounds"], settings["ppo.steps"]) == ("take-cover", 2, 256)
    with pytest.raises(UserError, match="holds a training with episodes 2, horizon 5, ppo.seed 0;"):
        dyna.main(dataclasses.replace(args, episodes=3, horizon=6, ppo=dataclasses.replace(args.ppo, seed=1)))


@pytest.mark.parametrize(
    ("mistake", "sentence"),
    [
        ({"device": "cuda"}, "no CUDA device"),
        ({"max_steps": 0}, "--max-steps"),
        ({"horizon": 0}, "--horizon"),
        ({"temperature": 0.0}, "temperature"),
        ({"model": "no-such-model"}, "no-such-model"),
        ({"model": "MODEL", "env_kwargs": ("n_actions=2",)}, "The model takes 3 actions"),
        ({"model": "MODEL", "env_kwargs": ("shape=(42,28,3)",)}, "The model was trained on frames"),
        ({"model": "MODEL", "recipe": Recipe(order="raster")}, "by --recipe.order diagonal"),
        ({"model": "MODEL", "recipe": Recipe(tokenizer_steps=2)}, "with --model, whose tokenizer is kept"),
        ({"agent": "take-cover"}, "give it, too, by --model"),
        ({"agent": "take-cover", "model": "MODEL"}, "another tokenizer"),
        ({"env": "Nowhere-v0"}, "Nowhere"),
        ({"recipe": Recipe(prior_steps=0)}, "learns nothing in 0 steps"),
        ({"max_steps": 14}, "--max-steps 15 or more"),
        ({"env_kwargs": ("shape=(42,31,3)",)}, "do not divide"),
    ],
)
def test_what_would_stop_a_loop_stops_it_before_anything_is_written(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, mistake: dict[str, Any], sentence: str
) -> None:
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    if "model" in mistake and mistake["model"] == "MODEL":
        tiny_world().save_pretrained(tmp_path / "model")
        mistake = {**mistake, "model": str(tmp_path / "model")}
    with pytest.raises(UserError, match=sentence):
        dyna.main(dyna.Args(**{"out": tmp_path / "loop", "env": "flicker:Flicker-v0", "device": "cpu", **mistake}))
    assert not (tmp_path / "loop").exists()
