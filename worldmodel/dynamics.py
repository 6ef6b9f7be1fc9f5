"""The action-conditioned prior over video codes: p(codes_t | codes_<t, actions_<t), with reward and termination.

Once a frame a convolutional recurrence folds the last codes and the action into a bounded memory; a light masked
convolution then draws the next frame's codes one group at a time. The memory is all that is carried, so a step costs
the same at any time and no window ever ends; how long something is remembered is learned.
"""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property

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
    pool: int = 2
    """Codes along each side of a memory cell."""
    width: int = 256
    """Channels of a memory cell."""
    blocks: int = 3
    """Residual blocks in a step of the recurrence."""
    head_width: int = 128
    """Channels a code in the head that draws the codes of a frame."""
    order: str = "diagonal"
    """"diagonal": all codes of an anti-diagonal at once, h+w-1 passes a frame; "raster": the paper's, h*w passes."""

    def __post_init__(self) -> None:
        if any(side % self.pool for side in self.code_shape):
            raise UserError(
                f"A grid of {self.code_shape[0]}x{self.code_shape[1]} codes does not divide into memory cells of "
                f"{self.pool}x{self.pool}; choose a pool that divides both sides."
            )
        if self.width % self.pool**2:
            raise UserError(f"The width of a memory cell, {self.width}, is no multiple of its {self.pool**2} codes.")
        if self.order not in ("diagonal", "raster"):
            raise UserError(f'The order within a frame is "diagonal" or "raster", not "{self.order}".')

    @property
    def memory_shape(self) -> tuple[int, int, int]:
        """Channels, rows and columns of the memory."""
        return self.width, self.code_shape[0] // self.pool, self.code_shape[1] // self.pool


@dataclass
class Prediction:
    """The prior's view of T - 1 frames, each given all before it."""

    logits: Tensor  # float [B, T-1, h, w, K]: of codes[:, 1:]
    reward_logits: Tensor  # float [B, T-1, R]: over `config.reward_values`
    termination_logits: Tensor  # float [B, T-1]
    memory: Tensor  # float [B, C, h', w']: before the last frame is absorbed


