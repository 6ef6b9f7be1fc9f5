"""Speed is measured of the real thing: the fast sampler draws what a full forward a code draws, whatever its order."""

import dataclasses
import itertools
import json
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor

from scripts import bench_speed
from tests.tiny_world import CODE_SHAPE, N_ACTIONS, tiny_world
from worldmodel.errors import UserError
from worldmodel.precision import fast_dtype
from worldmodel.sampling import invert_cdf
from worldmodel.speed import matmul_rate, measure_speed, precision_cost, some_state, stages
from worldmodel.state import WorldState
from worldmodel.world import WorldModel


def in_order(order: str) -> WorldModel:
    world = tiny_world()
    config = dataclasses.replace(world.config.dynamics, order=order)
    other = WorldModel(dataclasses.replace(world.config, dynamics=config), world.contexts).double().eval()
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(3)
        for parameter in other.parameters():
            torch.nn.init.normal_(parameter, std=0.5)
    return other.requires_grad_(False)


@torch.no_grad()
def naive_codes(world: WorldModel, state: WorldState, action: Tensor, uniforms: Tensor) -> Tensor:
    """Codes, int64 [B, h, w], of the next frame, drawn as without a sampler: a full forward a code.

    `uniforms`, float [B, h*w]. The same uniforms give `Dynamics.draw` the same codes, whatever its order and grouping.
    """
    rows, columns = world.code_shape
    codes = torch.cat([state.codes, torch.zeros_like(state.codes[:, :1])], 1)
    actions = torch.cat([state.actions, action[:, None]], 1)
    for i, j in world.dynamics.head.places:
        logits = world.dynamics(codes, actions, given=state.codes.shape[1]).logits[:, 0, i, j]
        place = uniforms[:, i * columns + j, None]
        codes[:, -1, i, j] = invert_cdf(logits, place)[0].squeeze(-1)
    return codes[:, -1]


@pytest.mark.parametrize("order", ["diagonal", "raster"])
@pytest.mark.parametrize("batch", [1, 5])
def test_the_sampler_draws_the_codes_that_a_full_forward_a_code_draws(order: str, batch: int) -> None:
    world = in_order(order)
    state, action = some_state(world, batch), torch.arange(batch) % N_ACTIONS
    uniforms = torch.rand(batch, CODE_SHAPE[0] * CODE_SHAPE[1], dtype=torch.float64)
    drawn = world.dynamics.draw(state.codes, torch.cat([state.actions, action[:, None]], 1), uniforms, 1.0)
    assert torch.equal(drawn.codes, naive_codes(world, state, action, uniforms))


def test_the_stages_of_a_step_count_its_arithmetic() -> None:
    world = tiny_world()
    parts = {stage.name: stage for stage in stages(world, 3, seconds=0)}
    assert list(parts) == ["recall", "trunk", "head", "reward and end", "bookkeeping", "decode"] + [
        "encode (of given frames only)"
    ]
    config = world.config.dynamics
    size, width = CODE_SHAPE[0] * CODE_SHAPE[1], config.width
    convolutions = 3 * size * width * (config.blocks * 10 * width + 10 * config.head_width)  # 3x3 and 1x1, each
    assert parts["trunk"].gflop == pytest.approx(2 * convolutions / 1e9, rel=0.1)
    assert matmul_rate(torch.float32, size=64, seconds=0) > 0


def test_speed_counts_every_row(monkeypatch: pytest.MonkeyPatch) -> None:
    """By a clock that ticks at each look, eight rows are eight times as fast as one."""
    ticks = itertools.count()
    monkeypatch.setattr("time.perf_counter", lambda: float(next(ticks)))
    one, eight = (measure_speed(tiny_world(), batch, seconds=0)["steps_per_second"] for batch in (1, 8))
    assert eight == pytest.approx(8 * one)


def test_a_copy_of_less_precision_is_a_little_off_and_the_same_model_is_not() -> None:
    world = tiny_world()
    assert precision_cost(world, world) == 0
    assert 0 < precision_cost(world, tiny_world().bfloat16()) < 0.1


@pytest.mark.parametrize("wrong", [{"steps": 3}, {"seconds": -1.0}, {"models": ()}])
def test_bench_speed_refuses_what_measures_nothing(wrong: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="Speed is measured"):
        bench_speed.main(bench_speed.Args(**wrong))


def test_two_models_of_one_name_are_not_told_apart_by_it(tmp_path: Path) -> None:
    for folder in ("one", "two"):
        tiny_world().float().save_pretrained(tmp_path / folder / "maze")
    models = tuple(str(tmp_path / folder / "maze") for folder in ("one", "two"))
    with pytest.raises(UserError, match="have to differ: maze, maze"):
        bench_speed.main(bench_speed.Args(models))


@pytest.mark.parametrize(
    ("instructions", "dtype"),
    [("amx_bf16", torch.bfloat16), ("avx512_bf16", torch.bfloat16), ("avx512_f", torch.float32)],
)
def test_a_cpu_multiplies_bfloat16_where_it_has_instructions_for_it(
    instructions: str, dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(torch.cpu, "get_capabilities", lambda: {instructions: True})
    assert fast_dtype() == dtype
    assert fast_dtype("cuda") == torch.bfloat16


def test_bench_speed_writes_its_report(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = tmp_path / "tiny"
    tiny_world().save_pretrained(model)
    monkeypatch.setattr(bench_speed, "BATCHES", (1, 2))
    monkeypatch.setattr(bench_speed, "STAGED", (1, 2))
    # Where bfloat16 is slow, the product of the command's own size takes half a minute.
    monkeypatch.setattr(bench_speed, "matmul_rate", partial(bench_speed.matmul_rate, size=64, seconds=0.01))
    bench_speed.main(bench_speed.Args((str(model),), "bfloat16", seconds=0.01, steps=20, out=tmp_path / "report"))
    report = json.loads((tmp_path / "report" / "speed.json").read_text())
    measured = report["models"]["tiny"]
    assert [row["batch"] for row in measured["steps_per_second"]] == [1, 2]
    assert set(measured["resident_mb_after_steps"]) == {"2", "10", "20"}
    page = (tmp_path / "report" / "speed.md").read_text()
    assert "## tiny" in page and "x naive sampler" in page and "KL" in page
