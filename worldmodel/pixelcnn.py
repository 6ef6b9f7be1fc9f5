"""The gated PixelCNN over grids of discrete codes: the image prior of §4.1-4.2 and the decoder of a second stage.

After "Conditional Image Generation with PixelCNN Decoders" (van den Oord et al., 2016). Codes are drawn group by group:

- raster: place by place. One stack of layers looks at the rows above; another, which is told what the first has found,
  looks along the row to the left. One alone would not see what is above and far to the right: the blind spot.
- diagonal: all places of an anti-diagonal at once, given all earlier diagonals, in h+w-1 passes instead of h*w. One
  stack sees every earlier diagonal: nothing is left for a second.

Drawing runs the very layers of the full forward pass, on the places of one group at a time, over what they made of
earlier places; every feature is computed once.
"""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Literal

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.drawing_order import Offset, Rank, looks, offsets, plan
from worldmodel.errors import UserError
from worldmodel.likelihood import single
from worldmodel.sampling import check_temperature, invert_cdf

FIRST, LATER = 5, 3  # sides of the kernels: of the first layer, and of the gated ones after it


@dataclass(frozen=True)
class PixelCNNConfig:
    """The shape of a PixelCNN; without `classes`, `vector` or `spatial` it is unconditional."""

    code_shape: tuple[int, int]
    """Rows and columns."""
    num_codes: int
    maps: int = 1
    """Codes a place, drawn one after another."""
    width: int = 128
    """Channels of a place's features."""
    layers: int = 8
    """Gated layers after the first."""
    order: Literal["raster", "diagonal"] = "raster"
    """"raster": the paper's, h*w passes a grid; "diagonal": all places of an anti-diagonal at once, h+w-1 passes."""
    classes: int = 0
    """Labels to choose from."""
    vector: int = 0
    """Channels of a condition on the whole grid."""
    spatial: int = 0
    """Channels of a condition on each place."""

    def __post_init__(self) -> None:
        if self.order not in ("raster", "diagonal"):
            raise UserError(f'The order within a grid is "diagonal" or "raster", not "{self.order}".')
        if min(*self.code_shape, self.num_codes, self.maps, self.width, self.layers) < 1:
            raise UserError("A PixelCNN has one row, column, code, map, channel and layer at least.")
        if min(self.classes, self.vector, self.spatial) < 0:
            raise UserError("A PixelCNN's conditions have a positive size, or 0 where there is none.")


