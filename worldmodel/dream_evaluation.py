"""How far to trust a dream: against what really happened, over thousands of steps, and how fast it comes."""

import dataclasses
import os
import time
from functools import partial
from pathlib import Path

import numpy as np
import torch
from torch import Tensor

from worldmodel.errors import UserError
from worldmodel.evaluation import CodedEpisode, Masks
from worldmodel.metrics import Result, gradient_energy, mask_iou, psnr, roc_auc, ssim
from worldmodel.quantizer import perplexity
from worldmodel.state import Rollout, WorldState, generators
from worldmodel.world import WorldModel

CONTEXT = 16  # frames that a dream is given
HORIZON = 20  # steps of a dream that are compared with what happened
ROWS = 32  # dreams at a time
WINDOW = 8  # steps of a dream in which it is to pay what was paid
IN_VIEW = 16  # pixels of a thing that make it visible


@dataclasses.dataclass
class Start:
    """A dream to be compared with what happened: it begins after frame `frame` of an episode."""

    episode: CodedEpisode
    frame: int

    def context(self) -> tuple[Tensor, Tensor]:
        """Codes [CONTEXT, h, w] and actions [CONTEXT - 1] up to and with the frame; fewer near the beginning."""
        first = max(self.frame + 1 - CONTEXT, 0)
        return self.episode.codes[first : self.frame + 1], self.episode.actions[first : self.frame]


def imagine_along(
    world: WorldModel, starts: list[Start], horizon: int, *, seed: int = 0, temperature: float = 1.0
) -> Rollout:
    """Dream `horizon` steps from every start under the actions that were really taken."""
    codes, given = (torch.stack(part) for part in zip(*(start.context() for start in starts), strict=True))
    actions = torch.stack([s.episode.actions[s.frame : s.frame + horizon] for s in starts])
    state, rngs = world.observe_codes(codes, given), generators(seed, len(starts))
    return world.imagine(state, actions, rngs=rngs, temperature=temperature)


def _several(world: WorldModel, starts: list[Start], horizon: int, samples: int) -> list[Rollout]:
    """`samples` dreams from each start, those of one start side by side, ROWS of all at a time."""
    rows = [start for start in starts for _ in range(samples)]
    return [imagine_along(world, rows[i : i + ROWS], horizon, seed=i) for i in range(0, len(rows), ROWS)]


def evaluate_rollouts(
    world: WorldModel,
    episodes: list[CodedEpisode],
    masks: Masks,
    *,
    horizon: int = HORIZON,
    every: int = 5,
    samples: int = 2,
    temperature: float = 1.0,
) -> Result:
    """Dreams under the true actions, by horizon 1 to `horizon`, beside the last given frame held still.

    They start at every `every`-th frame of each episode, `samples` from each, after CONTEXT given frames. For things
    with masks: the IoU of dreamed and true masks, all dreams together, and how often a thing ahead is kept. "Ahead":
    IN_VIEW pixels or more in the middle half of the last given frame. Of the dreams where it is, and where the true
    frame shows IN_VIEW pixels anywhere at that horizon, `kept` is the share whose own frame does too; of those where
    neither true frame shows any, `made_up` is that share.
    """
    starts = [
        Start(episode, frame)
        for episode in episodes
        for frame in range(CONTEXT - 1, len(episode.actions) - horizon + 1, every)
        for _ in range(samples)
    ]
    if not starts:
        raise UserError(f"No held-out episode has {CONTEXT + horizon} frames: record longer ones.")
    pieces: list[tuple[Tensor, ...]] = []
    for i in range(0, len(starts), ROWS):
        some = starts[i : i + ROWS]
        dream = imagine_along(world, some, horizon, seed=i, temperature=temperature).frames()  # [N, H, H_px, W_px, 3]
        truth = torch.stack([s.episode.frames[s.frame : s.frame + horizon + 1] for s in some])
        last, truth = truth[:, :1], truth[:, 1:]
        still = last.expand_as(truth)
        seen = [torch.stack([mask(dream), mask(truth), mask(still)]) for mask in masks.values()]
        pieces.append((*(measure(x, truth) for measure in (psnr, ssim) for x in (dream, still)), *seen))
    names = ["psnr", "psnr_still", "ssim", "ssim_still"]
    joined = [torch.cat(part, dim=0 if part[0].ndim == 2 else 1) for part in zip(*pieces, strict=True)]
    return {
        "starts": len(starts) // samples,
        "samples": samples,
        "context": CONTEXT,
        "temperature": temperature,
        **{name: value.mean(0).tolist() for name, value in zip(names, joined, strict=False)},
        "things": {name: _keeping(*seen) for name, seen in zip(masks, joined[len(names) :], strict=True)},
    }


