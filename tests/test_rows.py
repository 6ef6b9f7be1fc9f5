"""Random rows: what an item is, and what it depends on."""

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from worldmodel.errors import UserError
from worldmodel.rows import BLOCK, RandomRows


def numbered(n: int) -> dict[str, torch.Tensor]:
    return {"images": torch.arange(n)[:, None].repeat(1, 3), "labels": torch.arange(n)}


def test_an_item_is_one_row_of_every_field() -> None:
    batch = RandomRows(numbered(9)).batch(3, 50)
    assert torch.equal(batch["images"], batch["labels"][:, None].expand(50, 3))


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = torch.bincount(RandomRows(numbered(5)).batch(0, 6000)["labels"])
    assert ((counts - 1200) ** 2 / 1200).sum() < 18.5  # chi-squared, 4 degrees: one in a thousand


@given(st.integers(0, 3 * BLOCK), st.integers(1, 2 * BLOCK))
def test_an_item_depends_on_its_seed_and_its_number_alone(first: int, size: int) -> None:
    whole = RandomRows(numbered(1000), seed=7).batch(0, 5 * BLOCK)["labels"]
    assert torch.equal(RandomRows(numbered(1000), seed=7).batch(first, size)["labels"], whole[first : first + size])
    other = RandomRows(numbered(1000), seed=8).batch(0, 5 * BLOCK)["labels"]
    assert (other == whole).float().mean() < 0.01


def test_there_is_something_to_learn_from() -> None:
    with pytest.raises(UserError, match="nothing to learn from"):
        RandomRows(numbered(0))
