"""The action-conditioned prior over video codes: p(codes_t | codes_<t, actions_<t), with reward and termination.

Three parts, all on the grid of the codes, so that what moves in the picture moves in them too:

1. what is seen: residual convolutions over the newest frame's codes and the action taken there (all frames at once);
2. what is remembered: a convolutional gated recurrence, the only thing that runs frame after frame;
3. what comes: residual convolutions over both, then a light masked convolution that draws the next frame's codes
   one group at a time.

The memory is all that is carried, so a step costs the same at any time and no window ever ends; how long something is
remembered is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import groupby

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.errors import UserError


@dataclass(frozen=True)
class DynamicsConfig:
    """The shape of the prior."""

    code_shape: tuple[int, int]
    num_codes: int
    n_actions: int
    reward_values: tuple[float, ...]
    """The rewards that occur, ascending: the support of the predicted reward."""
    width: int = 128
    """Channels of a code's features and of its memory."""
    seeing_blocks: int = 2
    """Residual blocks before the memory."""
    foreseeing_blocks: int = 2
    """Residual blocks after it."""
    head_width: int = 128
    """Channels a code in the head that draws the codes of a frame."""
    order: str = "diagonal"
    """"diagonal": all codes of an anti-diagonal at once, h+w-1 passes a frame; "raster": the paper's, h*w passes."""

    def __post_init__(self) -> None:
        if self.order not in ("diagonal", "raster"):
            raise UserError(f'The order within a frame is "diagonal" or "raster", not "{self.order}".')

    @property
    def memory_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the memory."""
        return self.width, *self.code_shape


@dataclass
class Prediction:
    """The prior's view of T - 1 frames, each given all before it."""

    logits: Tensor  # float [B, T-1, h, w, K]: of codes[:, 1:]
    reward_logits: Tensor  # float [B, T-1, R]: over `config.reward_values`
    termination_logits: Tensor  # float [B, T-1]
    memory: Tensor  # float [B, C, h, w]: before the last frame is absorbed


@dataclass
class Draw:
    """One sampled frame a row."""

    memory: Tensor  # float [B, C, h, w]
    codes: Tensor  # int64 [B, h, w]
    log_prob: Tensor  # float [B], nats: of the codes under the distribution they were drawn from
    reward: Tensor  # float [B]: expected
    termination: Tensor  # float [B]: probability