def _keeping(dream: Tensor, truth: Tensor, still: Tensor) -> Result:
    """Masks, bool [N, H, H_px, W_px], of dreams, of the truth and of the last given frame -> measures by horizon."""
    width = truth.shape[-1]
    in_view = [mask.sum((-2, -1)) >= IN_VIEW for mask in (dream, truth)]  # [N, H]
    ahead = still[..., width // 4 : width - width // 4].sum((-2, -1)) >= IN_VIEW
    real = ahead & in_view[1]
    absent = (still.sum((-2, -1)) == 0) & (truth.sum((-2, -1)) == 0)
    return {
        "iou": [mask_iou(dream[:, h], truth[:, h]) for h in range(truth.shape[1])],
        "iou_still": [mask_iou(still[:, h], truth[:, h]) for h in range(truth.shape[1])],
        "cases": real.sum(0).tolist(),
        "kept": ((in_view[0] & real).sum(0) / real.sum(0)).tolist(),
        "made_up": ((in_view[0] & absent).sum(0) / absent.sum(0)).tolist(),
    }


def evaluate_outcomes(
    world: WorldModel, episodes: list[CodedEpisode], *, lead: int = 4, window: int = WINDOW, samples: int = 8
) -> Result:
    """What dreams pay around what was really paid.

    Dreams of `window` steps under the true actions, `samples` from each start. They start `lead` steps before a step
    whose reward is above ("more") or below ("less") the usual one, their median, or that ends the episode ("end"; as
    many steps earlier as the window needs), and wherever the next `window` steps hold nothing of the kind ("usual").
    Each: how many starts; by how much rewards are "above" and "below" the usual one, summed over the window apart, so
    that neither hides the other: means of the true and of the imagined ones (these until the dream ends); and the share
    of dreams that terminate in it. The AUC is of what is imagined above it ("more") or below it ("less"), averaged over
    samples, against "usual".
    """
    usual = torch.cat([e.rewards for e in episodes]).median()
    starts: dict[str, list[Start]] = {"more": [], "less": [], "end": [], "usual": []}
    for episode in episodes:
        kinds = {"more": episode.rewards > usual, "less": episode.rewards < usual, "end": episode.terminated}
        latest = len(episode.actions) - window
        for name, happens in kinds.items():
            frames = (min(step - lead + 1, latest) for step in happens.nonzero().flatten().tolist())
            starts[name] += [Start(episode, frame) for frame in frames if frame >= CONTEXT - 1]
        event = torch.stack(list(kinds.values())).any(0)
        quiet = (t for t in range(CONTEXT - 1, latest + 1, window) if not event[t : t + window].any())
        starts["usual"] += [Start(episode, frame) for frame in quiet]
    sums: dict[str, dict[str, Tensor]] = {}  # imagined, float [N] each
    result: Result = {}
    for name, some in starts.items():
        if not some:
            continue
        dreams = _several(world, some, window, samples)
        true = torch.stack([s.episode.rewards[s.frame : s.frame + window] for s in some]) - usual  # [N, window]
        imagined = torch.cat([d.until_end(d.rewards - usual) for d in dreams])  # [N * samples, window]
        ended = torch.cat([d.terminated.any(1) for d in dreams]).float().mean()
        result[name] = {"starts": len(some), "terminated": float(ended)}
        sums[name] = {}
        for side, part in {"above": partial(torch.clamp, min=0), "below": partial(torch.clamp, max=0)}.items():
            sums[name][side] = part(imagined).sum(1).view(-1, samples).mean(1)
            result[name][side] = {"true": float(part(true).sum(1).mean()), "imagined": float(sums[name][side].mean())}
    for name, side, sign in (("more", "above", 1), ("less", "below", -1)):
        if {name, "usual"} <= sums.keys():
            event, none = (sign * sums[kind][side] for kind in (name, "usual"))
            result[name]["auc"] = roc_auc(torch.cat([event, none]), torch.arange(len(event) + len(none)) < len(event))
    return {"lead": lead, "window": window, "samples": samples, "kinds": result}


def evaluate_ends(
    world: WorldModel, episodes: list[CodedEpisode], *, every: int = 5, samples: int = 16
) -> Result | None:
    """How probable an end is in the step that brings one, and in others; None where there are not both.

    Shares of dreams of one step, `samples` from each start, given what really happened before it: the probability is
    not learned from true frames (see `worldmodel.outcomes`), and dreams have none. Of steps after CONTEXT frames, and
    of those that bring no end every `every`-th.
    """
    starts: dict[bool, list[Start]] = {True: [], False: []}
    for episode in episodes:
        for frame in range(CONTEXT - 1, len(episode.actions)):
            if (ends := bool(episode.terminated[frame])) or frame % every == 0:
                starts[ends].append(Start(episode, frame))
    if not all(starts.values()):
        return None
    result: Result = {"samples": samples}
    for name, some in {"end": starts[True], "other": starts[False]}.items():
        ended = torch.cat([dream.terminated for dream in _several(world, some, 1, samples)]).float().mean()
        result[name] = {"steps": len(some), "terminated": float(ended)}
    return result


def evaluate_long_dream(world: WorldModel, episodes: list[CodedEpisode], *, steps: int = 10_000) -> Result:
    """One dream of `steps` (10 or more) steps: pace and memory at both ends, and whether its last tenth looks real.

    Sticky random actions: after each step, with probability 0.2, another is drawn from those of the held-out episodes.
    Real frames, and their reconstructions, are all of the held-out episodes; the mean perplexity of single episodes is
    given too, since one place shows less than many.
    """
    rng, dream_rngs = np.random.default_rng(0), generators(0, 1)
    choices = torch.cat([e.actions for e in episodes])
    start = Start(episodes[0], min(CONTEXT, len(episodes[0].actions)) - 1)
    codes, given = start.context()
    state, action = world.observe_codes(codes[None], given[None]), choices[:1]
    tenth = steps // 10
    seconds, bad, last = [], 0, []
    memory = {}
    for step in range(steps):
        if rng.random() < 0.2:
            action = choices[rng.integers(len(choices), size=1)]
        began = time.perf_counter()
        drawn = world.step(state, action, rngs=dream_rngs)
        state = drawn.state
        seconds.append(time.perf_counter() - began)
        numbers = (drawn.reward, drawn.log_prob)
        bad += sum(int((~torch.isfinite(x)).sum()) for x in numbers)
        if step >= steps - tenth:
            last.append(drawn.codes)
        if step + 1 in (tenth, steps):
            memory[step + 1] = {"state_bytes": _bytes(state), "resident_bytes": resident()}
    dreamed = torch.cat(last)  # [steps / 10, h, w]
    k = world.num_codes
    sample = [(e.frames[::4], world.video.decode(e.codes[None])[0, ::4]) for e in episodes]
    return {
        "steps": steps,
        "milliseconds_a_step": {
            "first_tenth": 1000 * float(np.median(seconds[:tenth])),
            "last_tenth": 1000 * float(np.median(seconds[-tenth:])),
        },
        "memory_after": memory,
        "not_finite": bad,
        "code_perplexity": {
            "dream_last_tenth": float(perplexity(dreamed, k)),
            "real": float(perplexity(torch.cat([e.codes for e in episodes]), k)),
            "real_one_episode": float(np.mean([float(perplexity(e.codes, k)) for e in episodes])),
        },
        "gradient_energy": {
            "dream_last_tenth": float(gradient_energy(world.video.decode(dreamed[None])).mean()),
            "real": float(torch.cat([gradient_energy(real) for real, _ in sample]).mean()),
            "reconstructed": float(torch.cat([gradient_energy(decoded) for _, decoded in sample]).mean()),
        },
    }


def _bytes(state: WorldState) -> int:
    return sum(tensor.nbytes for tensor in vars(state).values())


def resident() -> int | None:
    """Resident memory of this process; None on systems that do not tell as Linux does."""
    statm = Path("/proc/self/statm")
    return int(statm.read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") if statm.exists() else None
