"""What the prior's outcomes, reward and termination, are trained for, once its frames are learned."""

import math

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.dynamics import Dynamics
from worldmodel.episodes import EpisodeStore
from worldmodel.objectives import blur, withhold
from worldmodel.sampling import invert_cdf
from worldmodel.step import Batch
from worldmodel.windows import WindowDataset

OFTEN = 0.5  # share of the steps shown that are drawn from those with a rare outcome


class OutcomeDataset(WindowDataset):
    """Single steps with their past, half of them drawn from those with a rare outcome: an end, or an unusual reward.

    Items are those of `WindowDataset`, of two frames. `unusual`, bool [R], says which of `reward_values` are shown more
    often than they occur.
    """

    def __init__(
        self, store: EpisodeStore, codes: Tensor, past: int, *, reward_values: Tensor, size: int, seed: int
    ) -> None:
        super().__init__(store, 2, size=size, seed=seed, frames=codes, past=past)
        ends = store.flat("terminated")
        classes = reward_classes(torch.from_numpy(store.flat("rewards")), reward_values.cpu()).numpy()
        counts = np.bincount(classes, minlength=len(reward_values))
        unusual = np.arange(len(counts)) != counts.argmax()
        if (unusual[classes] | ends).mean() >= OFTEN:
            unusual[:] = False  # rewards are seen often enough
        self.unusual = torch.from_numpy(unusual)
        self.shares = torch.from_numpy((counts + 1) / (len(ends) + len(counts)))  # of each class, none of them 0
        self.share_of_ends = (int(ends.sum()) + 1) / (len(ends) + 2)
        self._rare = np.flatnonzero(unusual[classes] | ends)
        share = len(self._rare) / len(ends)
        self.boost = (1 - OFTEN + OFTEN / share) / (1 - OFTEN) if share else 1.0
        """How many times more often a rare step is shown than any other, by their shares in the recordings."""

    def locate(self, index: int) -> tuple[int, int]:
        """(episode, step) of item `index`."""
        any_step = super().locate(index)
        rng = np.random.default_rng((self.seed, index, 1))
        if not len(self._rare) or rng.random() >= OFTEN:
            return any_step
        step = int(rng.choice(self._rare))
        episode = int(np.searchsorted(self._first_step, step, side="right")) - 1
        return episode, step - int(self._first_step[episode])


class OutcomeObjective:
    """Cross entropy of the reward and the termination of a step, given a frame as the prior draws it.

    The logits learn what is true of the recordings: where a class is shown more often than it occurs, the logarithm of
    how much more is added to its logit for the loss (logit adjustment, Menon et al., 2021). Weighing the loss instead
    would be as true, and would have the few rare steps count for next to nothing.

    A reward is judged by a frame each code of which is drawn given the true ones before it, so that it is about the
    frame that came, in the prior's own words: what the prior cannot draw, such as a score in the picture, a reward must
    not rely on. An end is judged by a frame that the prior drew alone, as in dreams, so that its probability is right
    given what came before. The true codes would give it away: a last frame may be like no other, and the prior, which
    saw few, will not draw its like as often as worlds end. The prior itself stays as it is.
    """

    name = "outcomes"

    def __init__(self, dynamics: Dynamics, store: EpisodeStore, codes: Tensor, *, size: int, seed: int = 0) -> None:
        """`codes`: int16 [F, h, w], all frames of the store."""
        self.dynamics, self.model = dynamics, dynamics.outcome
        self.reward_values = dynamics.reward_values
        self.dataset = OutcomeDataset(
            store, codes, dynamics.config.reach - 1, reward_values=self.reward_values, size=size, seed=seed
        )
        self._unusual = self.dataset.unusual.to(self.reward_values.device)

    @torch.no_grad()
    def adopt_shares(self, *, ends: bool = True) -> None:
        """Start from how often each reward and, if asked, an end occurs: most of the way for what is rare."""
        self.model.reward.bias.copy_(self.dataset.shares.log())
        if ends:
            self.model.termination.bias.fill_(torch.tensor(self.dataset.share_of_ends).logit())

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        past, no_action = self.dynamics.config.reach - 1, self.dynamics.no_action
        codes, actions = withhold(batch["frames"].long(), batch["actions"], past, no_action)  # [B, reach + 1, h, w]
        with torch.no_grad():
            before = blur(codes[:, :-1])
            foreseen, context = self.dynamics.foresee(before, actions)
            logits = self.dynamics.head(context, codes[:, -1]).movedim(1, -1).float()
            after = invert_cdf(logits, torch.rand_like(logits[..., :1]))[0].squeeze(-1)  # [B, h, w]
            uniforms = torch.rand(len(after), after[0].numel(), device=after.device)
            alone, _ = self.dynamics.head.draw(context, uniforms, 1.0)  # [B, h, w]
        reward_logits, _ = self.model(foreseen, torch.cat([before[:, -2:], after[:, None]], 1))
        _, termination_logits = self.model(foreseen, torch.cat([before[:, -2:], alone[:, None]], 1))
        reward_class = reward_classes(batch["rewards"].squeeze(1), self.reward_values)
        unusual, ends = self._unusual[reward_class], batch["terminated"].squeeze(1)
        boost = self.dataset.boost
        shown = reward_logits.float() + math.log(boost) * self._unusual
        # A step that is shown for its end is of a usual reward too often, and one shown for its reward ends too rarely.
        weight = torch.where(ends & ~unusual, 1 / boost, 1.0)
        reward = (F.cross_entropy(shown, reward_class, reduction="none") * weight).mean()
        weight = torch.where(unusual & ~ends, 1 / boost, 1.0)
        shown = termination_logits.float() + math.log(boost)
        termination = F.binary_cross_entropy_with_logits(shown, ends.float(), weight)
        return reward + termination, {"reward": reward, "termination": termination}

    def pictures(self) -> dict[str, Tensor]:
        return {}

    def trouble(self) -> str | None:
        return None


def reward_classes(rewards: Tensor, values: Tensor) -> Tensor:
    """Which of the values, float [R], is the nearest to each reward, float [N]: int64 [N]."""
    return (rewards[:, None] - values).abs().argmin(-1)
