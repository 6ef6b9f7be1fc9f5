"""What the prior is trained on: whole, shortened and imperfect pasts, after which it predicts the true frames."""

import torch

from tests.test_prior import REACH, episode, prior
from tests.tiny_world import N_ACTIONS
from worldmodel.objectives import begin_at, blur, withhold


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


def test_the_codes_to_predict_are_the_true_ones_whatever_was_seen() -> None:
    dynamics, (codes, actions) = prior("raster"), episode(3, 8)
    same = dynamics.code_logits(codes, actions, codes, given=4)
    assert torch.equal(same, dynamics(codes, actions, given=4).logits)
    seen = blur(codes)
    blurred = (seen != codes).float().mean().item()
    assert 0 < blurred < 0.1
    assert not torch.equal(dynamics.code_logits(codes, actions, seen, given=4), same)
