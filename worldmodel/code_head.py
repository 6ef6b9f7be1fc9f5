"""p(codes of a frame | context), autoregressive within the frame; the last part of the prior."""

from collections.abc import Sequence

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.drawing_order import looks, offsets, plan
from worldmodel.sampling import invert_cdf

FEW = 32  # rows up to which a matrix product is faster in float32 than in bfloat16, which costs a preparation


class CodeHead(nn.Module):
    """Draws the codes of a frame group by group: one code a group in raster order, one anti-diagonal in diagonal order.

    The first layer sees the codes of earlier groups (masked convolution, type A), the second the first layer's
    features of earlier groups and of its own (type B), so within a group the codes are independent given all earlier
    groups, and the product of all is an exact distribution.
    """

    def __init__(self, code_shape: tuple[int, int], num_codes: int, width: int, order: str) -> None:
        super().__init__()
        self.rows, self.columns = code_shape
        self.order = order
        self.embed = nn.Embedding(num_codes, width // 2)
        self.before = _MaskedConv(width // 2, width, 5, [o for o in offsets(5) if self._rank(*o) < 0])
        self.around = _MaskedConv(width, width, 3, [o for o in offsets(3) if self._rank(*o) <= 0])
        self.logits = nn.Conv2d(width, num_codes, 1)
        self.places, self._groups = plan(code_shape, self._rank)
        self._order: Tensor
        self._see_before: Tensor
        self._see_around: Tensor
        self._tap_rows: Tensor
        indices = {
            "_order": torch.tensor([i * self.columns + j for i, j in self.places]),  # [h*w]
            "_see_before": looks(self.places, self.before.offsets),
            "_see_around": looks(self.places, self.around.offsets),
            "_tap_rows": torch.arange(len(self.before.offsets)) * (num_codes + 1),
        }
        for name, index in indices.items():
            self.register_buffer(name, index, persistent=False)

    def _rank(self, row: int, column: int) -> int:
        """When a code at this offset is drawn: before (< 0), with (0) or after (> 0) the code at the centre."""
        return row + column if self.order == "diagonal" else row * self.columns + column

    def forward(self, context: Tensor, codes: Tensor) -> Tensor:
        """Logits, float [N, K, h, w], of all codes at once; `context` float [N, C, h, w], `codes` int64 [N, h, w]."""
        embedded = self.embed(codes).permute(0, 3, 1, 2)
        first = F.relu(context + self.before(embedded))
        second = F.relu(first + self.around(first))
        logits: Tensor = self.logits(second)
        return logits

    def draw(self, context: Tensor, uniforms: Tensor, temperature: float) -> tuple[Tensor, Tensor]:
        """Codes, int64 [N, h, w], and their log-probability, float [N] in nats; `uniforms` float [N, h*w].

        The same sums as in `forward`, of what each group adds: the first layer's are of looked up rows, one a code.
        """
        n, size, channels = len(context), self.rows * self.columns, context.shape[1]
        precision = context.dtype
        if n * min(self.rows, self.columns) <= FEW:
            precision = torch.promote_types(precision, torch.float32)
        context = context.to(precision)
        # From here on places stand in the order in which they are drawn.
        context = context.permute(0, 2, 3, 1).flatten(1, 2)[:, self._order] + self.before.bias
        uniforms = uniforms[:, self._order, None]
        table = self.before.of_each(F.pad(self.embed.weight, (0, 0, 0, 1))).to(precision)  # [taps * (K+1), C]
        # One place past the end, a code that adds nothing and features of zero: what lies beyond the frame's edge.
        codes = torch.full((n, size + 1), len(self.embed.weight), device=context.device)
        first = context.new_zeros(n, size + 1, channels)
        see_around = torch.arange(n, device=context.device)[:, None, None] * (size + 1) + self._see_around
        around = [p.to(precision) for p in self.around.taps()]
        out = [p.to(precision) / temperature for p in (self.logits.weight.flatten(1), self.logits.bias)]  # type: ignore[union-attr]
        probability = torch.empty_like(uniforms)
        for here in self._groups:
            looked_up = codes[:, self._see_before[here]] + self._tap_rows
            earlier = F.embedding_bag(looked_up.flatten(0, 1), table, mode="sum").view(n, -1, channels)
            new = earlier.add_(context[:, here]).relu_()
            first[:, here] = new
            neighbours = F.embedding(see_around[:, here], first.flatten(0, 1)).flatten(2)  # [N, n, taps * C]
            new = F.linear(neighbours, *around).add_(new).relu_()
            drawn = invert_cdf(F.linear(new, *out), uniforms[:, here])
            codes[:, here], probability[:, here] = drawn[0].squeeze(-1), drawn[1]
        frame = torch.empty_like(codes[:, :-1])
        frame[:, self._order] = codes[:, :-1]
        return frame.view(n, self.rows, self.columns), probability.log().sum((1, 2))


class _MaskedConv(nn.Module):
    """A convolution that sees only the given offsets (row, column) from its centre."""

    def __init__(self, inputs: int, outputs: int, side: int, offsets: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.offsets, self.side = offsets, side
        self.weight = nn.Parameter(torch.randn(outputs, inputs, len(offsets)) / (inputs * len(offsets)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._taps: Tensor  # int64 [taps]: their places in the kernel
        taps = [(a + side // 2) * side + b + side // 2 for a, b in offsets]
        self.register_buffer("_taps", torch.tensor(taps), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs, _ = self.weight.shape
        kernel = self.weight.new_zeros(outputs, inputs, self.side**2)
        kernel[:, :, self._taps] = self.weight
        return F.conv2d(x, kernel.view(outputs, inputs, self.side, self.side), self.bias, padding=self.side // 2)

    def of_each(self, inputs: Tensor) -> Tensor:
        """What each of the inputs, [M, inputs], adds to the output by each tap: [taps * M, outputs]."""
        return (inputs @ rearrange(self.weight, "o i t -> t i o")).flatten(0, 1)

    def taps(self) -> tuple[Tensor, Tensor]:
        """Weight, [outputs, taps * inputs], and bias of the same map on gathered inputs."""
        return rearrange(self.weight, "o i t -> o (t i)"), self.bias
