"""The action-conditioned prior over video codes: p(codes_t | codes_<t, actions_<t), with reward and termination.

All on the grid of the codes, so that what moves in the picture moves in it too. A frame is foreseen from

1. the newest frames, as they are;
2. earlier frames that are recalled because of where the actions have led since (`recall.py`);

by residual convolutions over both, all frames of a window at once, and then drawn one group of codes at a time
(`code_head.py`). The past is a fixed number of frames and actions and nothing else, each step forgetting the oldest, so
a step costs the same at any time.
"""

import math
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from einops import rearrange
from torch import Tensor, nn

from worldmodel.code_head import CodeHead
from worldmodel.errors import UserError
from worldmodel.recall import Recall


@dataclass(frozen=True)
class DynamicsConfig:
    """The shape of the prior."""

    code_shape: tuple[int, int]
    num_codes: int
    n_actions: int
    reward_values: tuple[float, ...]
    """The rewards that occur, ascending: the support of the predicted reward."""
    reach: int = 64
    """Frames of the past that a frame depends on."""
    recent: int = 3
    """The newest of them, which are always looked at."""
    recalls: int = 2
    """Recall heads: each learns what of the others is worth recalling."""
    picks: int = 2
    """Frames that each head picks."""
    width: int = 128
    """Channels of a code's features."""
    blocks: int = 5
    """Residual blocks over them."""
    head_width: int = 128
    """Channels a code in the head that draws the codes of a frame."""
    order: str = "diagonal"
    """"diagonal": all codes of an anti-diagonal at once, h+w-1 passes a frame; "raster": the paper's, h*w passes."""

    def __post_init__(self) -> None:
        if self.order not in ("diagonal", "raster"):
            raise UserError(f'The order within a frame is "diagonal" or "raster", not "{self.order}".')
        if not 0 < self.recent <= self.reach - self.picks:
            raise UserError(f"{self.reach} frames are too few to keep {self.recent} and to pick {self.picks} others.")
        sizes = *self.code_shape, self.num_codes, self.n_actions, self.width, self.head_width
        if min(*sizes, self.recalls, self.picks, self.blocks) < 1:
            raise UserError("A prior's sizes are 1 or more.")
        if not self.reward_values or not all(map(math.isfinite, self.reward_values)):
            raise UserError(f"A prior pays one of some rewards, and not of {list(self.reward_values)}.")


@dataclass
class Prediction:
    """The prior's view of T frames, each given those before it."""

    logits: Tensor  # float [B, T, h, w, K]
    reward_logits: Tensor  # float [B, T, R]: of coming there, over `config.reward_values`
    termination_logits: Tensor  # float [B, T]


@dataclass
class Draw:
    """One sampled frame a row."""

    codes: Tensor  # int64 [B, h, w]
    log_prob: Tensor  # float [B], nats: of the codes under the distribution they were drawn from
    reward: Tensor  # float [B]: expected
    termination: Tensor  # float [B]: probability


