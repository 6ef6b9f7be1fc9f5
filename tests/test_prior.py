"""The prior: step by step it is the full forward pass, it samples what it states, and it never looks ahead."""

from typing import Any

import numpy as np
import pytest
import torch
from scipy.stats import chisquare

from tests.tiny_world import CODE_SHAPE, N_ACTIONS, N_CODES
from worldmodel.code_head import CodeHead
from worldmodel.dynamics import Dynamics, DynamicsConfig
from worldmodel.errors import UserError
from worldmodel.recall import Recall

ORDERS = ["diagonal", "raster"]
REACH = 6


def prior(order: str, num_codes: int = N_CODES, code_shape: tuple[int, int] = CODE_SHAPE, picks: int = 2) -> Dynamics:
    torch.manual_seed(0)
    shape = {"width": 16, "head_width": 16, "blocks": 2, "recent": 2, "picks": picks, "reach": REACH}
    config = DynamicsConfig(code_shape, num_codes, N_ACTIONS, (-1.0, 0.0, 2.0), order=order, **shape)
    dynamics = Dynamics(config).double().eval().requires_grad_(False)
    for p in dynamics.parameters():
        torch.nn.init.normal_(p, std=0.4)
    return dynamics


def episode(batch: int, length: int) -> tuple[torch.Tensor, torch.Tensor]:
    return torch.randint(N_CODES, (batch, length, *CODE_SHAPE)), torch.randint(N_ACTIONS + 1, (batch, length - 1))


@pytest.mark.parametrize("order", ORDERS)
def test_stepping_gives_the_distribution_of_the_full_forward_whenever_each_row_was_reset(order: str) -> None:
    """Rows begin at different times; each is stepped, beside the others, with the past that it has by then."""
    dynamics, (codes, actions) = prior(order), episode(3, 2 * REACH)
    begins = [0, 2, 5]
    full = [dynamics(codes[row : row + 1, begin:], actions[row : row + 1, begin:]) for row, begin in enumerate(begins)]
    for t in range(max(begins), codes.shape[1] - 1):
        past = [dynamics.past(codes[[row], begin : t + 1], actions[[row], begin:t]) for row, begin in enumerate(begins)]
        before, moves = (torch.cat(parts) for parts in zip(*past, strict=True))
        step = dynamics(
            torch.cat([before, codes[:, t + 1 : t + 2]], 1), torch.cat([moves, actions[:, t : t + 1]], 1), given=REACH
        )
        for row, begin in enumerate(begins):
            for name in ("logits", "reward_logits", "termination_logits"):
                stepped, whole = getattr(step, name)[row, 0], getattr(full[row], name)[0, t - begin]
                torch.testing.assert_close(stepped, whole, rtol=0, atol=1e-9)


@pytest.mark.parametrize("order", ORDERS)
def test_a_draw_has_the_log_probability_that_the_full_forward_gives_its_codes(order: str) -> None:
    dynamics, (codes, actions) = prior(order), episode(4, 4)
    before, moves = dynamics.past(codes[:, :-1], actions[:, :-1])
    uniforms = torch.rand(4, codes[0, 0].numel(), dtype=torch.float64)
    drawn = dynamics.draw(before, torch.cat([moves, actions[:, -1:]], 1), uniforms, 1.0)
    full = dynamics(torch.cat([codes[:, :-1], drawn.codes[:, None]], 1), actions)
    log_prob = full.logits[:, -1].log_softmax(-1).gather(-1, drawn.codes[..., None]).sum((1, 2, 3))
    torch.testing.assert_close(drawn.log_prob, log_prob, rtol=0, atol=1e-9)
    expected = full.reward_logits[:, -1].softmax(-1) @ torch.tensor([-1.0, 0.0, 2.0], dtype=torch.float64)
    torch.testing.assert_close(drawn.reward.double(), expected, rtol=0, atol=1e-6)
    torch.testing.assert_close(drawn.termination.double(), full.termination_logits[:, -1].sigmoid(), rtol=0, atol=1e-6)


