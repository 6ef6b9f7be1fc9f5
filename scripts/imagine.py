"""`worldmodel imagine`: a world model -> a dream, as a picture strip, a film and arrays."""

from dataclasses import dataclass
from io import BytesIO
from pathlib import Path
from zipfile import BadZipFile

import numpy as np
import torch
from torch import Tensor

from scripts.device import FASTEST, Device, check_device
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import check_store
from worldmodel.files import write_bytes
from worldmodel.pictures import strips, write_film, write_png
from worldmodel.sampling import check_seed, check_temperature
from worldmodel.state import WorldState, generators
from worldmodel.world import WorldModel

MOST_TIMES = 1_000_000
FIGURE7_GIVEN, FIGURE7_IMAGINED = 6, 10
FIGURE7_HELD = ("forward", "look right")


@dataclass
class Args:
    """Dream with a world model. The dream starts from the model's own starts, or from a recorded episode."""

    model: str = "dmlab-seekavoid"
    """A bundled name, a folder or a Hub id."""
    out: Path = Path("runs/imagine")
    """Folder for strip.png, dream.mp4 and dream.npz (or figure7.png)."""
    actions: str | None = None
    """What to do: names or ids with repeats ("forward*10, look right*5, none*5"), "none" for a whole dream without
    actions, or a file (.npy or .txt of ids). Without it: the actions of the recorded episode, or the first action
    thirty times."""
    store: str | None = None
    """Start from an episode of this store and, without --actions, show the truth beside the dream."""
    episode: int = 0
    """Which episode of the store."""
    start: int = 0
    """The first frame that is given."""
    given: int = 16
    """Frames of the episode given before the dream begins."""
    seed: int = 0
    """Draws the start and the dream."""
    temperature: float = 1.0
    """Below 1 the dream keeps to what is likely."""
    figure7: bool = False
    """Draw the paper's Figure 7 instead: six given frames, then ten imagined with "forward" held (top), with "look
    right" held (middle) and without any action (bottom)."""
    device: Device = FASTEST


