"""What the prior is trained on: whole, shortened and imperfect pasts, after which it predicts the true frames."""

import pytest
import torch

from tests.test_outcomes import some_codes, sparse_store
from tests.test_prior import REACH, episode, prior
from tests.tiny_world import N_ACTIONS, N_CODES, tiny_world
from worldmodel.evaluation import stream_bits
from worldmodel.objectives import DynamicsObjective, begin_at, blur, withhold


def test_a_past_that_begins_later_is_the_past_of_an_episode_that_does() -> None:
    dynamics, (codes, actions) = prior("diagonal"), episode(2, REACH + 4)
    given = REACH
    for first in range(REACH):
        held = begin_at(codes, actions, torch.full((2, 1), first), dynamics.no_action)
        late = dynamics(codes[:, first:], actions[:, first:], given=given - first)
        torch.testing.assert_close(dynamics(*held, given=given).logits, late.logits, rtol=0, atol=1e-9)


def test_withholding_leaves_half_of_the_pasts_and_nine_tenths_of_the_actions() -> None:
    codes, actions = episode(4000, 5)
    actions = actions.clamp_max(N_ACTIONS - 1)
    codes = codes[..., :2, :2] * 0 + torch.arange(5)[None, :, None, None]  # each frame tells its time
    held, told = withhold(codes, actions, 3, N_ACTIONS)
    whole = (held[:, 0, 0, 0] == 0).float().mean().item()
    assert abs(whole - (0.5 + 0.5 / 4)) < 0.05  # a random beginning may be the first frame, too
    assert abs((told[:, 3] == N_ACTIONS).float().mean().item() - 0.1) < 0.03


def test_the_codes_to_predict_are_the_true_ones_whatever_was_seen(monkeypatch: pytest.MonkeyPatch) -> None:
    store, world = sparse_store(), tiny_world()
    objective = DynamicsObjective(world, store, some_codes(store), torch.ones(N_CODES), size=3)
    batch = objective.dataset.batch(0, 3)
    monkeypatch.setattr("worldmodel.objectives.withhold", lambda codes, actions, *_: (codes, actions))
    codes = batch["frames"].long()
    seen = blur(codes)
    assert 0 < (seen != codes).float().mean().item() < 0.1
    bits = {}
    for name, past in (("true", codes), ("blurred", seen)):
        monkeypatch.setattr(objective, "look_back", lambda *_, past=past: past)
        bits[name] = objective.loss(batch)[1]["bits per code"]
    streamed = stream_bits(world.dynamics, codes, batch["actions"])[:, objective.past :].mean()
    torch.testing.assert_close(bits["true"].double(), streamed, rtol=1e-5, atol=0)
    assert bits["blurred"] != bits["true"]


def test_places_count_by_what_was_near_them_a_frame_earlier(monkeypatch: pytest.MonkeyPatch) -> None:
    store, world, salience = sparse_store(), tiny_world(), 1 + 9 * torch.rand(N_CODES).double()
    objective = DynamicsObjective(world, store, some_codes(store), salience, size=3)
    batch = objective.dataset.batch(0, 3)
    codes, actions = batch["frames"].long(), batch["actions"]
    seen = torch.randint(N_CODES, codes.shape)  # nothing of it is true, nor does it matter here

    monkeypatch.setattr(objective, "look_back", lambda *_: seen)
    monkeypatch.setattr("worldmodel.objectives.withhold", lambda codes, actions, *_: (codes, actions))
    given = objective.past + 1
    _, context = world.dynamics.foresee_after(seen, actions, given)
    log_p = world.dynamics.head(context, codes[:, given:].flatten(0, 1)).log_softmax(1)
    nats = -log_p.gather(1, codes[:, given:].flatten(0, 1)[:, None]).view_as(codes[:, given:]).float()
    weight = torch.zeros_like(nats)
    for row, time, y, x in torch.ones_like(weight).nonzero().tolist():
        around = codes[row, given + time - 1, max(y - 1, 0) : y + 2, max(x - 1, 0) : x + 2]
        weight[row, time, y, x] = salience[around].max()
    expected = (nats * weight).sum() / weight.sum()
    torch.testing.assert_close(objective.loss(batch)[0].float(), expected)
