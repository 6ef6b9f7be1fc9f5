"""The prior learns from its own dreams: what stands in for the recordings then, and where."""

import torch

from tests.test_prior import REACH, episode, prior
from tests.tiny_world import N_ACTIONS
from worldmodel.dreaming import DREAMED, dream_within, redraw


def test_a_dream_takes_the_place_of_some_frames_and_goes_on_from_itself() -> None:
    dynamics, (codes, actions) = prior("diagonal"), episode(3, REACH + DREAMED + 4)
    start = REACH + 2
    torch.manual_seed(0)
    seen = dream_within(dynamics, codes, actions, start)
    kept = [*range(start), *range(start + DREAMED, codes.shape[1])]
    assert torch.equal(seen[:, kept], codes[:, kept])
    torch.manual_seed(0)
    past = codes[:, :start]
    for now in range(start, start + DREAMED):
        uniforms = torch.rand(3, codes[0, 0].numel())
        drawn = dynamics.draw(past[:, -REACH:], actions[:, now - REACH : now], uniforms, 1.0).codes
        assert torch.equal(seen[:, now], drawn)
        past = torch.cat([past, drawn[:, None]], 1)


def test_codes_drawn_anew_are_few_and_follow_the_prior() -> None:
    dynamics, (codes, actions) = prior("raster"), episode(1, REACH + 1)
    rows = 4000
    codes, actions = codes.expand(rows, -1, -1, -1), actions.clamp_max(N_ACTIONS - 1).expand(rows, -1)
    drawn = redraw(dynamics, codes, actions, codes, REACH)
    assert torch.equal(drawn[:, :REACH], codes[:, :REACH])
    stated = dynamics.code_logits(codes[:1], actions[:1], codes[:1], given=REACH)[0, 0].softmax(-1)  # [h, w, K]
    truth = codes[0, -1]
    others = 1 - stated.gather(-1, truth[..., None]).squeeze(-1)
    changed = (drawn[:, -1] != truth).double().mean(0)
    torch.testing.assert_close(changed, 0.15 * others, rtol=0, atol=0.03)  # up to 0.3, evenly