def main(args: Args) -> None:
    check_temperature(args.temperature)
    check_seed(args.seed)
    check_device(args.device)
    if args.figure7 and args.actions is not None:
        raise UserError("Figure 7 chooses its own actions: leave out --figure7 or --actions.")
    least = FIGURE7_GIVEN if args.figure7 else 1
    if args.given < least or min(args.start, args.episode) < 0:
        raise UserError(f"--given is {least} or more, and --start and --episode are 0 or more.")
    if args.store is None and (args.given, args.start, args.episode) != (Args.given, Args.start, Args.episode):
        raise UserError("--given, --start and --episode say where in a --store to start: give one, or leave them out.")
    world = WorldModel.from_pretrained(args.model, device=args.device)
    if args.figure7 and not set(FIGURE7_HELD) <= set(world.action_meanings):
        raise UserError(f'Figure 7 holds "forward" and "look right", and {args.model} does not know both.')
    given, truth, recorded = _start(args, world)
    if args.figure7:
        _draw_figure7(args, world, given)
        return
    actions = _actions(args.actions, world, recorded)
    args.out.mkdir(parents=True, exist_ok=True)
    rollout = world.imagine(given.state, actions[None], rngs=generators(args.seed, 1), temperature=args.temperature)
    frames = rollout.frames()[0].cpu()  # [H, H_px, W_px, 3]
    every = -(-len(frames) // 16)  # a picture that fits a screen
    shown = given.frames[-6:]
    rows = [("dream", torch.cat([shown, frames[::every]]))]
    if len(truth) and args.actions is None:  # under other actions something else would have happened
        rows.insert(0, ("truth", torch.cat([shown, truth[: len(frames) : every]])))
    write_png(args.out / "strip.png", strips(rows, given=len(shown)))
    write_film(args.out / "dream.mp4", torch.cat([given.frames, frames]), world.fps)
    arrays = BytesIO()
    np.savez_compressed(
        arrays,
        frames=frames.numpy(),
        codes=rollout.codes[0].numpy(force=True),
        actions=actions.numpy(),
        rewards=rollout.rewards[0].numpy(force=True),
        terminated=rollout.terminated[0].numpy(force=True),
        log_probs=rollout.log_probs[0].numpy(force=True),
    )
    write_bytes(args.out / "dream.npz", arrays.getvalue())
    ended = rollout.terminated[0].nonzero()
    end = f" up to its end after {int(ended[0]) + 1}" if len(ended) else ""
    expected = float(rollout.returns())
    print(f"{len(frames)} imagined steps; the dream expects a reward of {expected:z.2f}{end}.")
    print(f"See strip.png, dream.mp4 and dream.npz in {args.out}.")


@dataclass
class _Given:
    frames: Tensor  # uint8 [T, H, W, 3]
    state: WorldState


def _start(args: Args, world: WorldModel) -> tuple[_Given, Tensor, Tensor]:
    """What is given, and, from a store, the true frames and actions that follow (else none)."""
    if args.store is None:
        if world.contexts is None:
            raise UserError(f"{args.model} brings no starts of its own; give a recorded one with --store.")
        row = np.random.default_rng([args.seed, 1]).integers(len(world.contexts))  # not what the dream draws from
        count = FIGURE7_GIVEN if args.figure7 else world.contexts.codes.shape[1]
        codes, before = world.contexts.codes[row][None, -count:], world.contexts.actions[row][None, 1 - count :]
        given = _Given(world.video.decode(codes)[0].cpu(), world.observe_codes(codes, before))
        return given, torch.empty(0), torch.empty(0, dtype=torch.int64)
    store = EpisodeStore.open(args.store)
    check_store(store, world)
    if args.episode >= len(store):
        raise UserError(f"{args.store} has episodes 0 to {len(store) - 1}, not {args.episode}.")
    episode = store[args.episode]
    frames, actions = torch.from_numpy(episode.frames), torch.from_numpy(episode.actions)
    first = args.start + args.given  # the first frame to be imagined
    if first >= len(frames):
        raise UserError(
            f"Episode {args.episode} has {len(frames)} frames: with {args.given} given from {args.start} on, "
            "none are left to imagine."
        )
    start = max(args.start, first - FIGURE7_GIVEN) if args.figure7 else args.start
    past = frames[start:first]
    given = _Given(past, world.observe(past[None], actions[None, start : first - 1]))
    return given, frames[first:], actions[first - 1 :]


def _actions(text: str | None, world: WorldModel, recorded: Tensor) -> Tensor:
    """int64 [H] from `--actions`, or else what was recorded."""
    if text is None:
        return recorded if len(recorded) else torch.zeros(30, dtype=torch.int64)
    if text == "none":
        return torch.full((max(len(recorded), 30),), world.no_action)
    path = Path(text)
    if path.suffix in (".npy", ".txt"):
        if not path.is_file():
            raise UserError(f"There is no file of actions {path}.")
        try:
            ids = np.load(path) if path.suffix == ".npy" else np.array(path.read_text().split(), np.int64)
            if ids.ndim != 1 or ids.dtype.kind not in "iu":
                raise ValueError("neither flat nor whole numbers")
            actions = torch.from_numpy(ids.astype(np.int64, casting="safe"))
        except (ValueError, TypeError, EOFError, OverflowError, AttributeError, BadZipFile) as error:
            raise UserError(f"{path} is not a list of action ids.") from error
        if not len(actions):
            raise UserError(f"{path} has no actions: it takes one id at least.")
        if not 0 <= int(actions.min()) <= int(actions.max()) <= world.no_action:
            raise UserError(
                f"{path} has actions from {int(actions.min())} to {int(actions.max())}, and this world knows 0 to "
                f"{world.n_actions - 1} ({world.no_action} for none)."
            )
        return actions
    chosen: list[int] = []
    for part in text.split(","):
        name, star, count = part.partition("*")
        chosen += [action_id(name.strip(), world)] * (_count(count.strip(), part) if star else 1)
    return torch.tensor(chosen)


def action_id(name: str, world: WorldModel) -> int:
    """The id of an action given by name or id. Raises `UserError` for one that the world does not have."""
    names = world.action_meanings
    if name in names:
        return names.index(name)
    if name.isdecimal() and int(name) < world.n_actions:
        return int(name)
    if name == "none":
        return world.no_action
    raise UserError(
        f'There is no action "{name}": this world has {", ".join(f"{i} {n}" for i, n in enumerate(names))}, and none.'
    )


def _count(text: str, part: str) -> int:
    if not text.isdecimal() or not 1 <= int(text) <= MOST_TIMES:
        raise UserError(f'"{part.strip()}" is not an action with a count up to {MOST_TIMES}, like "forward*10".')
    return int(text)


def _draw_figure7(args: Args, world: WorldModel, given: _Given) -> None:
    ids = torch.tensor([*(action_id(name, world) for name in FIGURE7_HELD), world.no_action])
    actions = ids[:, None].expand(-1, FIGURE7_IMAGINED)
    # One generator seed for all rows: they differ by their actions alone.
    rngs = [np.random.default_rng(args.seed) for _ in ids]
    frames = world.imagine(given.state[[0] * len(ids)], actions, rngs=rngs, temperature=args.temperature).frames().cpu()
    labels = [f'given, then imagined with "{name}" held' for name in FIGURE7_HELD] + [
        "given, then imagined without actions"
    ]
    rows = [(label, torch.cat([given.frames, row])) for label, row in zip(labels, frames, strict=True)]
    args.out.mkdir(parents=True, exist_ok=True)
    write_png(args.out / "figure7.png", strips(rows, given=len(given.frames)))
    print(f"Figure 7 is in {args.out / 'figure7.png'}.")
