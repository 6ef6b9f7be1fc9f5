"""`worldmodel train`: a store of episodes -> a world model."""

import dataclasses
import json
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

import numpy as np
import torch
import tyro
from torch import Tensor

from worldmodel.dynamics import DynamicsConfig
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.files import write_text
from worldmodel.objectives import DynamicsObjective, VideoObjective, encode_store
from worldmodel.salience import PixelWeight, code_salience
from worldmodel.state import ContextBank
from worldmodel.training import FitConfig, fit
from worldmodel.video import VIDEO_PRESETS, VideoVQVAE
from worldmodel.windows import WindowDataset
from worldmodel.world import WorldConfig, WorldModel, fast_layout

CONTEXTS, CONTEXT_FRAMES = 256, 8  # starts that travel with a model


@dataclass
class Args:
    """Train a world model: first the tokenizer (the video VQ-VAE), then the prior over its codes.

    Run the same command again to go on after an interruption: each part resumes from its last checkpoint.
    """

    store: Annotated[str, tyro.conf.Positional]
    """Episodes to learn from: the address of a store, made by `worldmodel collect` or `worldmodel import`."""
    out: Path
    """Folder for checkpoints, TensorBoard logs and, at the end, the model itself (OUT/model)."""
    preset: Literal["compact", "paper"] = "compact"
    """Shape of the tokenizer: "compact" (12x12 codes for 84x84 frames) or "paper" (21x21)."""
    tokenizer: str | None = None
    """Take the tokenizer of this model (a bundled name, a folder, a Hub id) as it is, and train the prior alone."""
    stage: Literal["both", "tokenizer"] = "both"
    """Stop after the tokenizer, or train both."""
    order: Literal["diagonal", "raster"] = "diagonal"
    """Order in which the codes of a frame are drawn; "raster" is the paper's, and slower."""
    tokenizer_steps: int = 9_000
    prior_steps: int = 8_000
    tokenizer_batch: int = 12
    """Windows of two frames in a step of the tokenizer."""
    prior_batch: int = 3
    """Windows of sixteen frames in a step of the prior."""
    seed: int = 0
    device: str = "cuda" if torch.cuda.is_available() else "cpu"


def main(args: Args) -> None:
    store = EpisodeStore.open(args.store)
    if not len(store):
        raise UserError(f"{args.store} is empty: record or import some episodes first.")
    args.out.mkdir(parents=True, exist_ok=True)
    write_text(args.out / "train.json", json.dumps(dataclasses.asdict(args), default=str, indent=2) + "\n")
    try:
        video = _tokenizer(args, store)
        if args.stage == "both":
            world = _prior(args, store, video)
            world.save_pretrained(args.out / "model", card=_card(args, store, world))
            print(f"The model is in {args.out / 'model'}: try `worldmodel imagine --model {args.out / 'model'}`.")
    except KeyboardInterrupt:
        print("\nStopped; the same command goes on from here.")
        raise


def _tokenizer(args: Args, store: EpisodeStore) -> VideoVQVAE:
    """The trained video VQ-VAE, its weights already rounded to what will be saved."""
    if args.tokenizer is not None:
        world = WorldModel.from_pretrained(args.tokenizer, device=args.device)
        if world.frame_shape != store.frame_shape:
            raise UserError(
                f"The tokenizer of {args.tokenizer} sees frames {world.frame_shape}, those of {args.store} are "
                f"{store.frame_shape}; train without --tokenizer."
            )
        return world.video
    height, width, _ = store.frame_shape
    config = dataclasses.replace(VIDEO_PRESETS[args.preset], frame_size=(height, width))
    video = fast_layout(VideoVQVAE(config).to(args.device))
    folder = args.out / "tokenizer"
    objective = VideoObjective(video, store, size=args.tokenizer_steps * args.tokenizer_batch, seed=args.seed)
    fit(objective, FitConfig(args.tokenizer_steps, args.tokenizer_batch, 2e-3, seed=args.seed), folder)
    return video.bfloat16().float().eval()


def _prior(args: Args, store: EpisodeStore, video: VideoVQVAE) -> WorldModel:
    codes = encode_store(video, store)
    frames = torch.from_numpy(store.flat("frames"))
    sample = slice(None, None, max(1, len(codes) // 5000))
    salience = code_salience(PixelWeight(store, frames), codes[sample], frames[sample], video.config.num_codes)
    rewards = np.unique(store.flat("rewards"))
    if len(rewards) > 32:
        rewards = np.unique(np.quantile(rewards, np.linspace(0, 1, 32)))
    dynamics = DynamicsConfig(
        code_shape=video.config.code_shape,
        num_codes=video.config.num_codes,
        n_actions=store.n_actions,
        reward_values=tuple(float(r) for r in rewards),
        order=args.order,
    )
    provenance = store.provenance
    config = WorldConfig(video.config, dynamics, tuple(provenance["action_meanings"]), provenance["fps"])
    torch.manual_seed(args.seed)
    world = fast_layout(WorldModel(config).to(args.device))
    world.video = video
    world.dynamics.adopt(video.quantizer.embedding)
    size = args.prior_steps * args.prior_batch
    objective = DynamicsObjective(world, store, codes, salience.to(args.device), size=size, seed=args.seed)
    fit(objective, FitConfig(args.prior_steps, args.prior_batch, 4e-3, seed=args.seed), args.out / "prior")
    world.contexts = _contexts(store, codes)
    return world.eval()


def _contexts(store: EpisodeStore, codes: Tensor) -> ContextBank:
    """Starts for dreams: windows of the recordings, as codes."""
    windows = WindowDataset(store, CONTEXT_FRAMES, size=CONTEXTS, frames=codes)
    items = [windows[i] for i in range(CONTEXTS)]
    return ContextBank(*(torch.stack([item[name] for item in items]).long() for name in ("frames", "actions")))


def _card(args: Args, store: EpisodeStore, world: WorldModel) -> str:
    """The model card: what the model has seen, and the command that made it."""
    provenance = store.provenance
    settings = ", ".join(f"{k}={v}" for k, v in provenance.get("env_kwargs", {}).items())
    rows, columns = world.code_shape
    tokenizer = f"--tokenizer {args.tokenizer}" if args.tokenizer else f"--tokenizer-steps {args.tokenizer_steps}"
    steps = f"{tokenizer} --prior-steps {args.prior_steps} --seed {args.seed}"
    return f"""# A world model of {provenance["env_id"]} {settings}

Learned from {len(store)} episodes ({int(store.lengths.sum())} steps, {provenance["fps"]:g} a second) with `worldmodel`:

    worldmodel train STORE --out OUT --preset {args.preset} {steps}

- Frames: {" x ".join(map(str, world.frame_shape))}, as {rows} x {columns} codes of {world.num_codes}.
- Actions: {", ".join(f"{i} {name}" for i, name in enumerate(world.action_meanings))}.
- Rewards seen: {", ".join(f"{r:g}" for r in world.config.dynamics.reward_values)}.
- Order within a frame: {world.config.dynamics.order}.

Dream with it: `worldmodel imagine --model FOLDER`, or `gymnasium.make("envs:worldmodel/Imagined-v0", model=FOLDER)`.
"""
