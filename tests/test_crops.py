"""Crops of utterances: pieces of what somebody said, from each utterance its share, the same whenever asked for."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy.stats import chisquare

from worldmodel.crops import Crops
from worldmodel.errors import UserError
from worldmodel.rows import BLOCK


def crops_of(utterances: list[np.ndarray], speakers: list[int], length: int, seed: int = 0) -> Crops:
    said = [torch.from_numpy(utterance).to(torch.uint8) for utterance in utterances]
    return Crops(said, torch.tensor(speakers), length, seed)


def counting(*lengths: int, length: int, seed: int = 0) -> Crops:
    """Crops of utterances, each of a speaker of its own, of classes that count from 0, and from 255 to 0 again."""
    return crops_of([np.arange(n) % 256 for n in lengths], list(range(len(lengths))), length, seed)


@settings(max_examples=40)
@given(
    st.lists(st.tuples(st.integers(1, 60), st.integers(0, 2)), min_size=1, max_size=5),
    st.integers(1, 70),
    st.integers(0, 2**31),
)
def test_a_crop_is_a_piece_of_what_its_speaker_said_and_one_too_short_is_said_again(
    utterances: list[tuple[int, int]], length: int, seed: int
) -> None:
    lengths, speakers = zip(*utterances, strict=True)
    rng = np.random.default_rng(seed)
    said = [rng.integers(256, size=n) for n in lengths]
    batch = crops_of(said, list(speakers), length, seed).batch(0, 30)
    assert (batch["classes"].dtype, batch["speakers"].dtype) == (torch.uint8, torch.int64)
    assert (batch["classes"].shape, batch["speakers"].shape) == ((30, length), (30,))
    for classes, speaker in zip(batch["classes"], batch["speakers"].tolist(), strict=True):
        own = [u.tolist() * -(-length // len(u)) for u, s in zip(said, speakers, strict=True) if s == speaker]
        assert any(bytes(classes.tolist()) in bytes(utterance) for utterance in own)


def test_an_utterance_is_drawn_as_often_as_its_share_of_all_samples() -> None:
    lengths = [30, 400, 1, 1500, 99, 100, 101]  # shorter and longer than a crop
    speakers = counting(*lengths, length=100).batch(0, 20_000)["speakers"]
    expected = 20_000 * np.array(lengths) / sum(lengths)
    assert chisquare(torch.bincount(speakers, minlength=7).numpy(), expected).pvalue > 0.001


def test_a_crop_begins_anywhere_in_its_utterance() -> None:
    first = counting(256, length=57).batch(0, 20_000)["classes"][:, 0]
    assert chisquare(torch.bincount(first, minlength=200).numpy()).pvalue > 0.001  # 0 to 199, and none behind


def test_an_utterance_as_long_as_a_crop_is_taken_whole() -> None:
    classes = counting(57, length=57).batch(0, 10)["classes"]
    assert torch.equal(classes, torch.arange(57, dtype=torch.uint8).expand(10, 57))


def test_items_are_the_same_one_by_one() -> None:
    crops = counting(300, 100, 7, length=50, seed=3)
    batch, items = crops.batch(3, 5), [crops.batch(i, 1) for i in range(3, 8)]
    for name, values in batch.items():
        assert torch.equal(values, torch.cat([item[name] for item in items]))


@settings(max_examples=30)
@given(st.integers(0, 3 * BLOCK), st.integers(1, 2 * BLOCK), st.integers(0, 2**63))
def test_an_item_depends_on_its_seed_and_its_number_alone(first: int, size: int, seed: int) -> None:
    whole = counting(300, 100, 7, length=2, seed=seed).batch(0, 5 * BLOCK)
    part = counting(300, 100, 7, length=2, seed=seed).batch(first, size)
    for name, values in part.items():
        assert torch.equal(values, whole[name][first : first + size])


def test_another_seed_draws_other_crops() -> None:
    one, other = (counting(256, length=2, seed=seed).batch(0, 5 * BLOCK)["classes"][:, 0] for seed in (7, 8))
    assert (one == other).float().mean() < 0.01  # 1 in 255 by chance
    assert (one[:BLOCK] == one[BLOCK : 2 * BLOCK]).float().mean() < 0.02  # nor do blocks repeat each other


def test_there_is_something_to_learn_from() -> None:
    with pytest.raises(UserError, match="nothing to learn from: not one utterance"):
        Crops([], torch.zeros(0), 10)
