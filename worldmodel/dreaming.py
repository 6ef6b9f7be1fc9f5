"""What the prior learns from its own dreams, once it knows the recordings: to mend its mistakes."""

import torch
import torch.nn.functional as F
from torch import Tensor

from worldmodel.dynamics import Dynamics
from worldmodel.objectives import DynamicsObjective
from worldmodel.sampling import invert_cdf

DREAMED = 8  # frames of a window's sixteen that may be dreamed, at most
REDRAWN = 0.3  # share of a frame's codes, at most


class DreamingObjective(DynamicsObjective):
    """The same cross entropy; but half of the windows look back on frames that the prior has just dreamed.

    A prior that has only seen true pasts repeats its mistakes, since in a dream they are all that it sees: a dream that
    has come close to a wall stays there, whichever way one turns. Given its own dream, under the true actions, it is
    asked for the true frame ("Data as Demonstrator", Venkatraman et al., 2015).

    The codes of that frame which it sees while it predicts the others would, all being true, be trusted more than those
    of the past; so some of them are its own draws, too. The other half of the windows keeps what it knows.
    """

    name = "dreams"

    def conditions(self, codes: Tensor, actions: Tensor) -> tuple[Tensor, Tensor]:
        around, seen = super().conditions(codes, actions)
        half, given = slice((len(codes) + 1) // 2), self.past + 1
        seen[half] = dream_within(self.model, seen[half], actions[half], given)
        redrawn = redraw(self.model, codes[half], actions[half], seen[half], given)
        return torch.cat([redrawn, around[len(redrawn) :]]), seen


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
def redraw(dynamics: Dynamics, codes: Tensor, actions: Tensor, seen: Tensor, given: int) -> Tensor:
    """Draw up to `REDRAWN` of each row's codes, int64 [B, T, h, w], anew, but none of the first `given` frames.

    Each is drawn as if all the others were there; `actions` and `seen` are those of `Dynamics.code_logits`.
    """
    logits = dynamics.code_logits(codes, actions, seen, given=given)
    drawn, _ = invert_cdf(logits, torch.rand(*logits.shape[:-1], 1, device=codes.device))
    share = REDRAWN * torch.rand(len(codes), 1, 1, 1, device=codes.device)
    chosen = torch.rand(drawn.shape[:-1], device=codes.device) < share
    return torch.cat([codes[:, :given], torch.where(chosen, drawn.squeeze(-1), codes[:, given:])], 1)