@pytest.mark.parametrize("order", ORDERS)
def test_a_code_depends_on_codes_drawn_before_it_and_on_no_others(order: str) -> None:
    head: CodeHead = prior(order).head
    rows, columns = CODE_SHAPE
    context = torch.randn(1, 16, rows, columns, dtype=torch.float64)
    codes = torch.randint(N_CODES, (1, rows, columns))
    logits = head(context, codes)
    for i in range(rows):
        for j in range(columns):
            other = codes.clone()
            other[0, i, j] = (other[0, i, j] + 1) % N_CODES
            changed = (head(context, other) != logits).any(1)[0]  # [h, w]
            for a, b in changed.nonzero().tolist():
                later = a + b > i + j if order == "diagonal" else (a, b) > (i, j)
                assert later, f"the logits at {a, b} saw the code at {i, j}"
            assert changed.any() or (i, j) == (rows - 1, columns - 1)


def test_the_future_does_not_reach_the_past() -> None:
    dynamics, (codes, actions) = prior("diagonal"), episode(2, 6)
    out = dynamics(codes, actions)
    for t in range(1, 6):
        other, moves = codes.clone(), actions.clone()
        other[:, t] = (other[:, t] + 1) % N_CODES
        moves[:, t - 1 :] = (moves[:, t - 1 :] + 1) % (N_ACTIONS + 1)
        again = dynamics(other, moves)
        assert torch.equal(again.logits[:, : t - 1], out.logits[:, : t - 1])
        assert not torch.equal(again.logits[:, t - 1], out.logits[:, t - 1])


def test_the_past_counts_as_far_as_it_reaches_and_no_further() -> None:
    dynamics, (codes, actions) = prior("diagonal", picks=REACH - 2), episode(1, REACH + 3)
    last = dynamics(codes, actions).logits[:, -1]
    for t in range(codes.shape[1] - 1):
        other, moves = codes.clone(), actions.clone()
        other[:, t] = (other[:, t] + 1) % N_CODES
        moves[:, t] = (moves[:, t] + 1) % N_ACTIONS
        within = t >= codes.shape[1] - 1 - REACH
        assert torch.equal(dynamics(other, actions).logits[:, -1], last) != within
        assert torch.equal(dynamics(codes, moves).logits[:, -1], last) != within


def test_a_view_is_recalled_once_the_actions_have_led_back_to_it() -> None:
    """Scored by how far the turns are from cancelling, the frame from which one turned away is the first pick."""
    left, right, none = 0, 1, 2
    recall = Recall(3, range(3, 17), heads=1, picks=1, width=4)
    for parameter in recall.parameters():
        torch.nn.init.zeros_(parameter)
    recall.count.weight.data[:2] = torch.tensor([[1.0, -1.0, 0.0], [-1.0, 1.0, 0.0]])  # net turns, either way
    recall.mix.weight.data.copy_(torch.eye(4))
    recall.age.data[:, 2] = torch.arange(14.0)
    recall.score.weight.data[0, :3] = torch.tensor([-10.0, -10.0, -1e-3])  # of those alike the youngest, by a hair
    for turns in range(2, 8):
        away = [none] * (16 - 2 * turns) + [left] * turns + [right] * turns
        frames, shares, _ = recall(torch.tensor([away]))
        assert frames.item() == 16 - 2 * turns  # at which the turning began
        assert shares.item() == pytest.approx(0.5, abs=0.01)  # as likely as its rival, "nothing"


def test_a_bfloat16_draw_has_the_log_probability_that_the_full_forward_gives_its_codes() -> None:
    dynamics, (codes, actions) = prior("diagonal").bfloat16(), episode(64, 4)
    for p in dynamics.parameters():
        p *= 0.2  # as far from certain as a learned one
    before, moves = dynamics.past(codes[:, :-1], actions[:, :-1])
    uniforms = torch.rand(64, codes[0, 0].numel())
    drawn = dynamics.draw(before, torch.cat([moves, actions[:, -1:]], 1), uniforms, 1.0)
    full = dynamics(torch.cat([codes[:, :-1], drawn.codes[:, None]], 1), actions)
    log_prob = full.logits[:, -1].float().log_softmax(-1).gather(-1, drawn.codes[..., None]).sum((1, 2, 3))
    torch.testing.assert_close(drawn.log_prob, log_prob, rtol=0.02, atol=0.02)