class PixelCNN(nn.Module):
    """p(codes | conditions): exact, place by place or diagonal by diagonal, and map by map within a place.

    Every method takes `codes` int64 [B, M, h, w] or makes them, and the conditions that the config names, all of them
    and no others: `label` int64 [B], `vector` float [B, vector], `spatial` float [B, spatial, h, w]. Each raises
    `UserError` where one is missing, unasked for, out of range or of another shape.
    """

    def __init__(self, config: PixelCNNConfig) -> None:
        super().__init__()
        self.config = config
        width, maps, codes = config.width, config.maps, config.num_codes
        self.embed = nn.Embedding(maps * codes, width)
        self.label = nn.Embedding(config.classes, width) if config.classes else None
        self.vector = nn.Linear(config.vector, width) if config.vector else None
        self.spatial = nn.Linear(config.spatial, width) if config.spatial else None
        look = "above" if config.order == "raster" else "diagonal"
        places, self._groups = plan(config.code_shape, _TURN[look])
        self.whole = _Stack(config, look, places)
        self.left = _Stack(config, "left", places) if config.order == "raster" else None
        self.hidden = nn.Linear(width, maps * width)
        self.embed_here = nn.Embedding((maps - 1) * codes, width) if maps > 1 else None  # of a place's earlier maps
        self.logits = nn.Conv2d(maps * width, maps * codes, 1, groups=maps)
        self._order: Tensor
        self._first_code: Tensor
        self.register_buffer("_order", torch.tensor([i * config.code_shape[1] + j for i, j in places]), False)
        self.register_buffer("_first_code", torch.arange(maps).view(-1, 1, 1) * codes, False)  # rows of the tables

    def forward(
        self,
        codes: Tensor,
        *,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        spatial: Tensor | None = None,
    ) -> Tensor:
        """Logits, float [B, M, K, h, w], of all codes at once, each given those drawn before it."""
        self._check(codes)
        condition = self._condition(len(codes), label, vector, spatial)
        rows = codes + self._first_code
        embedded = self.embed(rows).sum(1)  # [B, h, w, C]
        features = self.whole(embedded, self.whole.given(condition), _Masked.__call__)
        if self.left is not None:
            features = self.left(embedded, self.left.given(condition, features), _Masked.__call__)
        hidden = self.hidden(features[-1].relu()).unflatten(-1, (self.config.maps, -1))  # [B, h, w, M, C]
        if self.embed_here is not None:
            earlier = self.embed_here(rows[:, :-1]).cumsum(1)  # [B, M-1, h, w, C]
            hidden = hidden + F.pad(earlier, (0, 0) * 3 + (1, 0)).movedim(1, 3)
        logits = self.logits(hidden.relu().flatten(-2).permute(0, 3, 1, 2))
        return logits.unflatten(1, (self.config.maps, -1))

    def log_prob(
        self,
        codes: Tensor,
        *,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        spatial: Tensor | None = None,
    ) -> Tensor:
        """log p(codes | conditions), float [B] in nats, in no less than single precision."""
        logits = self(codes, label=label, vector=vector, spatial=spatial).movedim(2, -1)  # [B, M, h, w, K]
        nats = F.cross_entropy(single(logits).flatten(0, -2), codes.flatten(), reduction="none")
        return -nats.view(codes.shape).sum((1, 2, 3))

    @torch.no_grad()
    def sample(
        self,
        uniforms: Tensor,
        *,
        label: Tensor | None = None,
        vector: Tensor | None = None,
        spatial: Tensor | None = None,
        temperature: float = 1.0,
    ) -> tuple[Tensor, Tensor]:
        """Codes, int64 [B, M, h, w], and their log-probability, float [B] in nats, at that temperature.

        `uniforms`, float [B, M, h, w] in [0, 1), settle the draw: the same numbers, the same codes; but for rounding,
        a row of a batch is what it would be alone.
        """
        self._check_shape("The uniform numbers", uniforms)
        check_temperature(temperature)
        condition = self._condition(len(uniforms), label, vector, spatial)
        # From here on places stand in the order in which they are drawn, on one axis.
        if condition is not None:
            condition = condition.flatten(1, 2)
            condition = condition[:, self._order] if condition.shape[1] > 1 else condition
        drawing = _Drawing(self, uniforms.flatten(2)[:, :, self._order], temperature)
        for group in self._groups:
            here = condition if condition is None or condition.shape[1] == 1 else condition[:, group]
            features = drawing.run(self.whole, group, self.whole.given(here))
            if self.left is None:
                drawing.draw(group, features[-1])
                continue
            given = self.left.given(here, features)  # each float [B, w, 2C]
            for j in range(group.stop - group.start):
                place = slice(group.start + j, group.start + j + 1)
                drawing.draw(place, drawing.run(self.left, place, [g[:, j : j + 1] for g in given])[-1])
        codes = torch.empty_like(drawing.codes)
        codes[:, :, self._order] = drawing.codes
        return codes.view(uniforms.shape), drawing.probability.log().sum((1, 2))

    def _condition(
        self, batch: int, label: Tensor | None, vector: Tensor | None, spatial: Tensor | None
    ) -> Tensor | None:
        """What the gates are told, [B, h or 1, w or 1, C]; None where the model is unconditional."""
        config, precision = self.config, self.embed.weight.dtype
        expected = {
            "label": (label, config.classes, (batch,)),
            "vector": (vector, config.vector, (batch, config.vector)),
            "spatial condition": (spatial, config.spatial, (batch, config.spatial, *config.code_shape)),
        }
        for name, (given, size, shape) in expected.items():
            if (given is None) == (size > 0):
                raise UserError(f"This PixelCNN {'needs a' if size else 'takes no'} {name}.")
            if given is not None and given.shape != shape:
                raise UserError(f"The {name} has shape {list(shape)}, not {list(given.shape)}.")
        parts = []
        if label is not None and self.label is not None:
            _check_range("Labels", label, config.classes)
            parts.append(self.label(label)[:, None, None])
        if vector is not None and self.vector is not None:
            parts.append(self.vector(vector.to(precision))[:, None, None])
        if spatial is not None and self.spatial is not None:
            parts.append(self.spatial(spatial.to(precision).permute(0, 2, 3, 1)))
        return sum(parts[1:], parts[0]) if parts else None

    def _check(self, codes: Tensor) -> None:
        self._check_shape("The codes", codes)
        _check_range("Codes", codes, self.config.num_codes)

    def _check_shape(self, name: str, grid: Tensor) -> None:
        shape = [self.config.maps, *self.config.code_shape]
        if grid.ndim != 4 or list(grid.shape[1:]) != shape:
            raise UserError(f"{name} have shape [B, {', '.join(map(str, shape))}], not {list(grid.shape)}.")