@dataclass
class Draw:
    """One sampled frame a row."""

    memory: Tensor  # float [B, C, h', w']
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
        cell = config.pool**2
        self.embed = nn.Embedding(config.num_codes, width // cell)
        self.place = nn.Parameter(torch.zeros(width, rows, columns))
        self.recall = nn.Conv2d(width, width, 1)
        self.blocks = nn.ModuleList(_Block(width, config.n_actions + 1) for _ in range(config.blocks))
        self.gate = nn.Conv2d(width, 2 * width, 1)
        self.context = nn.Conv2d(2 * width, cell * config.head_width, 1)
        self.nearby = nn.Conv2d(width // cell, config.head_width, 3, padding=1)
        self.head = CodeHead(config)
        self.outcome = nn.Sequential(
            nn.Conv2d(2 * width, 64, 1), nn.ReLU(), nn.Flatten(), nn.Linear(64 * rows * columns, 128), nn.ReLU()
        )
        self.reward = nn.Linear(128, len(config.reward_values))
        self.termination = nn.Linear(128, 1)

    @property
    def reward_values(self) -> Tensor:
        """The support of the reward, float32 [R], whatever the precision of the weights."""
        return torch.tensor(self.config.reward_values, dtype=torch.float32, device=self.place.device)

    def blank(self, batch: int) -> Tensor:
        """The memory before anything was seen, float [B, C, h', w']."""
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

    def forward(self, codes: Tensor, actions: Tensor, *, seen: Tensor | None = None) -> Prediction:
        """Every frame's distribution given those before it.

        Args:
            codes: int64 [B, T, h, w].
            actions: int64 [B, T-1] in [0, n_actions]; n_actions says that no action is given.
            seen: the codes to condition on in place of `codes`, for training on imperfect pasts; int64 [B, T, h, w].
        """
        seen = codes if seen is None else seen
        memory, contexts, memories = self.blank(len(codes)), [], []
        for t in range(actions.shape[1]):
            memory, context = self.advance(memory, seen[:, t], actions[:, t])
            memories.append(memory)
            contexts.append(context)
        context = torch.stack(contexts, 1).flatten(0, 1)  # [B*(T-1), Ch, h, w]
        target = codes[:, 1:].flatten(0, 1)  # [B*(T-1), h, w]
        logits = self.head(context, target)
        reward, termination = self._outcome(torch.stack(memories, 1).flatten(0, 1), target)
        batch = {"b": len(codes)}
        return Prediction(
            logits=rearrange(logits, "(b t) k h w -> b t h w k", **batch),
            reward_logits=rearrange(reward, "(b t) r -> b t r", **batch),
            termination_logits=rearrange(termination, "(b t) -> b t", **batch),
            memory=memory,
        )

    def advance(self, memory: Tensor, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """Fold a frame, int64 [B, h, w], and the action taken there, int64 [B], into the memory.

        Returns the next memory and the context, float [B, Ch, h, w], from which the next frame is drawn.
        """
        x = self._cells(codes) + self.place + self.recall(memory.to(self.place.dtype))  # [B, C, h', w']
        for block in self.blocks:
            x = block(x, actions)
        update, candidate = self.gate(_norm(x)).to(memory.dtype).chunk(2, 1)
        memory = torch.lerp(memory, candidate.tanh(), update.sigmoid())
        pool = self.config.pool
        context = self.context(torch.cat([F.relu(x), memory.to(x.dtype)], 1))
        context = rearrange(context, "b (c p q) h w -> b c (h p) (w q)", p=pool, q=pool)
        # Most of a frame is the frame before it: what was near a place reaches it without passing through the cells.
        return memory, context + self.nearby(self.embed(codes).permute(0, 3, 1, 2))

    @torch.no_grad()
    def draw(self, memory: Tensor, codes: Tensor, actions: Tensor, uniforms: Tensor, temperature: float) -> Draw:
        """Sample the next frame; `uniforms`, float [B, h*w] in [0, 1), decide the codes by inverting their CDFs."""
        memory, context = self.advance(memory, codes, actions)
        codes, log_prob = self.head.draw(context, uniforms, temperature)
        reward_logits, termination_logits = self._outcome(memory, codes)
        reward = reward_logits.float().softmax(-1) @ self.reward_values
        return Draw(memory, codes, log_prob, reward, termination_logits.float().sigmoid())

    def _cells(self, codes: Tensor) -> Tensor:
        """Embedded codes, gathered into memory cells.  [B, h, w] -> [B, C, h', w']"""
        pool = self.config.pool
        cells = rearrange(self.embed(codes), "b (h p) (w q) c -> b h w (p q c)", p=pool, q=pool)
        return cells.permute(0, 3, 1, 2)  # channels last in memory

    def _outcome(self, memory: Tensor, codes: Tensor) -> tuple[Tensor, Tensor]:
        """Reward logits [N, R] and termination logits [N] of arriving at `codes` [N, h, w] with `memory`."""
        features = self.outcome(torch.cat([memory.to(self.place.dtype), self._cells(codes)], 1))
        return self.reward(features), self.termination(features).squeeze(-1)


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
        context = rearrange(context, "n c h w -> n (h w) c")
        # One row past the end stays zero: what a tap sees beyond the frame's edge.
        embedded = context.new_zeros(n, size + 1, self.embed.embedding_dim)
        first = context.new_zeros(n, size + 1, context.shape[-1])
        codes = torch.empty(n, size, dtype=torch.int64, device=context.device)
        log_prob = uniforms.new_zeros(n)
        before, around = self.before.taps(), self.around.taps()
        out_weight, out_bias = self.logits.weight.flatten(1), self.logits.bias
        for here, seen_before, seen_around in self._groups:
            first[:, here] = F.relu(context[:, here] + F.linear(embedded[:, seen_before].flatten(2), *before))
            second = F.relu(first[:, here] + F.linear(first[:, seen_around].flatten(2), *around))
            logits = F.linear(second, out_weight, out_bias).to(uniforms.dtype) / temperature  # [N, n, K]
            drawn, drawn_log_prob = _invert_cdf(logits, uniforms[:, here])
            codes[:, here] = drawn
            embedded[:, here] = self.embed(drawn)
            log_prob += drawn_log_prob.sum(1)
        return codes.view(n, self.rows, self.columns), log_prob

    @cached_property
    def _groups(self) -> list[tuple[Tensor, Tensor, Tensor]]:
        """For each group in turn: its positions [n], and those its two layers look at, [n, taps]."""
        places = [(i, j) for i in range(self.rows) for j in range(self.columns)]
        ranks = sorted({self._rank(i, j) for i, j in places})
        groups = []
        for rank in ranks:
            here = [(i, j) for i, j in places if self._rank(i, j) == rank]
            index = [torch.tensor([i * self.columns + j for i, j in here])]
            for conv in (self.before, self.around):
                index.append(torch.tensor([[self._index(i + a, j + b) for a, b in conv.offsets] for i, j in here]))
            groups.append((index[0], index[1], index[2]))
        return groups

    def _index(self, row: int, column: int) -> int:
        inside = 0 <= row < self.rows and 0 <= column < self.columns
        return row * self.columns + column if inside else self.rows * self.columns


class _MaskedConv(nn.Module):
    """A convolution that sees only the given offsets (row, column) from its centre."""

    mask: Tensor

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
    """Pre-normalised 3x3 and 1x1 convolutions, biased by the action; starts as the identity."""

    def __init__(self, width: int, n_actions: int) -> None:
        super().__init__()
        self.action = nn.Embedding(n_actions, width)
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.normal_(self.action.weight, std=0.5)

    def forward(self, x: Tensor, actions: Tensor) -> Tensor:
        hidden = self.spread(_norm(x)) + self.action(actions)[:, :, None, None]
        mixed: Tensor = self.mix(F.relu(hidden))
        return x + mixed


def _norm(x: Tensor) -> Tensor:
    """Scale each cell's channels to unit root mean square.  [B, C, h, w]"""
    return F.rms_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)


def _offsets(side: int) -> list[tuple[int, int]]:
    reach = range(-(side // 2), side // 2 + 1)
    return [(i, j) for i in reach for j in reach]


def _invert_cdf(logits: Tensor, uniforms: Tensor) -> tuple[Tensor, Tensor]:
    """Sample by inverting the CDF: logits [..., K], uniforms [...] -> codes and their log-probabilities [...]."""
    probability = logits.softmax(-1)
    cdf = probability.cumsum(-1)
    code = torch.searchsorted(cdf, (uniforms * cdf[..., -1]).unsqueeze(-1), right=True)
    code = code.clamp_max(logits.shape[-1] - 1)
    return code.squeeze(-1), probability.gather(-1, code).log().squeeze(-1)
