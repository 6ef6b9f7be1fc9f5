"""The prior learns from its own dreams: what stands in for the recordings then, and where."""

import pytest
import torch

from tests.test_outcomes import some_codes, sparse_store
from tests.test_prior import REACH, episode, prior
from tests.tiny_world import N_ACTIONS, N_CODES, tiny_world
from worldmodel.dreaming import DREAMED, DreamingObjective, dream_within, redraw
from worldmodel.optimizer import Optimizer
from worldmodel.step import TrainingStep


def test_a_dream_takes_the_place_of_some_frames_and_goes_on_from_itself() -> None:
    dynamics, (codes, actions) = prior("diagonal"), episode(3, REACH + DREAMED + 4)
    for seed in range(8):
        torch.manual_seed(seed)
        seen = dream_within(dynamics, codes, actions, REACH)
        torch.manual_seed(seed)
        start = int(torch.randint(REACH, codes.shape[1], ()))
        past = codes[:, :start]
        for now in range(start, min(start + DREAMED, codes.shape[1])):
            uniforms = torch.rand(3, codes[0, 0].numel())
            drawn = dynamics.draw(past[:, -REACH:], actions[:, now - REACH : now], uniforms, 1.0).codes
            past = torch.cat([past, drawn[:, None]], 1)
        assert torch.equal(seen, torch.cat([past, codes[:, past.shape[1] :]], 1))
        assert (seen[:, start:] != codes[:, start:]).any()


def test_half_of_the_windows_keep_to_the_recordings(monkeypatch: pytest.MonkeyPatch) -> None:
    store, world = sparse_store(), tiny_world()
    objective = DreamingObjective(world, store, some_codes(store), torch.ones(N_CODES), size=5)
    batch = objective.dataset.batch(0, 5)
    codes, actions = batch["frames"].long(), batch["actions"]
    monkeypatch.setattr("worldmodel.objectives.blur", torch.clone)
    seen, given = objective.look_back(codes, actions), objective.past + 1
    changed = (seen != codes).flatten(2).any(2)  # [B, T]
    assert changed[:3, given:].any(1).all() and not changed[:, :given].any() and not changed[3:].any()
    after = codes[:, given:]
    _, context = world.dynamics.foresee_after(seen, actions, given)
    changed = (objective.look_around(after, context) != after).flatten(2).any(2)  # [B, T]
    assert changed[:3].any(1).all() and not changed[3:].any()
    assert torch.equal(after, batch["frames"].long()[:, given:])  # they are still what is to be predicted
    assert torch.isfinite(objective.loss(batch)[0])


@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_all_that_foresees_learns_from_dreams(dtype: torch.dtype, monkeypatch: pytest.MonkeyPatch) -> None:
    """Also in bfloat16, where weights are rounded first where no gradient is wanted: to dream."""
    monkeypatch.setattr("worldmodel.step.fast_dtype", lambda _: dtype)
    store, world = sparse_store(), tiny_world().float().requires_grad_(True)
    objective = DreamingObjective(world, store, some_codes(store), torch.ones(N_CODES), size=4)
    step = TrainingStep(objective.loss, Optimizer(world.dynamics), torch.device("cpu"))
    before = {name: p.detach().clone() for name, p in world.dynamics.named_parameters()}
    step(objective.dataset.batch(0, 4), 1e-2)
    still = [name for name, p in world.dynamics.named_parameters() if torch.equal(p, before[name])]
    assert all(name.startswith("outcome.") for name in still), still


def test_codes_drawn_anew_are_few_and_follow_the_prior() -> None:
    dynamics, (codes, actions) = prior("raster"), episode(1, REACH + 1)
    _, context = dynamics.foresee_after(codes, actions.clamp_max(N_ACTIONS - 1), REACH)
    truth, rows = codes[:, -1], 4000
    drawn = redraw(dynamics.head, truth.expand(rows, -1, -1), context.expand(rows, -1, -1, -1))
    stated = dynamics.head(context, truth).softmax(1)  # [1, K, h, w]
    others = 1 - stated.gather(1, truth[:, None]).squeeze(1)
    changed = (drawn != truth).double().mean(0, keepdim=True)
    torch.testing.assert_close(changed, 0.15 * others, rtol=0, atol=0.03)  # up to 0.3, evenly