class _Masked(nn.Module):
    """A convolution, [B, h, w, in] -> [B, h, w, out], that sees only the given offsets from its centre."""

    def __init__(self, inputs: int, outputs: int, offsets: list[Offset]) -> None:
        super().__init__()
        self.weight = nn.Parameter(torch.randn(outputs, len(offsets), inputs) / (inputs * len(offsets)) ** 0.5)
        rows, columns = zip(*offsets, strict=True)
        top, left = min(rows), min(columns)
        self._box = max(rows) - top + 1, max(columns) - left + 1  # the smallest kernel that has all offsets
        self._taps: Tensor  # int64 [taps]: their places in it
        taps = [(a - top) * self._box[1] + b - left for a, b in offsets]
        self.register_buffer("_taps", torch.tensor(taps), persistent=False)
        self._padding = 0, 0, -left, max(columns), -top, max(rows)  # of channels, columns and rows; some are negative

    def forward(self, x: Tensor) -> Tensor:
        outputs, taps, inputs = self.weight.shape
        kernel: Tensor = self.weight
        if taps < self._box[0] * self._box[1]:
            kernel = kernel.new_zeros(outputs, self._box[0] * self._box[1], inputs)
            kernel[:, self._taps] = self.weight
        kernel = kernel.unflatten(1, self._box).permute(0, 3, 1, 2)
        return F.conv2d(F.pad(x, self._padding).permute(0, 3, 1, 2), kernel).permute(0, 2, 3, 1)


See = Callable[[_Masked, Tensor], Tensor]
"""Does what a masked convolution does, to all places at once or to those of a group."""


class _Gated(nn.Module):
    """x + linear(tanh(a) * sigmoid(b)), where a and b are sums of what is seen around and what is given."""

    def __init__(self, config: PixelCNNConfig, offsets: list[Offset], beside: bool) -> None:
        super().__init__()
        width = config.width
        conditional = config.classes or config.vector or config.spatial
        self.around = _Masked(width, 2 * width, offsets)
        self.beside = nn.Linear(width, 2 * width, bias=False) if beside else None
        self.condition = nn.Linear(width, 2 * width, bias=False) if conditional else None
        self.bias = nn.Parameter(torch.zeros(2 * width))
        self.out = nn.Linear(width, width)

    def given(self, condition: Tensor | None, beside: Tensor | None) -> Tensor:
        """[..., 2C] for `forward`, of the condition and of the features that another stack has of the same places."""
        given: Tensor = self.bias
        if self.condition is not None:
            given = given + self.condition(condition)
        if self.beside is not None:
            given = given + self.beside(beside)
        return given

    def forward(self, x: Tensor, seen: Tensor, given: Tensor) -> Tensor:
        a, b = (seen + given).chunk(2, -1)
        return x + self.out(a.tanh() * b.sigmoid())


class _Stack(nn.Module):
    """The first layer, which sees places drawn earlier, and gated ones, which also see features of those alongside."""

    look_first: Tensor
    look_later: Tensor

    def __init__(self, config: PixelCNNConfig, look: str, places: list[Offset]) -> None:
        super().__init__()
        first = [o for o in offsets(FIRST) if _TURN[look](*o) < 0]
        later = [o for o in offsets(LATER) if _TURN[look](*o) <= 0]
        self.first = _Masked(config.width, config.width, first)
        self.layers = nn.ModuleList(_Gated(config, later, beside=look == "left") for _ in range(config.layers))
        self.register_buffer("look_first", looks(places, first), persistent=False)
        self.register_buffer("look_later", looks(places, later), persistent=False)

    @property
    def gated(self) -> list[_Gated]:
        return list(self.layers)  # type: ignore[arg-type]

    def given(self, condition: Tensor | None, beside: list[Tensor] | None = None) -> list[Tensor]:
        """What each gated layer is given: the condition, and another stack's features layer by layer."""
        return [layer.given(condition, beside[n] if beside else None) for n, layer in enumerate(self.gated)]

    def forward(self, embedded: Tensor, given: list[Tensor], see: See) -> list[Tensor]:
        """Features, float [..., C], after each gated layer; `see` does what the masked convolutions do."""
        x = see(self.first, embedded)
        features = []
        for layer, g in zip(self.gated, given, strict=True):
            x = layer(x, see(layer.around, x), g)
            features.append(x)
        return features