class Dynamics(nn.Module):
    """codes_{t-reach+1..t}, actions_{t-reach+1..t} -> codes_{t+1} -> reward_t, termination_t."""

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        self.config = config
        self.no_action = config.n_actions  # an action like the others: "none given"
        width, known_actions = config.width, config.n_actions + 1
        self.recall = Recall(known_actions, range(config.recent + 1, config.reach + 1), config.recalls, config.picks)
        # A table for each frame that is looked at: the recent ones by their age, the recalled ones by who recalls them.
        self.embed = nn.Embedding((config.recent + config.recalls) * config.num_codes, width)
        recalled_by = [config.recent + head for head in range(config.recalls) for _ in range(config.picks)]
        self._tables: Tensor  # int64 [looks]: which table each look is looked up in
        self.register_buffer("_tables", torch.tensor([*range(config.recent), *recalled_by]), persistent=False)
        self.place = nn.Parameter(torch.zeros(*config.code_shape, width))
        self.acts = nn.Embedding(config.recent * known_actions, 64)
        self.told = nn.Linear(config.recalls * 64, 64)
        self.modulate = nn.Linear(64, config.blocks * 2 * width)
        self.blocks = nn.ModuleList(_Block(width) for _ in range(config.blocks))
        self.context = nn.Conv2d(width, config.head_width, 1)
        self.nearby = nn.Conv2d(width, config.head_width, 3, padding=1)
        self.head = CodeHead(config.code_shape, config.num_codes, config.head_width, config.order)
        self.outcome = Outcome(config)

    @property
    def reward_values(self) -> Tensor:
        """The support of the reward, float32 [R], whatever the precision of the weights."""
        return torch.tensor(self.config.reward_values, dtype=torch.float32, device=self.place.device)

    @torch.no_grad()
    def adopt(self, codebook: Tensor) -> None:
        """Start from the tokenizer's view of its codes, float [K, D]: those that look alike are embedded alike."""
        likeness = (codebook - codebook.mean(0)) / codebook.std()
        looks, changes = (part.embed.weight.view(-1, len(codebook), self.config.width) for part in (self, self.outcome))
        for tables in (looks, changes):
            tables *= len(tables) ** -0.5  # they add up
        for table in (*looks, *changes, self.head.embed.weight, self.head.logits.weight):
            directions = torch.randn(codebook.shape[1], table.shape[1], device=table.device)
            spread = table.std() * codebook.shape[1] ** -0.5
            table.copy_((spread * likeness @ directions).view_as(table))

    @torch.no_grad()
    def translate(self, together: Tensor) -> None:
        """Turn from the codes of one tokenizer to those of another, which share the frames' grid.

        `together`, float [K, K], says how often each new code (row) stood where each old one (column) did: a new code
        is taken for the old ones that it stands for, each as likely as that. Its log-probability is then
        E_old|new [log p(old | past) - log p(old)] + log p(new), a lower bound of what the old prior says of it.
        """
        together = together + 1e-3 * torch.eye(len(together)).to(together)  # what is never seen stays what it is
        old = together.sum(0) / together.sum()
        new = together.sum(1) / together.sum()
        meaning = together / together.sum(1, keepdim=True)  # [K, K]: p(old | new)
        logits = self.head.logits
        for weight in (self.embed.weight, self.outcome.embed.weight, self.head.embed.weight, logits.weight):
            tables = weight.view(-1, len(meaning), weight[0].numel())
            weight.copy_((meaning @ tables).view_as(weight))
        logits.bias.copy_(meaning @ (logits.bias - old.log()) + new.log())  # type: ignore[operator, union-attr]

    def past(self, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """The last `reach` frames, int64 [B, reach, h, w], and the actions between them, int64 [B, reach-1].

        Where nothing came before, the first frame stands in for its own past, with no action given.
        """
        known = min(codes.shape[1], self.config.reach)
        missing = self.config.reach - known
        codes, actions = codes[:, -known:], actions[:, actions.shape[1] - known + 1 :]
        none = actions.new_full((len(actions), missing), self.no_action)
        return torch.cat([codes[:, :1].expand(-1, missing, -1, -1), codes], 1), torch.cat([none, actions], 1)

    def forward(self, codes: Tensor, actions: Tensor, *, given: int = 1) -> Prediction:
        """The distribution of every frame but the first `given`, and what coming there brings, each given those before.

        Args:
            codes: int64 [B, T, h, w].
            actions: int64 [B, T-1] in [0, n_actions]; n_actions says that no action is given.
            given: frames that are not predicted.
        """
        foreseen, context = self.foresee_after(codes, actions, given)
        first = codes[:, : max(2 - given, 0)]  # stands in for its own past
        around = torch.cat([first, codes[:, max(given - 2, 0) :]], 1)  # [B, T-given + 2, h, w]
        steps = rearrange(around.unfold(1, 3, 1), "b t h w frames -> (b t) frames h w")
        reward, termination = self.outcome(foreseen, steps)
        shape = {"b": len(codes)}
        return Prediction(
            logits=rearrange(self.head(context, steps[:, -1]), "(b t) k h w -> b t h w k", **shape),
            reward_logits=rearrange(reward, "(b t) r -> b t r", **shape),
            termination_logits=rearrange(termination, "(b t) -> b t", **shape),
        )

    def code_logits(self, codes: Tensor, actions: Tensor, *, given: int) -> Tensor:
        """`forward`'s logits alone."""
        _, context = self.foresee_after(codes, actions, given)
        return rearrange(self.head(context, codes[:, given:].flatten(0, 1)), "(b t) k h w -> b t h w k", b=len(codes))

    def foresee_after(self, codes: Tensor, actions: Tensor, given: int) -> tuple[Tensor, Tensor]:
        """`foresee` of the frames after the first `given` of T, from codes, int64 [B, T, h, w], and their actions."""
        before, moves = self.past(codes[:, :given], actions[:, : given - 1])
        before = torch.cat([before, codes[:, given:-1]], 1)  # [B, reach-1 + T-given, h, w]
        return self.foresee(before, torch.cat([moves, actions[:, given - 1 :]], 1))

    @torch.no_grad()
    def draw(self, codes: Tensor, actions: Tensor, uniforms: Tensor, temperature: float) -> Draw:
        """Sample what follows `reach` frames, int64 [B, reach, h, w], and the action taken at each, int64 [B, reach].

        `uniforms`, float [B, h*w] in [0, 1), decide the codes by inverting their CDFs.
        """
        foreseen, context = self.foresee(codes, actions)
        drawn, log_prob = self.head.draw(context, uniforms, temperature)
        reward_logits, termination_logits = self.outcome(foreseen, torch.cat([codes[:, -2:], drawn[:, None]], 1))
        reward = reward_logits.float().softmax(-1) @ self.reward_values
        return Draw(drawn, log_prob, reward, termination_logits.float().sigmoid())

    def foresee(self, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        """What comes after each of the last N - reach + 1 of N frames, int64 [B, N, h, w], given `reach` each.

        `actions`, int64 [B, N], were taken at the frames. Returns features [B*(N-reach+1), C, h, w] and the context
        for the head [B*(N-reach+1), Ch, h, w].
        """
        recalled, shares, told = self.recall(actions)  # [B, T, heads, picks], the same, [B, T, heads, C]
        seen = self._look(codes, recalled, shares)
        foreseen, done = seen, self._recount(actions, told)
        for block, modulation in zip(self.blocks, self.modulate(done).chunk(len(self.blocks), 1), strict=True):
            foreseen = block(foreseen, modulation)
        foreseen = _norm(foreseen)
        # Most of a frame was there before: what was near a place reaches the head on a short way, too.
        return foreseen, self.context(foreseen) + self.nearby(seen)

    def _look(self, codes: Tensor, recalled: Tensor, shares: Tensor) -> Tensor:
        """Features of the recent frames and of those recalled, [B, T, heads, picks], added up: float [B*T, C, h, w]."""
        config, device = self.config, codes.device
        now = torch.arange(config.reach - 1, codes.shape[1], device=device)  # [T]
        recent = now[:, None] - torch.arange(config.recent, device=device)
        recent = recent.expand(len(codes), -1, -1)  # [B, T, recent]
        frames = torch.cat([recent, recalled.flatten(2)], 2)  # [B, T, looks]
        weight = torch.cat([torch.ones_like(recent, dtype=shares.dtype), shares.flatten(2)], 2)
        views = codes[torch.arange(len(codes), device=device)[:, None, None], frames]  # [B, T, looks, h, w]
        rows = rearrange(views + config.num_codes * self._tables[:, None, None], "b t l h w -> (b t h w) l")
        weight = weight.flatten(0, 1).repeat_interleave(self.place[..., 0].numel(), 0).to(self.embed.weight.dtype)
        looked = F.embedding_bag(rows, self.embed.weight, mode="sum", per_sample_weights=weight)  # [B*T*h*w, C]
        return (looked.view(-1, *self.place.shape) + self.place).permute(0, 3, 1, 2)  # channels last in memory

    def _recount(self, actions: Tensor, told: Tensor) -> Tensor:
        """What was done at the recent frames, and where those recalled are, [B, T, heads, C]: float [B*T, C]."""
        now = torch.arange(self.config.reach - 1, actions.shape[1], device=actions.device)
        ages = torch.arange(self.config.recent, device=actions.device)
        recent = actions[:, now[:, None] - ages] + ages * (self.config.n_actions + 1)  # [B, T, recent]
        return F.relu(self.acts(recent).sum(2) + self.told(told.flatten(2))).flatten(0, 1)


class Outcome(nn.Module):
    """Reward and termination of coming from one frame to the next.

    What is taken is gone from the frame that came. It was in the one before, or, if it was taken from below the view,
    in the one before that: all three are looked at.
    """

    def __init__(self, config: DynamicsConfig) -> None:
        super().__init__()
        rows, columns = config.code_shape
        self.num_codes = config.num_codes
        self.embed = nn.Embedding(3 * config.num_codes, config.width)  # a table a frame
        self.survey = nn.Conv2d(config.width, 64, 3, stride=2, padding=1)
        self.forget = nn.Dropout(0.5)  # rare outcomes are few enough to be learned by heart
        self.judge = nn.Linear(64 * ((rows + 1) // 2) * ((columns + 1) // 2), 128)
        self.reward = nn.Linear(128, len(config.reward_values))
        self.termination = nn.Linear(128, 1)

    def forward(self, foreseen: Tensor, frames: Tensor) -> tuple[Tensor, Tensor]:
        """Reward logits [N, R] and termination logits [N], of coming to the last of three frames.

        `foreseen`, float [N, C, h, w], is what was foreseen of it; `frames` are codes, int64 [N, 3, h, w].
        """
        places = frames.movedim(1, -1)  # [N, h, w, 3]
        rows = places + self.num_codes * torch.arange(3, device=frames.device)
        looks = F.embedding_bag(rows.flatten(0, 2), self.embed.weight, mode="sum")
        looks = looks.view(*places.shape[:3], -1).permute(0, 3, 1, 2)  # [N, C, h, w]
        surveyed = F.relu(self.survey(F.relu(self.forget(foreseen) + looks))).flatten(1)
        features = F.relu(self.judge(self.forget(surveyed)))
        return self.reward(features), self.termination(features).squeeze(-1)


class _Block(nn.Module):
    """Pre-normalised 3x3 and 1x1 convolutions, scaled and biased by what was done; starts as the identity."""

    def __init__(self, width: int) -> None:
        super().__init__()
        self.spread = nn.Conv2d(width, width, 3, padding=1)
        self.mix = nn.Conv2d(width, width, 1)
        nn.init.zeros_(self.mix.weight)
        nn.init.zeros_(self.mix.bias)  # type: ignore[arg-type]

    def forward(self, x: Tensor, modulation: Tensor) -> Tensor:
        scale, bias = modulation[:, :, None, None].chunk(2, 1)
        hidden = torch.addcmul(bias, self.spread(_norm(x)), 1 + scale)
        mixed: Tensor = self.mix(hidden.relu_())
        return x + mixed


def _norm(x: Tensor) -> Tensor:
    """Centre each place's channels and scale them to unit variance.  [N, C, h, w]"""
    return F.layer_norm(x.permute(0, 2, 3, 1), x.shape[1:2]).permute(0, 3, 1, 2)
