"""Which of the frames seen some time ago show what is about to be seen? Learned dead reckoning."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


class Recall(nn.Module):
    """Picks frames by what was done since: six turns to the right and six to the left later, the same view returns.

    How often each action was taken between a frame and the frame to come says about where the one was seen from, as
    seen from the other. Each of `heads` learns which such displacements are worth recalling, and mixes the `picks`
    frames that it scores highest, with "nothing" for a rival.
    """

    def __init__(self, n_actions: int, ages: range, heads: int, picks: int, *, width: int = 64) -> None:
        """`ages`: how many steps before the frame to come the frames were seen that may be recalled."""
        super().__init__()
        self.n_actions, self.heads, self.picks = n_actions, heads, picks
        self.oldest = ages[-1]
        self._ages: Tensor  # int64 [P]
        self.register_buffer("_ages", torch.tensor(ages), persistent=False)
        self.count = nn.Linear(n_actions, width)
        self.age = nn.Parameter(torch.zeros(len(ages), width))
        self.mix = nn.Linear(width, width)
        self.score = nn.Linear(width, heads, bias=False)

    def forward(self, actions: Tensor) -> tuple[Tensor, Tensor, Tensor]:
        """For each of the last T - R + 1 frames to come, R the largest age, given T frames and the actions taken there.

        Args:
            actions: int64 [B, T]; `actions[:, -1]` leads to the last frame to come.

        Returns:
            Which frames are recalled, int64 [B, T-R+1, heads, picks] in [0, T); how much of each, float of the same
            shape, at most one in sum over the picks; and what that tells of where they are, float [B, T-R+1, heads, C].
        """
        taken = F.pad(F.one_hot(actions, self.n_actions).cumsum(1), (0, 0, 1, 0))  # [B, T+1, A]
        now = torch.arange(self.oldest, taken.shape[1], device=actions.device)  # [T'] frames to come
        earlier = now[:, None] - self._ages  # [T', P]
        since = (taken[:, now, None] - taken[:, earlier]).to(self.age.dtype)  # [B, T', P, A]
        where = F.relu(self.mix(F.relu(self.count(since) + self.age)))  # [B, T', P, C]
        scores, picked = self.score(where).transpose(2, 3).topk(self.picks)  # [B, T', heads, picks]
        rival = torch.zeros_like(scores[..., :1])
        shares = torch.cat([scores, rival], -1).softmax(-1)[..., :-1]
        told = torch.stack([torch.take_along_dim(where, picked[:, :, h, :, None], 2) for h in range(self.heads)], 2)
        told = (shares[..., None] * told).sum(3)  # [B, T', heads, C]
        frames = torch.take_along_dim(earlier[None, :, None], picked, 3)
        return frames, shares, told