class Dynamics(nn.Module):
    """memory_t, codes_t, action_t -> memory_{t+1} -> codes_{t+1} -> reward_t, termination_t."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        width, rows, columns = config.memory_shape
        known_actions = config.n_actions + 1  # and "none given"
        self.embed = nn.Embedding(config.num_codes, width)
        self.place = nn.Parameter(torch.zeros(width, rows, columns))
        self.see = nn.ModuleList(_Block(width, known_actions) for _ in range(config.seeing_blocks))
        self.write = nn.Conv2d(width, 2 * width, 1)
        self.recall = nn.Conv2d(width, 2 * width, 3, padding=1, bias=False)
        self.remind = nn.Conv2d(width, width, 1, bias=False)
        self.foresee = nn.ModuleList(_Block(width, known_actions) for _ in range(config.foreseeing_blocks))
        self.context = nn.Conv2d(width, config.head_width, 1)
        self.nearby = nn.Conv2d(width, config.head_width, 3, padding=1)
        self.head = CodeHead(config)
        self.outcome = nn.Sequential(
            nn.Conv2d(3 * width, 64, 3, stride=2, padding=1),
            nn.ReLU(),
            nn.Flatten(),
            nn.Linear(64 * ((rows + 1) // 2) * ((columns + 1) // 2), 128),
            nn.ReLU(),
        )
        self.reward = nn.Linear(128, len(config.reward_values))
        self.termination = nn.Linear(128, 1)
        with torch.no_grad():
            self.write.bias[:width] -= 1  # type: ignore[index]  # a memory that begins by holding what it has

    @property
    def reward_values(self) -> Tensor:
        """The support of the reward, float32 [R], whatever the precision of the weights."""
        return torch.tensor(self.config.reward_values, dtype=torch.float32, device=self.place.device)

    def blank(self, batch: int) -> Tensor:
        """The memory before anything was seen, float [B, C, h, w]."""
        dtype = torch.promote_types(self.place.dtype, torch.float32)
        return torch.zeros(batch, *self.config.memory_shape, dtype=dtype, device=self.place.device)

    @torch.no_grad()
    def adopt(self, codebook: Tensor) -> None:
        """Start from the tokenizer's view of its codes, float [K, D]: those that look alike are embedded alike."""
        likeness = (codebook - codebook.mean(0)) / codebook.std()
        for table in (self.embed.weight, self.head.embed.weight, self.head.logits.weight):
            directions = torch.randn(codebook.shape[1], table.shape[1], device=table.device)
            spread = table.std() * codebook.shape[1] ** -0.5
            table.copy_((spread * likeness @ directions).view_as(table))

    def forward(
        self, codes: Tensor, actions: Tensor, *, memory: Tensor | None = None, seen: Tensor | None = None
    ) -> Prediction:
        """Every frame's distribution given those before it, and the memory from which to go on.

        Args:
            codes: int64 [B, T, h, w].
            actions: int64 [B, T-1] in [0, n_actions]; n_actions says that no action is given.
            memory: of what came before these frames, float [B, C, h, w]; blank if not given.
            seen: the codes to condition on in place of `codes`, for training on imperfect pasts; int64 [B, T, h, w].
                The outcomes are then of frames as the prior draws them: each code given the true ones drawn before it.
        """
        memory = self.blank(len(codes)) if memory is None else memory
        past = (codes if seen is None else seen)[:, :-1]
        foreseen, context, memory = self.advance(memory, past, actions)
        after = codes[:, 1:].flatten(0, 1)  # [B*(T-1), h, w]
        logits = self.head(context, after)
        if seen is not None:
            # What the prior cannot draw, such as a score in the picture, an outcome must not rely on.
            after = _draw_each(logits.detach())
        reward, termination = self._outcome(foreseen, past.flatten(0, 1), after)
        batch = {"b": len(codes)}
        return Prediction(
            logits=rearrange(logits, "(b t) k h w -> b t h w k", **batch),
            reward_logits=rearrange(reward, "(b t) r -> b t r", **batch),
            termination_logits=rearrange(termination, "(b t) -> b t", **batch),
            memory=memory,
        )

    def watch(self, memory: Tensor, codes: Tensor, actions: Tensor) -> Tensor:
        """The memory after T frames, int64 [B, T, h, w], and the actions taken at each, int64 [B, T]."""
        features = self._see(codes.flatten(0, 1), actions.flatten())
        return self._remember(memory, features)[:, -1]

    @torch.no_grad()
    def draw(self, memory: Tensor, codes: Tensor, actions: Tensor, uniforms: Tensor, temperature: float) -> Draw:
        """Sample what follows a frame, int64 [B, h, w], and the action taken there, int64 [B].

        `uniforms`, float [B, h*w] in [0, 1), decide the codes by inverting their CDFs.
        """
        foreseen, context, memory = self.advance(memory, codes[:, None], actions[:, None])
        drawn, log_prob = self.head.draw(context, uniforms, temperature)
        reward_logits, termination_logits = self._outcome(foreseen, codes, drawn)
        reward = reward_logits.float().softmax(-1) @ self.reward_values
        return Draw(memory, drawn, log_prob, reward, termination_logits.float().sigmoid())

    def advance(self, memory: Tensor, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """Fold T frames, int64 [B, T, h, w], and the actions taken at each, int64 [B, T], into the memory.

        Returns what each frame foresees, as features [B*T, C, h, w] and as context for the head [B*T, Ch, h, w], and
        the memory after the last, [B, C, h, w].
        """
        codes, actions = codes.flatten(0, 1), actions.flatten()
        features = self._see(codes, actions)
        memories = self._remember(memory, features)  # [B, T, C, h, w]
        foreseen = features + self.remind(memories.flatten(0, 1).to(features.dtype))
        for block in self.foresee:
            foreseen = block(foreseen, actions)
        foreseen = _norm(foreseen)
        # Most of a frame is the frame before it: what was near a place reaches the head on a short way, too.
        context = self.context(foreseen) + self.nearby(self._embedded(codes))
        return foreseen, context, memories[:, -1]

    def _see(self, codes: Tensor, actions: Tensor) -> Tensor:
        """Features, float [N, C, h, w], of frames, int64 [N, h, w], each for itself, and of actions, int64 [N]."""
        features = self._embedded(codes) + self.place
        for block in self.see:
            features = block(features, actions)
        return features

    def _remember(self, memory: Tensor, features: Tensor) -> Tensor:
        """The memory, float [B, T, C, h, w], after each of T frames, given their features [B*T, C, h, w]."""
        written = rearrange(self.write(_norm(features)), "(b t) c h w -> t b c h w", b=len(memory))
        memories = []
        for new in written:
            update, candidate = (new + self.recall(memory.to(new.dtype))).to(memory.dtype).chunk(2, 1)
            memory = torch.lerp(memory, candidate.tanh(), update.sigmoid())
            memories.append(memory)
        return torch.stack(memories, 1)

    def _outcome(self, foreseen: Tensor, before: Tensor, after: Tensor) -> tuple[Tensor, Tensor]:
        """Reward logits [N, R] and termination logits [N] of coming from one frame's codes to the next's, [N, h, w].

        What is taken is in the first frame and gone from the second, so both are looked at.
        """
        features = self.outcome(torch.cat([foreseen, self._embedded(before), self._embedded(after)], 1))
        return self.reward(features), self.termination(features).squeeze(-1)

    def _embedded(self, codes: Tensor) -> Tensor:
        """[N, h, w] -> [N, C, h, w], channels last in memory."""
        return self.embed(codes).permute(0, 3, 1, 2)


class CodeHead(nn.Module):
    """p(codes of a frame | context), autoregressive within the frame by masked convolutions.

    The codes are drawn group by group: one code a group in raster order, one anti-diagonal in diagonal order. The
    first layer sees the codes of earlier groups (masked convolution, type A), the second the first layer's features
    of earlier groups and of its own (type B), so within a group the codes are independent given all earlier groups,
    and the product of all is an exact distribution.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.rows, self.columns = config.code_shape
        self.order = config.order
        width = config.head_width
        self.embed = nn.Embedding(config.num_codes, width // 2)
        self.before = _MaskedConv(width // 2, width, 5, [o for o in _offsets(5) if self._rank(*o) < 0])
        self.around = _MaskedConv(width, width, 3, [o for o in _offsets(3) if self._rank(*o) <= 0])
        self.logits = nn.Conv2d(width, config.num_codes, 1)

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
        """Codes, int64 [N, h, w], and their log-probability, float [N] in nats; `uniforms` float [N, h*w]."""
        n, size = len(context), self.rows * self.columns
        order, groups = self._plan  # from here on positions stand in the order in which they are drawn
        context = rearrange(context, "n c h w -> n (h w) c")[:, order]
        uniforms = uniforms[:, order]
        # One row past the end stays zero: what a tap sees beyond the frame's edge.
        embedded = context.new_zeros(n, size + 1, self.embed.embedding_dim)
        first = context.new_zeros(n, size + 1, context.shape[-1])
        codes = torch.empty(n, size, dtype=torch.int64, device=context.device)
        probability = torch.empty_like(uniforms)
        before, around = self.before.taps(), self.around.taps()
        out_weight, out_bias = self.logits.weight.flatten(1), self.logits.bias
        for here, seen_before, seen_around in groups:
            new = F.relu(context[:, here] + F.linear(embedded[:, seen_before].flatten(2), *before))
            first[:, here] = new
            new = F.relu(new + F.linear(first[:, seen_around].flatten(2), *around))
            logits = F.linear(new, out_weight, out_bias).to(uniforms.dtype) / temperature  # [N, n, K]
            codes[:, here], probability[:, here] = _invert_cdf(logits, uniforms[:, here])
            embedded[:, here] = self.embed(codes[:, here])
        frame = torch.empty_like(codes)
        frame[:, order] = codes
        return frame.view(n, self.rows, self.columns), probability.log().sum(1)

    @cached_property
    def _plan(self) -> tuple[Tensor, list[tuple[slice, Tensor, Tensor]]]:
        """All positions, [h*w], in the order in which they are drawn, and the groups.

        A group is its stretch of that order, and the places in it that the two layers look at, [n, taps] each.
        """
        places = [(i, j) for i in range(self.rows) for j in range(self.columns)]
        ordered = sorted(places, key=lambda place: self._rank(*place))
        turn = {place: index for index, place in enumerate(ordered)}
        beyond = len(places)
        groups = []
        for _, members in groupby(ordered, key=lambda place: self._rank(*place)):
            group = list(members)
            start = turn[group[0]]
            taps = [
                torch.tensor([[turn.get((i + a, j + b), beyond) for a, b in conv.offsets] for i, j in group])
                for conv in (self.before, self.around)
            ]
            groups.append((slice(start, start + len(group)), taps[0], taps[1]))
        return torch.tensor([i * self.columns + j for i, j in ordered]), groups


class _MaskedConv(nn.Module):
    """A convolution that sees only the given offsets (row, column) from its centre."""

    def __init__(self, inputs: int, outputs: int, side: int, offsets: Sequence[tuple[int, int]]) -> None:
        super().__init__()
        self.offsets, self.side = offsets, side
        self.weight = nn.Parameter(torch.randn(outputs, inputs, len(offsets)) / (inputs * len(offsets)) ** 0.5)
        self.bias = nn.Parameter(torch.zeros(outputs))
        self._flat = [(a + side // 2) * side + b + side // 2 for a, b in offsets]

    def forward(self, x: Tensor) -> Tensor:
        outputs, inputs, _ = self.weight.shape
        kernel = self.weight.new_zeros(outputs, inputs, self.side**2)
        kernel[:, :, self._flat] = self.weight
        return F.conv2d(x, kernel.view(outputs, inputs, self.side, self.side), self.bias, padding=self.side // 2)

    def taps(self) -> tuple[Tensor, Tensor]:
        """Weight, [outputs, taps * inputs], and bias of the same map on gathered inputs."""
        return rearrange(self.weight, "o i t -> o (t i)"), self.bias


class _Block(nn.Module):
    """Pre-normalised 3x3 and 1x1 convolutions, scaled and biased by the action; starts as the identity."""

    def __init__(self, width: int, n_actions: int) -> None:
        super().__init__()
        self.action = nn.Embedding(n_actions, 2 * width)
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.normal_(self.action.weight, std=0.3)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        scale, bias = self.action(actions)[:, :, None, None].chunk(2, 1)
        hidden = self.spread(_norm(x)) * (1 + scale) + bias
        mixed: Tensor = self.mix(F.relu(hidden))
        return x + mixed


def _norm(x: Tensor) -> Tensor:
    """Centre each place's channels and scale them to unit variance.  [N, C, h, w]"""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def _offsets(side: int) -> list[tuple[int, int]]:
    reach = range(-(side // 2), side // 2 + 1)
    return [(i, j) for i in reach for j in reach]


def _draw_each(logits: Tensor) -> Tensor:
    """A code for every place by itself: logits [N, K, h, w] -> [N, h, w]."""
    gumbel = -torch.empty_like(logits, dtype=torch.float32).exponential_().log()
    return (logits + gumbel).argmax(1)


def _invert_cdf(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the CDF: logits [..., K], uniforms [...] -> codes and their probabilities [...]."""
    probability = logits.softmax(-1)
    cdf = probability.cumsum(-1)
    code = torch.searchsorted(cdf, (uniforms * cdf[..., -1]).unsqueeze(-1), right=True)
    code = code.clamp_max(logits.shape[-1] - 1)
    return code.squeeze(-1), probability.gather(-1, code).squeeze(-1)