class _Drawing:
    """A batch of grids being drawn: the codes so far, and all that is made of them.

    Places stand in the order in which they are drawn, on one axis; `group` is a stretch of it.
    """

    def __init__(self, model: PixelCNN, uniforms: Tensor, temperature: float) -> None:
        """`uniforms`: float [B, M, h*w]."""
        self.model, self.uniforms = model, uniforms
        self.codes = torch.zeros_like(uniforms, dtype=torch.int64)
        self.probability = torch.zeros_like(uniforms)
        batch, _, size = uniforms.shape
        # One place past the end, with features of zero: what lies beyond the edge.
        self._embedded = model.embed.weight.new_zeros(batch, size + 1, model.config.width)
        self._windows: dict[nn.Module, _Window] = {}
        for stack in (model.whole, model.left):
            if stack is not None:
                self._windows[stack.first] = _Window(stack.first, stack.look_first, self._embedded)
                for layer in stack.gated:
                    kept = torch.zeros_like(self._embedded)
                    self._windows[layer.around] = _Window(layer.around, stack.look_later, kept)
        head = model.logits.weight.flatten(1), model.logits.bias
        self._logits = [(part / temperature).chunk(model.config.maps) for part in head if part is not None]

    def run(self, stack: _Stack, group: slice, given: list[Tensor]) -> list[Tensor]:
        """What `stack` makes of the group's places: float [B, n, C] after each layer."""
        # The group's own codes are yet to come, their embeddings zero; the first layer does not look at them.
        return stack(self._embedded[:, group], given, lambda conv, x: self._windows[conv].see(group, x))

    def draw(self, group: slice, features: Tensor) -> None:
        """The codes of the group's places, map by map, of their last features, float [B, n, C]."""
        model, earlier = self.model, torch.zeros_like(features)
        for m, hidden in enumerate(model.hidden(features.relu()).chunk(model.config.maps, -1)):
            logits = F.linear((hidden + earlier).relu(), *(part[m] for part in self._logits))
            code, probability = invert_cdf(logits, self.uniforms[:, m, group, None])
            self.codes[:, m, group], self.probability[:, m, group] = code[..., 0], probability[..., 0]
            row = code[..., 0] + m * model.config.num_codes
            self._embedded[:, group] += model.embed(row)
            if model.embed_here is not None and m + 1 < model.config.maps:
                earlier = earlier + model.embed_here(row)


class _Window:
    """A masked convolution over places that come group by group."""

    def __init__(self, conv: _Masked, look: Tensor, kept: Tensor) -> None:
        """`look`: int64 [h*w, taps], where each place looks among `kept`, float [B, h*w + 1, C], all zeros yet."""
        self._kept, (batch, size, _) = kept, kept.shape
        self._look = torch.arange(batch, device=kept.device).view(-1, 1, 1) * size + look
        self._weight = conv.weight.flatten(1).T.contiguous()  # this way round products of few rows are faster

    def see(self, group: slice, x: Tensor) -> Tensor:
        """What the convolution makes of the group's places, whose own features are `x`, float [B, n, C]."""
        self._kept[:, group] = x
        seen = F.embedding(self._look[:, group], self._kept.flatten(0, 1))  # [B, n, taps, C]
        return seen.flatten(2) @ self._weight


# When a stack sees the features of an offset: before (< 0), with (0) or after (> 0) those of the centre.
_TURN: dict[str, Rank] = {
    "above": lambda a, b: a,
    "left": lambda a, b: b if a == 0 else 1,
    "diagonal": lambda a, b: a + b,
}


def _check_range(name: str, numbers: Tensor, end: int) -> None:
    if numbers.dtype != torch.int64:
        raise UserError(f"{name} are int64, not {str(numbers.dtype).removeprefix('torch.')}.")
    if numbers.is_cuda and torch.cuda.is_current_stream_capturing():
        return  # there are no numbers yet: a step is being recorded (see `TrainingStep`)
    if numbers.numel() and not 0 <= int(numbers.min()) <= int(numbers.max()) < end:
        raise UserError(f"{name} are from 0 to {end - 1}, not {int(numbers.min())} to {int(numbers.max())}.")
