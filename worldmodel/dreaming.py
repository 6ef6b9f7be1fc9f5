"""What the prior learns from its own dreams, once it knows the recordings: to mend its mistakes."""

from collections.abc import Mapping

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.code_head import CodeHead
from worldmodel.dynamics import Dynamics
from worldmodel.objectives import DynamicsObjective
from worldmodel.sampling import invert_cdf

DREAMED = 8  # frames of a window's sixteen that may be dreamed, at most
REDRAWN = 0.3  # share of a frame's codes, at most
KEPT = 0.25  # share of the weights that is of the prior before it learned from dreams


@torch.no_grad()
def keep_some(dynamics: Dynamics, before: Mapping[str, Tensor]) -> None:
    """Go a part of the way back, in a straight line, to the weights that a prior had before it learned from dreams.

    There it foresees the recordings nearly as well as before and makes up less than after, and its long dreams stay
    mended ("Robust fine-tuning of zero-shot models", Wortsman et al., 2022).
    """
    for name, weight in dynamics.state_dict().items():
        weight.lerp_(before[name], KEPT)


class DreamingObjective(DynamicsObjective):
    """The same cross entropy; but half of the windows look back on frames that the prior has just dreamed.

    A prior that has only seen true pasts repeats its mistakes, since in a dream they are all that it sees: a dream that
    has come close to a wall stays there, whichever way one turns. Given its own dream, under the true actions, it is
    asked for the true frame ("Data as Demonstrator", Venkatraman et al., 2015).

    The codes of that frame which it sees while it predicts the others would, all being true, be trusted more than those
    of the past; so some of them are its own draws, too. The other half of the windows keeps what it knows.

    Places count by what was truly there a frame earlier, which is not what is seen in a dream: what a dream has lost is
    asked back, and so a little of it is made up elsewhere. Where places count by what is seen, or all alike, or none
    more than the average one, less is made up, but dreams get stuck again: a fifth of the arena's frames were blank
    after 1,000 steps then, none as it is.
    """

    name = "dreams"

    def look_back(self, codes: Tensor, actions: Tensor) -> Tensor:
        seen, half = super().look_back(codes, actions), _half(codes)
        seen[half] = dream_within(self.model, seen[half], actions[half], self.past + 1)
        return seen

    def look_around(self, after: Tensor, context: Tensor) -> Tensor:
        around, half = after.clone(), _half(after)
        frames = around[half].flatten(0, 1)
        around[half] = redraw(self.model.head, frames, context[: len(frames)]).view_as(around[half])
        return around


def _half(windows: Tensor) -> slice:
    """The half of a batch that dreams, rounded up: the only window of a batch of one does."""
    return slice((len(windows) + 1) // 2)


@torch.no_grad()
def dream_within(dynamics: Dynamics, codes: Tensor, actions: Tensor, given: int) -> Tensor:
    """Codes, int64 [B, T, h, w], with a dream under the same actions, int64 [B, T-1], in place of some frames.

    It begins at a random frame after the first `given`, of which there are `reach` at least, and lasts for `DREAMED`
    or to the end.
    """
    length, reach, device = codes.shape[1], dynamics.config.reach, codes.device
    codes, actions = F.pad(codes, (0, 0, 0, 0, 0, DREAMED)), F.pad(actions, (0, DREAMED))  # it may go beyond the end
    past = torch.randint(given, length, (1,), device=device) - reach + torch.arange(reach, device=device)  # [reach]
    for _ in range(DREAMED):
        uniforms = torch.rand(len(codes), codes[0, 0].numel(), device=device)
        drawn = dynamics.draw(codes[:, past], actions[:, past], uniforms, 1.0).codes
        past = past + 1
        codes[:, past[-1:]] = drawn[:, None]
    return codes[:, :length]


@torch.no_grad()
def redraw(head: CodeHead, frames: Tensor, context: Tensor) -> Tensor:
    """Draw up to `REDRAWN` of each frame's codes, int64 [N, h, w], anew, each as if all the others were there.

    `context`, float [N, C, h, w], is what the past says of the frames.
    """
    logits = head(context, frames).movedim(1, -1)
    drawn, _ = invert_cdf(logits, torch.rand(*frames.shape, 1, device=frames.device))
    share = REDRAWN * torch.rand(len(frames), 1, 1, device=frames.device)
    return torch.where(torch.rand(frames.shape, device=frames.device) < share, drawn.squeeze(-1), frames)
