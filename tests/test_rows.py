"""Random rows: what an item is, and what it depends on."""

import pytest
import torch
from torch.utils.data import DataLoader

from worldmodel.errors import UserError
from worldmodel.rows import RandomRows


def numbered(n: int) -> dict[str, torch.Tensor]:
    return {"images": torch.arange(n)[:, None].repeat(1, 3), "labels": torch.arange(n)}


def drawn(rows: int = 100, **options: int) -> list[int]:
    data = RandomRows(numbered(rows), **{"size": 50, "seed": 7, **options})
    return [int(data[i]["labels"]) for i in reversed(range(50))]


def test_an_item_is_one_row_of_every_field() -> None:
    for item in (data := RandomRows(numbered(9), size=50)):
        assert torch.equal(item["images"], item["labels"].expand(3))
    assert len(data) == 50


def test_every_row_is_as_likely_as_any_other() -> None:
    counts = torch.bincount(torch.stack([item["labels"] for item in RandomRows(numbered(5), size=6000)]))
    assert ((counts - 1200) ** 2 / 1200).sum() < 18.5  # chi-squared, 4 degrees: one in a thousand


def test_an_item_depends_on_its_seed_and_its_number_alone() -> None:
    assert drawn() == drawn() == drawn(size=1000)
    assert drawn() != drawn(seed=8)


def test_workers_give_the_same_rows() -> None:
    data = RandomRows(numbered(20), size=12)
    loader = DataLoader(data, batch_size=4, num_workers=2, multiprocessing_context="fork")
    here = torch.stack([data[i]["images"] for i in range(12)])
    assert torch.equal(torch.cat([batch["images"] for batch in loader]), here)


def test_only_so_many_rows_exist() -> None:
    data = RandomRows(numbered(3), size=5)
    for i in (5, -1):
        with pytest.raises(IndexError):
            data[i]
    with pytest.raises(UserError, match="nothing to learn from"):
        RandomRows(numbered(0), size=5)
