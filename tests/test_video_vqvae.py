"""The video VQ-VAE never looks ahead, and piece by piece is the same as all at once."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from worldmodel.errors import UserError
from worldmodel.video import VideoConfig, VideoVQVAE, video_preset


def model(memory: int = 3) -> VideoVQVAE:
    torch.manual_seed(0)
    config = VideoConfig(frame_size=(12, 20), strides=(2, 2), width=16, num_codes=32, code_dim=4, memory=memory)
    video = VideoVQVAE(config).double().eval()
    for p in video.parameters():  # the residual blocks start as the identity: make them matter
        p.data += 0.1 * torch.randn_like(p)
    return video


def film(length: int, batch: int = 2) -> torch.Tensor:
    return torch.randint(0, 256, (batch, length, 12, 20, 3), dtype=torch.uint8)


@pytest.mark.parametrize("memory", [1, 2, 4])
def test_codes_depend_on_no_later_frame_and_pictures_on_no_later_code(memory: int) -> None:
    video, frames = model(memory), film(8)
    codes = video.encode(frames)
    decoded = video.decode(codes)
    for t in range(1, 8):
        frames_after, codes_after = frames.clone(), codes.clone()
        frames_after[:, t:] = 255 - frames_after[:, t:]
        codes_after[:, t:] = (codes_after[:, t:] + 1) % 32
        changed = video.encode(frames_after)
        assert torch.equal(changed[:, :t], codes[:, :t]) and not torch.equal(changed[:, t], codes[:, t])
        assert torch.equal(video.decode(codes_after)[:, :t], decoded[:, :t])


def test_codes_do_depend_on_the_past_within_reach() -> None:
    video, frames = model(memory=3), film(6)
    before = frames.clone()
    before[:, 2] = 255 - before[:, 2]
    same = (video.encode(before) == video.encode(frames)).flatten(2).all(2).all(0)  # [T]
    assert same.tolist() == [True, True, False, False, False, True]


@settings(max_examples=15)
@given(st.lists(st.integers(1, 4), min_size=1, max_size=5), st.integers(1, 4))
def test_streaming_equals_the_whole_clip(pieces: list[int], memory: int) -> None:
    video, frames = model(memory), film(sum(pieces))
    codes = video.encode(frames)
    decoded = video.decode(codes)
    done = 0
    for piece in pieces:
        here = slice(done, done + piece)
        frames_past, codes_past = (x[:, :done] if done else None for x in (frames, codes))
        assert torch.equal(video.encode(frames[:, here], frames_past), codes[:, here])
        assert torch.equal(video.decode(codes[:, here], codes_past), decoded[:, here])
        done += piece


def test_a_batch_is_its_rows() -> None:
    video, frames = model(), film(4, batch=3)
    codes = video.encode(frames)
    for row in range(3):
        assert torch.equal(video.encode(frames[row : row + 1])[0], codes[row])
        assert torch.equal(video.decode(codes[row : row + 1])[0], video.decode(codes)[row])


@pytest.mark.parametrize(
    "codes", [torch.zeros(1, 1, 2, 5).long(), torch.zeros(1, 3, 5).long(), torch.zeros(1, 1, 3, 5)]
)
def test_codes_of_another_grid_or_type_are_refused(codes: torch.Tensor) -> None:
    with pytest.raises(UserError, match=r"Codes are int64 \[B, T, 3, 5\]"):
        model().decode(codes)


def test_presets_have_the_shapes_they_promise() -> None:
    paper, compact = video_preset("paper", (84, 84)), video_preset("compact", (84, 84))
    assert paper.code_shape == (21, 21) and paper.num_codes == 512
    assert compact.code_shape == (12, 12)
    for config in (paper, compact):
        video = VideoVQVAE(config).eval()
        frames = torch.randint(0, 256, (1, 2, 84, 84, 3), dtype=torch.uint8)
        codes = video.encode(frames)
        assert codes.shape == (1, 2, *config.code_shape) and codes.dtype == torch.int64
        assert video.decode(codes).shape == frames.shape and video.decode(codes).dtype == torch.uint8


@pytest.mark.parametrize("size", [(64, 64), (96, 96), (210, 160), (128, 96), (84, 84)])
def test_compact_codes_are_about_twelve_a_side_whatever_the_frames(size: tuple[int, int]) -> None:
    assert 6 <= min(video_preset("compact", size).code_shape) <= 24


def test_frames_that_do_not_divide_into_patches_are_refused() -> None:
    with pytest.raises(UserError, match="do not divide"):
        VideoConfig(frame_size=(80, 84))


def test_the_loss_is_the_weighted_reconstruction_plus_the_codebook_terms() -> None:
    video, frames = model(), film(3)
    out = video(frames, torch.full(frames.shape[:-1], 2.0))
    truth = frames.movedim(-1, 1).double() / 255 - 0.5
    torch.testing.assert_close(out.reconstruction, 2 * (out.frames - truth).abs().mean().double(), rtol=1e-5, atol=1e-6)
    assert out.total > out.reconstruction
