"""Mu-law: 256 classes of samples, and back."""

import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.mu_law import mu_law, wave_of


def test_mu_law_takes_every_class_back_to_itself_and_knows_its_limits() -> None:
    classes = torch.arange(256, dtype=torch.uint8)
    waves = wave_of(classes)
    assert torch.equal(mu_law(waves), classes)
    assert waves.diff().min() > 0
    assert (waves[0], waves[-1]) == (-1, 1)
    assert mu_law(torch.tensor([-9.0, 0.0, 9.0])).tolist() == [0, 128, 255]


@given(st.floats(-1, 1, width=32))
def test_mu_law_is_off_by_half_a_class_at_most(sample: float) -> None:
    wave = torch.tensor([sample])
    there = float(wave_of(mu_law(wave)))
    assert abs(there - sample) <= (abs(sample) + 1 / 255) * (256 ** (1 / 255) - 1) + 1e-6