@pytest.mark.parametrize("order", ORDERS)
def test_sampled_frequencies_match_the_stated_probabilities(order: str) -> None:
    """All 3 ** 4 frames of a two-by-two grid, 40,000 draws: chi-squared at the 0.1% level."""
    dynamics = prior(order, num_codes=3, code_shape=(2, 2))
    every = torch.cartesian_prod(*[torch.arange(3)] * 4).view(81, 2, 2)
    codes, action = torch.tensor([[[[0, 1], [2, 0]]]]), torch.tensor([[1]])
    before, moves = dynamics.past(codes, action[:, :0])
    _, context = dynamics.foresee(before, torch.cat([moves, action], 1))
    logits = dynamics.head(context.expand(81, -1, -1, -1), every)
    stated = logits.log_softmax(1).gather(1, every[:, None]).sum((1, 2, 3)).exp()
    assert stated.sum().item() == pytest.approx(1, abs=1e-9)
    n = 40_000
    uniforms = torch.from_numpy(np.random.default_rng(0).random((n, 4)))
    drawn, log_prob = dynamics.head.draw(context.expand(n, -1, -1, -1), uniforms, 1.0)
    index = (drawn.flatten(1) * torch.tensor([27, 9, 3, 1])).sum(1)
    torch.testing.assert_close(log_prob.exp(), stated[index], rtol=1e-9, atol=0)
    counts, expected = torch.bincount(index, minlength=81).double(), stated * n
    rare = expected < 5
    counts, expected = (torch.cat([x[~rare], x[rare].sum()[None]]) for x in (counts, expected))
    keep = expected > 0
    assert chisquare(counts[keep], expected[keep] * counts[keep].sum() / expected[keep].sum()).pvalue > 0.001


def test_a_low_temperature_draws_the_likeliest_codes() -> None:
    dynamics, (codes, actions) = prior("raster"), episode(1, 2)
    uniforms = torch.rand(1, codes[0, 0].numel(), dtype=torch.float64)
    before, moves = dynamics.past(codes[:, :1], actions[:, :0])
    drawn = dynamics.draw(before, torch.cat([moves, actions], 1), uniforms, 1e-4)
    full = dynamics(torch.stack([codes[:, 0], drawn.codes], 1), actions)
    assert torch.equal(full.logits[:, 0].argmax(-1), drawn.codes)


def test_a_prior_in_other_codes_for_the_same_views_expects_the_same_views() -> None:
    """Old code 0 has become two, of which the second is seen three times as often; the last old one was never seen."""
    dynamics, (codes, actions) = prior("diagonal"), episode(2, 2 * REACH)
    codes = codes.clamp_max(N_CODES - 2)
    before = dynamics(codes, actions).logits[..., :-1].softmax(-1)
    renamed = torch.arange(1, N_CODES).roll(3)  # what each old code is now, but for those of 0 that are now 0
    often = 1e15 * torch.arange(1.0, N_CODES, dtype=torch.float64)
    together = torch.zeros(N_CODES, N_CODES, dtype=torch.float64)
    together[renamed, torch.arange(N_CODES - 1)] = often
    together[renamed[0], 0] *= 0.75
    together[0, 0] = 0.25 * often[0]
    dynamics.translate(together)
    now = torch.where((codes == 0) & (torch.rand(codes.shape) < 0.25), 0, renamed[codes])
    after = dynamics(now, actions).logits.softmax(-1)
    torch.testing.assert_close(after[..., 0], before[..., 0] * 0.25)
    torch.testing.assert_close(after[..., renamed[1:]], before[..., 1:])
    torch.testing.assert_close(after[..., renamed[0]], before[..., 0] * 0.75)


def test_a_new_prior_sees_codes_that_look_alike_alike_and_all_its_looks_are_of_one_size() -> None:
    torch.manual_seed(0)
    codes, dim = 64, 8
    dynamics = Dynamics(DynamicsConfig(CODE_SHAPE, codes, N_ACTIONS, (0.0,), width=256))
    codebook = torch.randn(codes, dim)
    codebook[1] = codebook[0] + 0.01
    dynamics.adopt(codebook)
    for embedding in (dynamics.embed, dynamics.outcome.embed):
        tables = embedding.weight.detach().view(-1, codes, 256)
        assert (tables[:, 0] - tables[:, 1]).norm() < 0.05 * (tables[:, 0] - tables[:, 2]).norm()
        assert tables.sum(0).std() == pytest.approx(1, rel=0.2)  # as one look by itself


@pytest.mark.parametrize("change", [{"n_actions": 0}, {"width": 0}, {"code_shape": (0, 6)}, {"reward_values": ()}])
def test_a_prior_of_no_size_is_refused(change: dict[str, Any]) -> None:
    with pytest.raises(UserError, match="A prior"):
        DynamicsConfig(**{"code_shape": (6, 6), "num_codes": 4, "n_actions": 2, "reward_values": (0.0,), **change})
