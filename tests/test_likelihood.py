"""Likelihoods of 8-bit pixels are distributions, and their bits are counted as they should be."""

import math

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.likelihood import LIKELIHOODS, Categorical, DiscretizedLogistic, bits_per_dim

ALL_VALUES = torch.arange(256).to(torch.uint8)[:, None, None, None].expand(-1, 1, 1, 3)  # [256, 1, 1, 3]


@given(st.floats(-1, 1), st.floats(-20, 10))
def test_a_discretized_logistic_sums_to_one_over_the_256_values(mean: float, log_scale: float) -> None:
    outputs = torch.tensor([mean, log_scale] * 3, dtype=torch.float64)[:, None, None].expand(256, -1, -1, -1)
    nats = torch.stack([_alone(DiscretizedLogistic(), outputs, c) for c in range(3)])
    torch.testing.assert_close(nats.neg().exp().sum(1), torch.ones(3, dtype=torch.float64))


def test_a_softmax_sums_to_one_over_the_256_values() -> None:
    outputs = torch.randn(1, 3 * 256, 1, 1, dtype=torch.float64).expand(256, -1, -1, -1)
    for colour in range(3):
        total = _alone(Categorical(), outputs, colour).neg().exp().sum()
        torch.testing.assert_close(total, torch.ones((), dtype=torch.float64))


def _alone(likelihood: Categorical | DiscretizedLogistic, outputs: torch.Tensor, colour: int) -> torch.Tensor:
    """Nats of each value in one colour, [256], the other colours held at a value."""
    held = torch.full((256, 1, 1, 3), 7, dtype=torch.uint8)
    changed = held.clone()
    changed[..., colour] = ALL_VALUES[..., colour]
    size = likelihood.outputs
    nats = likelihood.nats(outputs, changed)
    three = likelihood.nats(outputs, held)
    own = outputs[:, colour * size : (colour + 1) * size]
    same = own.repeat(1, 3, 1, 1)
    one = likelihood.nats(same, held) / 3  # the held value, under this colour's distribution
    return nats - three + one


@pytest.mark.parametrize("value", [0, 1, 100, 254, 255])
def test_a_discretized_logistic_is_a_difference_of_sigmoids(value: int) -> None:
    mean, scale = 0.1, 0.03
    outputs = torch.tensor([mean, math.log(scale)] * 3, dtype=torch.float64)[None, :, None, None]
    image = torch.full((1, 1, 1, 3), value, dtype=torch.uint8)

    def cdf(edge: float) -> float:
        if edge < 0 or edge > 255:
            return float(edge > 255)
        return 1 / (1 + math.exp(-(edge / 255 - 0.5 - mean) / scale))

    expected = -3 * math.log(cdf(value + 0.5) - cdf(value - 0.5))
    assert DiscretizedLogistic().nats(outputs, image).item() == pytest.approx(expected)


def test_each_sub_pixel_is_judged_by_its_own_outputs() -> None:
    image = torch.randint(256, (1, 4, 6, 3), dtype=torch.uint8)
    for name, likelihood in LIKELIHOODS.items():
        outputs = torch.randn(1, 3 * likelihood.outputs, 4, 6, requires_grad=True)
        other = image.clone()
        other[0, 1, 2, 1] = 255 - other[0, 1, 2, 1]
        change = likelihood.nats(outputs, image) - likelihood.nats(outputs, other)
        (gradient,) = torch.autograd.grad(change.sum(), outputs)
        felt = gradient[0].unflatten(0, (3, likelihood.outputs)).abs().sum(1).nonzero().tolist()
        assert felt == [[1, 1, 2]], name


def test_the_best_picture_is_the_one_that_the_outputs_describe() -> None:
    image = torch.randint(256, (2, 4, 4, 3), dtype=torch.uint8)
    floats = image.permute(0, 3, 1, 2) / 255 - 0.5
    logits = torch.nn.functional.one_hot(image.long(), 256).permute(0, 3, 4, 1, 2).flatten(1, 2)
    scale = torch.full_like(floats, -5.0)
    described = {"categorical": logits, "logistic": torch.stack([floats, scale], 2).flatten(1, 2), "mse": floats}
    for name, likelihood in LIKELIHOODS.items():
        assert torch.equal(likelihood.best(described[name]), image), name
        uncertain = likelihood.nats(described[name], 255 - image)
        assert (likelihood.nats(described[name], image) < uncertain).all()


def test_a_uniform_pixel_takes_eight_bits() -> None:
    image = torch.randint(256, (2, 4, 6, 3), dtype=torch.uint8)
    nats = Categorical().nats(torch.zeros(2, 768, 4, 6), image)
    torch.testing.assert_close(bits_per_dim(nats, (4, 6)), torch.full((2,), 8.0))
