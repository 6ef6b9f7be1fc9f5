"""The video VQ-VAE: frames to a grid of discrete codes each and back, causal in time (§4.4 of the paper)."""

import math
from dataclasses import dataclass

import torch
from einops import rearrange
from torch import Tensor, nn

from worldmodel.blocks import ResidualBlock
from worldmodel.described import described
from worldmodel.digest import digest
from worldmodel.errors import UserError
from worldmodel.quantizer import VectorQuantizer


@dataclass(frozen=True)
class VideoConfig:
    """The shape of a video VQ-VAE."""

    frame_size: tuple[int, int] = (84, 84)
    """Height and width of a frame in pixels."""
    strides: tuple[int, ...] = (7,)
    """Downsampling factors, in order; their product is the side of the patch that one code stands for."""
    width: int = 128
    """Channels of the encoder and the decoder."""
    encoder_blocks: int = 3
    decoder_blocks: int = 3
    encoder_kernel: int = 1
    """Side of the encoder's residual convolutions. With 1, a code is about its own patch and nothing beside it:
    what stands there looks the same to the prior wherever it is seen."""
    memory: int = 2
    """Frames that the encoder and the decoder see: frame t's codes depend on frames t-memory+1 to t, and its
    picture on the codes of the same frames."""
    num_codes: int = 512
    code_dim: int = 16
    ema_decay: float | None = 0.97
    unit_norm: bool = True
    loss: str = "rare-l1"
    """"mse" (the paper's) or "rare-l1": absolute error that counts rare colours more."""

    def __post_init__(self) -> None:
        if not 1 <= self.num_codes <= 2**15:
            raise UserError(f"A dictionary has 1 to {2**15} codes, not {self.num_codes}.")
        if self.loss not in ("mse", "rare-l1"):
            raise UserError(f'The loss is "mse" or "rare-l1", not "{self.loss}".')
        if len(self.frame_size) != 2:
            raise UserError(f"A frame has a height and a width, not {self.frame_size}.")
        sizes = (*self.frame_size, *self.strides, self.width, self.encoder_blocks, self.decoder_blocks, self.memory)
        if min(sizes) < 1 or self.encoder_kernel % 2 != 1:
            raise UserError("A video VQ-VAE's sizes are 1 or more, and its kernel is odd.")
        if any(side % math.prod(self.strides) for side in self.frame_size):
            raise UserError(
                f"Frames of {self.frame_size[0]}x{self.frame_size[1]} do not divide into patches of side "
                f"{math.prod(self.strides)}; choose strides whose product divides both sides."
            )

    @property
    def code_shape(self) -> tuple[int, int]:
        """Rows and columns of a frame's grid of codes."""
        patch = math.prod(self.strides)
        return self.frame_size[0] // patch, self.frame_size[1] // patch


def video_preset(name: str, frame_size: tuple[int, int]) -> VideoConfig:
    """The tokenizer for frames of a size: "compact", about 12x12 codes a frame, or "paper", a quarter of each side.

    Raises `UserError` when the frames do not divide so.
    """
    if name not in ("compact", "paper"):
        raise UserError(f'The presets are "compact" and "paper", not "{name}".')
    if name == "paper":
        return VideoConfig(
            frame_size,
            strides=(2, 2),
            width=128,
            encoder_blocks=2,
            encoder_kernel=3,
            decoder_blocks=2,
            code_dim=64,
            ema_decay=None,
            unit_norm=False,
            loss="mse",
        )
    common, short = math.gcd(*frame_size), min(frame_size)
    patch = min((p for p in range(1, common + 1) if common % p == 0), key=lambda p: abs(short / p - 12))
    if not 6 <= short / patch <= 24:
        raise UserError(
            f"Frames of {frame_size[0]}x{frame_size[1]} do not divide into about 12x12 patches; record them at a size "
            "with more common divisors, such as 84x84, 96x96 or 64x64."
        )
    return VideoConfig(frame_size, strides=(patch,))


@dataclass
class VideoLoss:
    """The terms of eq. 3 for a batch, with what a person watches while it trains."""

    total: Tensor  # scalar
    reconstruction: Tensor  # scalar: the decoder's term
    frames: Tensor  # float [B, 3, T, H, W], the reconstruction
    codes: Tensor  # int64 [B, T, h, w]


