"""The measures say what they claim: checked against brute force and against pictures whose value is known."""

import math
import os
import sys
from pathlib import Path

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from envs.dmlab_fruit import apples, lemons
from worldmodel.errors import UserError
from worldmodel.importers import open_source
from worldmodel.metrics import gradient_energy, mask_iou, psnr, roc_auc, ssim


def noise(*shape: int, seed: int = 0) -> torch.Tensor:
    generator = torch.Generator().manual_seed(seed)
    return torch.randint(256, shape, generator=generator, dtype=torch.uint8)


@given(st.integers(0, 200), st.integers(1, 55))
def test_psnr_of_a_constant_error(level: int, error: int) -> None:
    frames = torch.full((2, 5, 4, 4, 3), level, dtype=torch.uint8)
    expected = 20 * math.log10(255 / error)
    np.testing.assert_allclose(psnr(frames + error, frames), np.full((2, 5), expected), rtol=1e-5)


def test_psnr_of_identical_frames_is_what_rounding_leaves() -> None:
    frames = noise(2, 5, 4, 4, 3)
    np.testing.assert_allclose(psnr(frames, frames), np.full((2, 5), 58.92), atol=0.01)


def test_ssim_is_one_for_the_same_picture_and_falls_with_noise() -> None:
    frames = noise(2, 3, 16, 16, 3)
    assert torch.allclose(ssim(frames, frames), torch.ones(2, 3))
    assert (ssim(frames, noise(2, 3, 16, 16, 3, seed=1)) < 0.2).all()


def test_ssim_of_a_frame_is_its_own_whatever_else_is_in_the_batch() -> None:
    frames, truth = noise(70, 16, 16, 3), (noise(70, 16, 16, 3, seed=1) // 4) * 3
    together = ssim(frames, truth)
    assert together.shape == (70,)
    assert torch.allclose(together[66], ssim(frames[66:67], truth[66:67])[0], atol=1e-6)


def test_ssim_without_its_library_names_the_extra(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setitem(sys.modules, "torchmetrics.functional.image", None)
    with pytest.raises(UserError, match=r"worldmodel\[metrics\]"):
        ssim(noise(1, 16, 16, 3), noise(1, 16, 16, 3))


def test_gradient_energy_of_known_pictures() -> None:
    flat = torch.full((1, 8, 8, 3), 90, dtype=torch.uint8)
    stripes = torch.zeros(1, 8, 8, 3, dtype=torch.uint8)
    stripes[:, ::2] = 255  # every step down is a full one, none across
    assert gradient_energy(flat).tolist() == [0]
    assert gradient_energy(stripes).tolist() == [1]


def test_gradient_energy_falls_with_blur() -> None:
    sharp = noise(4, 16, 16, 3)
    blurred = torch.nn.functional.avg_pool2d(sharp.movedim(-1, 1).float(), 3, stride=1).movedim(1, -1).byte()
    assert (gradient_energy(blurred) < gradient_energy(sharp) / 4).all()


pixels = st.sets(st.integers(0, 11))


@given(pixels, pixels)
def test_mask_iou_is_that_of_the_sets(one: set[int], other: set[int]) -> None:
    a, b = (torch.tensor([i in chosen for i in range(12)]).view(3, 4) for chosen in (one, other))
    if one | other:
        assert mask_iou(a, b) == pytest.approx(len(one & other) / len(one | other))
    else:
        assert math.isnan(mask_iou(a, b))


@given(st.lists(st.tuples(st.integers(-3, 3), st.booleans()), min_size=1, max_size=30))
def test_auc_is_the_share_of_pairs_in_the_right_order(scored: list[tuple[int, bool]]) -> None:
    positive, negative = ([s for s, label in scored if label is kind] for kind in (True, False))
    auc = roc_auc(torch.tensor([float(s) for s, _ in scored]), torch.tensor([label for _, label in scored]))
    if positive and negative:
        pairs = [(p > n) + (p == n) / 2 for p in positive for n in negative]
        assert auc == pytest.approx(sum(pairs) / len(pairs))
    else:
        assert math.isnan(auc)


def test_the_colour_rule_knows_fruit_from_the_rest() -> None:
    colours = {"apple": (160, 20, 10), "lemon": (200, 210, 40), "grass": (60, 140, 40), "wall": (150, 140, 130)}
    frames = torch.tensor(list(colours.values()), dtype=torch.uint8)[:, None, None].expand(-1, 84, 84, -1)
    red, yellow = apples(frames), lemons(frames)
    view = [name for name, mask in zip(colours, red, strict=True) if mask.any()]
    assert view == ["apple"]
    assert [name for name, mask in zip(colours, yellow, strict=True) if mask.any()] == ["lemon"]
    for mask in (red[0], yellow[1]):  # all of the view, nothing of the display at its foot
        assert mask[:76].all()
        assert not mask[76:].any()


@given(st.tuples(*[st.integers(0, 255)] * 3))
def test_the_colour_rule_is_the_stated_one(colour: tuple[int, int, int]) -> None:
    r, g, b = colour
    frame = torch.tensor(colour, dtype=torch.uint8).expand(1, 1, 3)
    assert bool(apples(frame)) == (r >= 50 and r >= 3 * g and r >= 3 * b)
    assert bool(lemons(frame)) == (g >= 70 and 2 * g >= 1.8 * r and r >= 0.75 * g and g >= 2.5 * b)


@pytest.mark.skipif("WORLDMODEL_DATA" not in os.environ, reason="WORLDMODEL_DATA is not set")
def test_fruit_is_in_view_before_it_is_eaten() -> None:
    folder = Path(os.environ["WORLDMODEL_DATA"]) / "dmlab/seekavoid_arena_01/test"
    source = open_source(str(folder))
    frames, rewards = [], []
    for i in range(2):
        episode = source.read(i)
        frames.append(torch.from_numpy(episode.frames[:-1]))
        rewards.append(torch.from_numpy(episode.rewards))
    for mask, reward in ((apples, 1), (lemons, -1)):
        size = mask(torch.cat(frames)).sum((1, 2)).float()
        assert size[torch.cat(rewards) == reward].mean() > 3 * size.mean()
