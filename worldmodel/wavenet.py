"""WaveNet over sequences of classes: the decoder of speech, and the prior over its codes (§4.3).

After "WaveNet: A Generative Model for Raw Audio" (van den Oord et al., 2016). Drawing keeps, of each dilated layer, as
much of its past as it looks back: one sample costs one column a layer, however long the past.
"""

from collections.abc import Callable, Iterable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from worldmodel.errors import UserError
from worldmodel.likelihood import single
from worldmodel.sampling import check_temperature, invert_cdf


@dataclass(frozen=True)
class WaveNetConfig:
    """The shape of a WaveNet; without `local` or `vector` it is unconditional."""

    classes: int
    """K: values of a sample."""
    width: int = 64
    """Channels between layers, and of their gates."""
    skip: int = 128
    """Channels in which what all layers found is summed up."""
    stacks: int = 2
    layers: int = 10
    """Of a stack, with dilations 1, 2, 4, ..., 2^(layers - 1)."""
    local: int = 0
    """Channels of a condition that changes with time."""
    hop: int = 1
    """Samples for which a column of that condition holds."""
    vector: int = 0
    """Channels of a condition on the whole sequence."""

    def __post_init__(self) -> None:
        if min(self.classes, self.width, self.skip, self.stacks, self.layers, self.hop) < 1:
            raise UserError("A WaveNet has one class, channel, stack and layer at least, and a hop of 1 or more.")
        if min(self.local, self.vector) < 0:
            raise UserError("A WaveNet's conditions have a positive size, or 0 where there is none.")

    @property
    def dilations(self) -> list[int]:
        """How far back each layer looks."""
        return [2**n for n in range(self.layers)] * self.stacks