class VideoVQVAE(nn.Module):
    """Encoder, codebook and deterministic decoder over [B, channels, time, height, width].

    Time is neither strided nor looked ahead in. Only the first layer of the encoder and of the decoder reaches back,
    by `config.memory - 1` frames, so streaming needs nothing but those frames (or their codes): pass them as `past`.
    Where nothing came before, the first frame stands in for its own past.
    """

    def __init__(self, config: VideoConfig) -> None:
        super().__init__()
        self.config = config
        width, dim = config.width, config.code_dim
        stem: list[nn.Module] = []
        channels = 3
        for i, stride in enumerate(config.strides):
            time = config.memory if i == 0 else 1
            stem += [_SpaceToDepth(stride), _conv(channels * stride**2, width, 1 if stride > 4 else 3, time=time)]
            channels = width
        self.encoder = nn.Sequential(
            *stem,
            *(ResidualBlock(width, _conv, config.encoder_kernel) for _ in range(config.encoder_blocks)),
            nn.ReLU(),
            _conv(width, dim, 1),
        )
        self.quantizer = VectorQuantizer(config.num_codes, dim, ema_decay=config.ema_decay, unit_norm=config.unit_norm)
        head: list[nn.Module] = []
        for i, stride in enumerate(reversed(config.strides)):
            last = i == len(config.strides) - 1
            channels = 3 if last else width
            head += [nn.ReLU(), _conv(width, channels * stride**2, 3), _DepthToSpace(stride)]
        self.decoder = nn.Sequential(
            _conv(dim, width, 3, time=config.memory),
            *(ResidualBlock(width, _conv) for _ in range(config.decoder_blocks)),
            *head,
        )

    @property
    def device(self) -> torch.device:
        return self.quantizer.embedding.device

    @torch.no_grad()
    def encode(self, frames: Tensor, past: Tensor | None = None) -> Tensor:
        """Codes, int64 [B, T, h, w], of frames, uint8 [B, T, H, W, 3] on any device.

        `past`, uint8 [B, P, H, W, 3], are the frames that came just before, when the video is encoded piece by piece.
        Raises `UserError` for frames of another size or type.
        """
        self.check_frames(frames)
        return self.quantizer.encode(self.encoder(self._floats(self._with_past(frames, past).to(self.device))))

    def codebook_fingerprint(self) -> str:
        """A short name for what the codes mean, the same in any precision that holds the saved weights."""
        return digest([self.quantizer.embedding.detach().bfloat16().float()])

    def check_frames(self, frames: Tensor) -> None:
        """Raise `UserError` unless they are what `encode` takes."""
        shape = (*self.config.frame_size, 3)
        if not isinstance(frames, Tensor):
            raise UserError(f"The model sees frames as tensors, not as {described(frames)}.")
        if frames.dtype != torch.uint8 or tuple(frames.shape[2:]) != shape or not frames.numel():
            raise UserError(
                f"The model sees tensors of uint8 frames [B, T, {', '.join(map(str, shape))}], not {described(frames)}."
            )

    @torch.no_grad()
    def decode(self, codes: Tensor, past: Tensor | None = None) -> Tensor:
        """Frames, uint8 [B, T, H, W, 3], of codes, int64 [B, T, h, w]; `past`: codes [B, P, h, w] that came before.

        Raises `UserError` for codes of another grid or type.
        """
        grid = self.config.code_shape
        if codes.dtype != torch.int64 or codes.ndim != 4 or tuple(codes.shape[2:]) != grid:
            raise UserError(f"Codes are int64 [B, T, {', '.join(map(str, grid))}], not {described(codes)}.")
        return to_frames(self.decoder(self.quantizer.lookup(self._with_past(codes, past).to(self.device))))

    def forward(self, frames: Tensor, weight: Tensor | None = None) -> VideoLoss:
        """Eq. 3 on frames, uint8 [B, T, H, W, 3]; `weight`, float [B, T, H, W], says how much each pixel counts."""
        quantized = self.quantizer(self.encoder(self._floats(self._with_past(frames, None))))
        vectors = quantized.vectors
        past = vectors[:, :, :1].expand(-1, -1, self.config.memory - 1, -1, -1)
        decoded = self.decoder(torch.cat([past, vectors], 2))
        video = self._floats(frames)
        error = (decoded - video).square() if self.config.loss == "mse" else (decoded - video).abs()
        if weight is not None:
            error = error * weight[:, None]
        reconstruction = error.mean()
        return VideoLoss(reconstruction + quantized.loss, reconstruction, decoded.detach(), quantized.codes)

    def _floats(self, frames: Tensor) -> Tensor:
        """uint8 [B, T, H, W, 3] -> [B, 3, T, H, W] in [-0.5, 0.5], in the encoder's precision."""
        dtype = next(self.encoder.parameters()).dtype
        return rearrange(frames, "b t h w c -> b c t h w").to(dtype) / 255 - 0.5

    def _with_past(self, clip: Tensor, past: Tensor | None) -> Tensor:
        """`clip` [B, T, ...] with exactly `memory - 1` frames before it."""
        reach = self.config.memory - 1
        if past is not None:
            clip_start = max(past.shape[1] - reach, 0)
            clip, missing = torch.cat([past[:, clip_start:], clip], 1), reach - (past.shape[1] - clip_start)
        else:
            missing = reach
        return torch.cat([clip[:, :1]] * missing + [clip], 1)


def to_frames(video: Tensor) -> Tensor:
    """float [B, 3, T, H, W] -> uint8 [B, T, H, W, 3], clipped to the range that a screen can show."""
    rounded = video.float().mul(255).add_(128).clamp_(0, 255).to(torch.uint8)  # (v + 0.5) * 255, and 0.5 to round
    return rearrange(rounded, "b c t h w -> b t h w c")


def _conv(inputs: int, outputs: int, space: int, time: int = 1) -> nn.Conv3d:
    """A convolution over `time` frames up to the present one (it pads no time: the caller brings the past)."""
    return nn.Conv3d(inputs, outputs, (time, space, space), padding=(0, space // 2, space // 2))


class _SpaceToDepth(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        f = self.factor
        x = rearrange(x, "b c t (h p) (w q) -> b t h w (c p q)", p=f, q=f)
        return x.permute(0, 4, 1, 2, 3)  # channels last in memory


class _DepthToSpace(nn.Module):
    def __init__(self, factor: int) -> None:
        super().__init__()
        self.factor = factor

    def forward(self, x: Tensor) -> Tensor:
        f = self.factor
        x = rearrange(x, "b (c p q) t h w -> b t (h p) (w q) c", p=f, q=f)
        return x.permute(0, 4, 1, 2, 3)  # channels last in memory
