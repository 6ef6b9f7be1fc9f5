"""How fast a world dreams, where the time goes, and how far that is from what the machine could do."""

import math
import time
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
import torch
from torch.utils.flop_counter import FlopCounterMode

from worldmodel.errors import UserError
from worldmodel.metrics import Result
from worldmodel.state import WorldState, generators
from worldmodel.world import WorldModel


@dataclass
class Stage:
    """A part of an imagined step."""

    name: str
    milliseconds: float  # median
    gflop: float  # 10^9 floating-point operations of its matrix products and convolutions


def measure_speed(world: WorldModel, batch: int, *, seconds: float = 5.0) -> Result:
    """Steps a second over all rows with every frame drawn, random actions, after a warm-up of three steps."""
    state, rngs, choose = some_state(world, batch), generators(0, batch), np.random.default_rng(0)

    def step() -> None:
        nonlocal state
        actions = torch.from_numpy(choose.integers(world.n_actions, size=batch))
        state = world.step(state, actions, rngs=rngs).state
        world.render(state).cpu()

    return {"batch": batch, "steps_per_second": batch * calls_per_second(step, seconds)}


def calls_per_second(call: Callable[[], object], seconds: float) -> float:
    """How often `call` can be made, in `seconds` and at least five times, after a warm-up of three calls."""
    done, began = -3, 0.0
    while done < 5 or time.perf_counter() - began < seconds:
        if done == 0:
            began = time.perf_counter()
        call()
        done += 1
    return done / (time.perf_counter() - began)


def some_state(world: WorldModel, batch: int) -> WorldState:
    """A state to step from: the model's own starts, in turn."""
    if world.contexts is None:
        raise UserError("The model has no starts to dream from: train it with this version of the package.")
    rows = torch.arange(batch) % len(world.contexts)
    return world.observe_codes(world.contexts.codes[rows], world.contexts.actions[rows])


@torch.inference_mode()
def stages(world: WorldModel, batch: int, seconds: float) -> list[Stage]:
    """The parts of a step of `batch` rows, each measured by itself for `seconds`; "bookkeeping" is what they leave."""
    state, rngs = some_state(world, batch), generators(0, batch)
    action = torch.zeros(batch, dtype=torch.int64, device=state.codes.device)
    actions = torch.cat([state.actions, action[:, None]], 1)
    dynamics = world.dynamics
    foreseen, context = dynamics.foresee(state.codes, actions)
    uniforms = torch.rand(batch, math.prod(world.code_shape), device=action.device)
    drawn, _ = dynamics.head.draw(context, uniforms, 1.0)
    frames = world.render(state)[:, None]
    parts: dict[str, Callable[[], object]] = {
        "recall": lambda: dynamics.recall(actions),
        "trunk": lambda: dynamics.foresee(state.codes, actions),
        "head": lambda: dynamics.head.draw(context, uniforms, 1.0),
        "reward and end": lambda: dynamics.outcome(foreseen, torch.cat([state.codes[:, -2:], drawn[:, None]], 1)),
        "bookkeeping": lambda: world.step(state, action, rngs=rngs),
        "decode": lambda: world.render(state),
        "encode (of given frames only)": lambda: world.video.encode(frames),
    }
    found = {name: Stage(name, *_measure(part, seconds)) for name, part in parts.items()}
    found["trunk"].milliseconds -= found["recall"].milliseconds  # which is in it
    found["trunk"].gflop -= found["recall"].gflop
    for name in ("recall", "trunk", "head", "reward and end"):
        found["bookkeeping"].milliseconds -= found[name].milliseconds
        found["bookkeeping"].gflop -= found[name].gflop
    return list(found.values())


def _measure(part: Callable[[], object], seconds: float) -> tuple[float, float]:
    """Median milliseconds, and 10^9 operations, of a call."""
    with FlopCounterMode(display=False) as counter:
        part()
    times: list[float] = []
    while len(times) < 5 or sum(times) < seconds:
        began = time.perf_counter()
        part()
        times.append(time.perf_counter() - began)
    return 1000 * float(np.median(times)), counter.get_total_flops() / 1e9


def matmul_rate(dtype: torch.dtype, *, size: int = 2048, seconds: float = 1.0) -> float:
    """10^9 operations a second that a large matrix product reaches here."""
    a = torch.randn(size, size).to(dtype)
    milliseconds, gflop = _measure(lambda: a @ a, seconds)
    return 1000 * gflop / milliseconds


@torch.no_grad()
def naive_ratio(world: WorldModel, batch: int) -> float:
    """How many times longer a frame takes with a full forward a code, of which all cost the same: a few are timed."""
    state = some_state(world, batch)
    actions = torch.cat([state.actions, state.actions[:, :1]], 1)
    uniforms = torch.rand(batch, math.prod(world.code_shape), device=actions.device)
    codes = torch.cat([state.codes, state.codes[:, -1:]], 1)
    full, _ = _measure(lambda: world.dynamics.code_logits(codes, actions, given=state.codes.shape[1]), 0)
    cached, _ = _measure(lambda: world.dynamics.draw(state.codes, actions, uniforms, 1.0), 1)
    return full * math.prod(world.code_shape) / cached


@torch.no_grad()
def precision_cost(exact: WorldModel, fast: WorldModel) -> float:
    """Bits a code by which the `fast` copy's distribution is off: KL(exact || fast) over the model's starts."""
    assert exact.contexts is not None
    total = 0.0
    for codes, actions in zip(exact.contexts.codes.split(2), exact.contexts.actions.split(2), strict=True):
        logits = (w.dynamics.code_logits(codes, actions, given=1) for w in (exact, fast))
        p, q = (each.float().log_softmax(-1) for each in logits)
        total += float((p.exp() * (p - q)).sum(-1).mean()) * len(codes)
    return total / len(exact.contexts) / math.log(2)
