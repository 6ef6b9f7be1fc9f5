"""The critic of pictures: what it and the maker of pictures learn of each other."""

import math

import pytest
import torch

from worldmodel.critic import Critic


def test_each_opinion_is_of_a_patch_of_22_pixels() -> None:
    torch.manual_seed(0)
    critic = Critic().double()
    picture = torch.zeros(1, 3, 64, 64, dtype=torch.float64, requires_grad=True)
    # Without what the normalisation, which sees all, makes of the whole picture.
    layers = torch.nn.Sequential(*(layer for layer in critic.layers if not isinstance(layer, torch.nn.GroupNorm)))
    layers(picture)[0, 0, 4, 4].backward()
    assert picture.grad is not None
    seen = picture.grad[0].abs().sum(0).nonzero()
    assert (seen.max(0).values - seen.min(0).values + 1).tolist() == [22, 22]


def test_the_losses_are_those_of_a_game_whose_players_leave_each_other_alone() -> None:
    torch.manual_seed(0)
    critic = Critic()
    real, made = torch.rand(2, 3, 24, 24) - 0.5, (torch.rand(2, 3, 24, 24) - 0.5).requires_grad_()
    told_apart, taken_for_real = critic.losses(real, made)
    with torch.no_grad():
        right, wrong = critic(real).sigmoid(), critic(made).sigmoid()
    assert told_apart.item() == pytest.approx(-float(right.log().mean() + (1 - wrong).log().mean()), rel=1e-4)
    assert taken_for_real.item() == pytest.approx(-float(wrong.log().mean()), rel=1e-4)
    told_apart.backward()
    assert made.grad is None and all(weight.grad is not None for weight in critic.parameters())
    critic.zero_grad()
    taken_for_real.backward()
    assert made.grad is not None and made.grad.abs().sum() > 0
    assert all(weight.grad is None for weight in critic.parameters())


def test_what_is_made_comes_to_look_like_what_is_real() -> None:
    torch.manual_seed(0)
    critic, made = Critic(), torch.nn.Parameter(torch.full((4, 3, 24, 24), -0.3))
    optimizers = torch.optim.Adam(critic.parameters(), 1e-3), torch.optim.Adam([made], 2e-2)
    for _ in range(60):
        stripes = torch.sin(torch.arange(24) * math.pi / 3) * 0.3
        losses = critic.losses(stripes.expand(4, 3, 24, 24) + 0.02 * torch.randn(4, 3, 24, 24), made)
        sum(losses, torch.zeros(())).backward()
        for optimizer in optimizers:
            optimizer.step()
            optimizer.zero_grad()
    assert torch.corrcoef(torch.stack([made.detach().mean((0, 1, 2)), stripes]))[0, 1] > 0.5