class WaveNet(nn.Module):
    """p(samples | conditions): exact, sample by sample.

    Every method takes `samples` int64 [B, T] or makes them, and the conditions that the config names, all of them and
    no others: `local` float [B, local, ceil(T / hop)], each column of which holds for `hop` samples, and `vector` float
    [B, vector]. Each raises `UserError` where one is missing, unasked for or of another shape.
    """

    def __init__(self, config: WaveNetConfig) -> None:
        super().__init__()
        self.config = config
        width, skip = config.width, config.skip
        # The last is what stands before the first sample, and for a hidden one.
        self.embed = nn.Embedding(config.classes + 1, width)
        self.first = nn.Linear(width, width + skip)
        gates = len(config.dilations) * 2 * width  # of all layers
        self.local = nn.Linear(config.local, gates, bias=False) if config.local else None
        self.vector = nn.Linear(config.vector, gates, bias=False) if config.vector else None
        self.layers = nn.ModuleList(_Layer(width, skip, dilation) for dilation in config.dilations)
        self.hidden = nn.Linear(skip, skip)
        self.logits = nn.Linear(skip, config.classes)

    def forward(
        self,
        samples: Tensor,
        *,
        local: Tensor | None = None,
        vector: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """Logits, float [B, T, K], of every sample given those before it, without those `hidden`, bool [B, T]."""
        batch, length = samples.shape
        condition = self._condition(batch, length, local, vector)
        seen = samples if hidden is None else samples.masked_fill(hidden, self.config.classes)
        before = F.pad(seen[:, :-1], (1, 0), value=self.config.classes)  # [B, T]
        if local is not None:  # whole columns: the last may hold for samples that nobody asks for
            before = F.pad(before, (0, -length % self.config.hop))
        state = self.first(self.embed(before))  # [B, T or more, width + skip]
        for n, layer in enumerate(self._layers):
            state = layer(state, None if condition is None else condition[:, :, n])
        found = state[:, :length, self.config.width :]
        return self.logits(self.hidden(found.relu()).relu())

    def log_prob(
        self,
        samples: Tensor,
        *,
        local: Tensor | None = None,
        vector: Tensor | None = None,
        hidden: Tensor | None = None,
    ) -> Tensor:
        """log p(samples | conditions), float [B] in nats, in no less than single precision.

        Each sample is given those before it, without those `hidden`, bool [B, T].
        """
        logits = single(self(samples, local=local, vector=vector, hidden=hidden))
        return -F.cross_entropy(logits.flatten(0, 1), samples.flatten(), reduction="none").view(samples.shape).sum(1)

    @torch.no_grad()
    def sample(
        self,
        uniforms: Tensor,
        *,
        local: Tensor | None = None,
        vector: Tensor | None = None,
        temperature: float = 1.0,
        progress: Callable[[range], Iterable[int]] = iter,
    ) -> tuple[Tensor, Tensor]:
        """Samples, int64 [B, T], and their log-probability, float [B] in nats, at that temperature.

        `uniforms`, float [B, T] in [0, 1), settle the draw: the same numbers, the same samples; but for rounding, a row
        of a batch is what it would be alone. `progress` goes through the T samples, and may show how far it is.

        Raises `UserError` for uniform numbers of another shape, and for a temperature out of range.
        """
        if uniforms.ndim != 2:
            raise UserError(f"The uniform numbers have shape [B, T], not {list(uniforms.shape)}.")
        check_temperature(temperature)
        batch, length = uniforms.shape
        condition = self._condition(batch, length, local, vector)
        drawing = _Drawing(self, uniforms, condition, temperature)
        for t in progress(range(length)):
            drawing.draw(t)
        return drawing.samples, drawing.probability.log().sum(1)

    @property
    def _layers(self) -> list["_Layer"]:
        return list(self.layers)  # type: ignore[arg-type]

    def _condition(self, batch: int, length: int, local: Tensor | None, vector: Tensor | None) -> Tensor | None:
        """What the gates of each layer are given, [B, columns or 1, L, 2 * width]; None if there are no conditions."""
        config, precision = self.config, self.embed.weight.dtype
        expected = {
            "local condition": (local, config.local, (batch, config.local, -(-length // config.hop))),
            "vector": (vector, config.vector, (batch, config.vector)),
        }
        for name, (given, size, shape) in expected.items():
            if (given is None) == (size > 0):
                raise UserError(f"This WaveNet {'needs a' if size else 'takes no'} {name}.")
            if given is not None and given.shape != shape:
                raise UserError(f"The {name} has shape {list(shape)}, not {list(given.shape)}.")
        parts = []
        if local is not None and self.local is not None:
            parts.append(self.local(local.to(precision).transpose(1, 2)))
        if vector is not None and self.vector is not None:
            parts.append(self.vector(vector.to(precision))[:, None])
        return sum(parts[1:], parts[0]).unflatten(2, (-1, 2 * config.width)) if parts else None


class _Layer(nn.Module):
    """state + linear(tanh(a) * sigmoid(b)), where a and b are sums of what is seen now and before, and what is given.

    The state is what residual connections carry to the next layer and, beside it, what skip connections sum up for the
    head: [..., width + skip].
    """

    def __init__(self, width: int, skip: int, dilation: int) -> None:
        super().__init__()
        self.width, self.dilation = width, dilation
        self.around = nn.Linear(2 * width, 2 * width)  # a convolution of two taps: before, and now
        self.out = nn.Linear(width, width + skip, bias=False)

    def forward(self, state: Tensor, given: Tensor | None) -> Tensor:
        """[B, T, width + skip] -> the same; `given`: [B, columns, 2 * width], each for an equal share of the T."""
        now = state[..., : self.width]
        before = F.pad(now, (0, 0, self.dilation, 0))[:, : now.shape[1]]
        gates = self.around(torch.cat([before, now], -1))  # [B, T, 2 * width]
        if given is not None:
            gates = (gates.unflatten(1, (given.shape[1], -1)) + given[:, :, None]).flatten(1, 2)
        a, b = gates.chunk(2, -1)
        return state + self.out(a.tanh() * b.sigmoid())


class _Drawing:
    """A batch of sequences being drawn: the samples so far, and what each layer will look back at.

    What a layer looks back at is known before the sample is begun, so that part of all layers is one product.
    """

    def __init__(self, model: WaveNet, uniforms: Tensor, condition: Tensor | None, temperature: float) -> None:
        """`uniforms`: float [B, T]; `condition`: [B, columns or 1, L, 2 * width], or None."""
        config, layers = model.config, model._layers
        (batch, length), width = uniforms.shape, config.width
        weight = model.embed.weight
        self.uniforms = uniforms
        self.samples = torch.zeros_like(uniforms, dtype=torch.int64)
        self.probability = torch.zeros_like(uniforms)
        self._table = model.first(weight)  # [K + 1, width + skip]: what a layer sees of each class
        self._last = torch.full((batch,), config.classes, device=weight.device)  # [B]: the sample before this
        around = torch.stack([layer.around.weight.T for layer in layers])  # [L, 2 * width, 2 * width]
        self._before, self._now = around[:, :width].contiguous(), list(around[:, width:].contiguous())
        self._out = [layer.out.weight.T.contiguous() for layer in layers]
        bias = torch.stack([layer.around.bias for layer in layers])  # [L, 2 * width]
        given = bias.expand(batch, 1, -1, -1) if condition is None else condition + bias
        self._given, self._hop = given.permute(1, 2, 0, 3).contiguous(), config.hop  # [columns or 1, L, B, 2 * width]
        # A layer that looks d samples back has d places for its features, used in turn.
        dilations = torch.tensor(config.dilations, device=weight.device)  # [L]
        turns = torch.arange(length, device=weight.device)[:, None] % dilations
        self._places = turns + dilations.cumsum(0) - dilations  # int64 [T, L]
        self._kept = weight.new_zeros(sum(config.dilations), batch, width)
        # What a step makes, in tensors of their own that every step fills again.
        self._past = weight.new_zeros(len(layers), batch, width)
        self._gates = weight.new_zeros(len(layers), batch, 2 * width)
        self._states = weight.new_zeros(len(layers) + 1, batch, width + config.skip)
        self._features = self._states[:-1, :, :width]
        self._views = list(zip(self._states, self._features, self._gates, self._gates[..., :width], strict=False))
        self._found = self._states[-1, :, width:]
        self._hidden = model.hidden.weight.T.contiguous(), model.hidden.bias
        self._logits = (model.logits.weight / temperature).T.contiguous(), model.logits.bias / temperature

    def draw(self, t: int) -> None:
        """Sample t, of all rows."""
        places = self._places[t]
        torch.index_select(self._kept, 0, places, out=self._past)
        given = self._given[t // self._hop if len(self._given) > 1 else 0]
        torch.baddbmm(given, self._past, self._before, out=self._gates)
        torch.index_select(self._table, 0, self._last, out=self._states[0])
        for n, (state, x, gates, a) in enumerate(self._views):
            gates.addmm_(x, self._now[n])
            a.tanh_()
            torch.addmm(state, F.glu(gates), self._out[n], out=self._states[n + 1])
        self._kept.index_copy_(0, places, self._features)
        hidden = _linear(self._found.relu(), *self._hidden).relu_()
        logits = _linear(hidden, *self._logits)
        code, probability = invert_cdf(logits, self.uniforms[:, t, None])
        self._last = code[:, 0]
        self.samples[:, t], self.probability[:, t] = self._last, probability[:, 0]


def _linear(x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
    """x [B, in] @ weight [in, out] + bias [out]."""
    return torch.addmm(bias, x, weight)
