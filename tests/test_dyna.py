"""`worldmodel dyna`: rounds of playing, learning the world and learning to act build on each other."""

import dataclasses
import json
from pathlib import Path

import pytest

pytest.importorskip("vizdoom", reason="the extra [doom] is not installed")
pytest.importorskip("stable_baselines3", reason="the extra [agents] is not installed")

from agents.training import PPOConfig
from scripts import dyna
from worldmodel.episodes import EpisodeStore
from worldmodel.recipe import Recipe


def test_a_loop_goes_on_where_it_stopped_and_plays_with_what_it_learned(tmp_path: Path) -> None:
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
        recipe=Recipe(tokenizer_steps=2, prior_steps=2, outcome_steps=2),
        ppo=PPOConfig(steps=256, batch=128, minibatch=64, epochs=1),
        every=256,
        device="cpu",
    )
    dyna.main(args)
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
