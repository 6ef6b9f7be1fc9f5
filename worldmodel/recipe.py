"""From a store of episodes to a world model: the tokenizer, the codes it gives the recordings, the prior over them."""

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import torch
from torch import Tensor

from worldmodel.coded_store import coded_store
from worldmodel.dreaming import DreamingObjective, keep_some
from worldmodel.dynamics import DynamicsConfig
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.evaluation import CodedEpisode
from worldmodel.objectives import DynamicsObjective, VideoObjective
from worldmodel.outcomes import OutcomeObjective
from worldmodel.progress import track
from worldmodel.same_world import same_actions
from worldmodel.state import ContextBank
from worldmodel.training import FitConfig, check_checkpoint, check_schedules, fit
from worldmodel.video import VideoConfig, VideoVQVAE, video_preset
from worldmodel.windows import WindowDataset
from worldmodel.world import WorldConfig, WorldModel, fast_layout

CONTEXTS, CONTEXT_FRAMES = 256, 32  # starts that travel with a model
OUTCOME_BATCH, OUTCOME_LR = 32, 1e-3
MAX_REWARDS = 32  # values that the predicted reward may take


@dataclass
class Recipe:
    """What is trained, and for how long."""

    preset: Literal["compact", "paper"] = "compact"
    """Shape of the tokenizer: "compact" (12x12 codes for 84x84 frames) or "paper" (21x21)."""
    order: Literal["diagonal", "raster"] = "diagonal"
    """Order in which the codes of a frame are drawn; "raster" is the paper's, and slower."""
    tokenizer_steps: int = 9_000
    prior_steps: int = 12_000
    """Steps of the prior on recordings; with 0 it stays what it is at the start."""
    dream_steps: int = 600
    """Steps in which the prior then learns from its own dreams, at half the rate; 0 leaves them out. They keep long
    dreams from getting stuck, and cost .4 to .6 dB in short ones."""
    outcome_steps: int = 1_500
    """Steps of the reward and the termination, once the prior is learned."""
    tokenizer_batch: int = 12
    """Windows of two frames in a step of the tokenizer."""
    prior_batch: int = 4
    """Windows of sixteen frames, with their past, in a step of the prior."""
    tokenizer_lr: float = 1.5e-3
    """Peak learning rate of the tokenizer."""
    prior_lr: float = 4e-3
    """Peak learning rate of the prior."""
    seed: int = 0

    def __post_init__(self) -> None:
        if min(self.tokenizer_steps, self.outcome_steps) < 1 or min(self.prior_steps, self.dream_steps) < 0:
            raise UserError("Steps are 1 or more (those of the prior and of its dreams 0 or more).")
        check_schedules((self.tokenizer_batch, self.prior_batch), (self.tokenizer_lr, self.prior_lr), self.seed)


def check_checkpoints(recipe: Recipe, *, tokenizer: Path, prior: Path) -> None:
    """Raise `UserError` when a training in these folders is damaged or has had more steps than the recipe gives it."""
    check_checkpoint(tokenizer, recipe.tokenizer_steps)
    check_checkpoint(prior, recipe.prior_steps)
    check_checkpoint(_dreams(recipe, prior), recipe.dream_steps)
    check_checkpoint(_outcomes(recipe, prior), recipe.outcome_steps)


def check_from_scratch(recipe: Recipe) -> None:
    """Raise `UserError` for a recipe by which no prior can be made from nothing."""
    if not recipe.prior_steps:
        raise UserError("A prior from scratch learns nothing in 0 steps: give it some, or a model to start from.")


def check_trainable(
    store: EpisodeStore,
    recipe: Recipe,
    *,
    tokenizer: VideoVQVAE | None = None,
    start: WorldModel | None = None,
    prior: bool = True,
) -> None:
    """Raise `UserError` for whatever would stop the training of a tokenizer, and of a `prior`, later on."""
    WindowDataset(store, DynamicsObjective.window, size=1)
    if start is None and prior:
        check_from_scratch(recipe)
    video = tokenizer.config if tokenizer else _video_config(store, recipe, start)
    if video.frame_size != store.frame_shape[:2]:
        raise UserError(
            f"The tokenizer sees frames of {video.frame_size[0]}x{video.frame_size[1]}, those of {store.address} are "
            f"{store.frame_shape[0]}x{store.frame_shape[1]}; train without --{'tokenizer' if tokenizer else 'init'}."
        )
    if start is None:
        return
    if not tokenizer and video.code_shape != (asked := video_preset(recipe.preset, video.frame_size).code_shape):
        raise UserError(
            f"The model to start from has {video.code_shape[0]}x{video.code_shape[1]} codes a frame, and --preset "
            f"{recipe.preset} is of {asked[0]}x{asked[1]}: give its own preset, or train without --init."
        )
    mine, theirs = _config(store, video, recipe, start).dynamics, start.config.dynamics
    if prior and mine.order != theirs.order:
        raise UserError(
            f"The model to start from draws in {theirs.order} order: mend --order, or train without --init."
        )
    same = same_actions(start.action_meanings, store.provenance["action_meanings"])
    if prior and not (same and replace(mine, reward_values=theirs.reward_values) == theirs):
        raise UserError("The model to start from has other actions or shapes; train without --init.")


def learn_tokenizer(
    store: EpisodeStore, recipe: Recipe, folder: Path, device: str, *, start: WorldModel | None = None
) -> VideoVQVAE:
    """Train a video VQ-VAE, or go on with it, in `folder`; its weights are rounded to what will be saved.

    It begins with the weights of `start`'s, if given.
    """
    torch.manual_seed(recipe.seed)
    video = fast_layout(VideoVQVAE(_video_config(store, recipe, start)).to(device))
    if start is not None:
        video.load_state_dict(start.video.state_dict())
    objective = VideoObjective(video, store, size=recipe.tokenizer_steps * recipe.tokenizer_batch, seed=recipe.seed)
    fit(
        objective,
        FitConfig(recipe.tokenizer_steps, recipe.tokenizer_batch, recipe.tokenizer_lr, seed=recipe.seed),
        folder,
    )
    return video.bfloat16().float().eval()


def learn_prior(
    store: EpisodeStore, video: VideoVQVAE, recipe: Recipe, folder: Path, *, start: WorldModel | None = None
) -> WorldModel:
    """Train the prior over the codes that `video` gives the store, or go on with it, in `folder`; then its outcomes.

    It begins with the weights of `start`'s, if given, translated where that has other codes; but rewards that `start`
    does not know are learned anew.
    """
    codes, salience = coded_store(video, store, folder)
    torch.manual_seed(recipe.seed)
    world = fast_layout(WorldModel(_config(store, video.config, recipe, start)).to(video.device))
    world.video = video
    new_rewards = start is None or start.config.dynamics.reward_values != world.config.dynamics.reward_values
    if start is None:
        world.dynamics.adopt(video.quantizer.embedding)
    else:
        weights = start.dynamics.state_dict()
        known = {name: weight for name, weight in weights.items() if not (new_rewards and "outcome.reward." in name)}
        world.dynamics.load_state_dict(known, strict=not new_rewards)
        if not torch.equal(video.quantizer.embedding, start.video.quantizer.embedding):
            world.dynamics.translate(_together(codes, start.video, store).to(video.device))

    def learn(kind: type[DynamicsObjective], schedule: FitConfig, folder: Path) -> None:
        size = schedule.steps * schedule.batch_size
        fit(kind(world, store, codes, salience.to(video.device), size=size, seed=schedule.seed), schedule, folder)

    schedule = FitConfig(recipe.prior_steps, recipe.prior_batch, recipe.prior_lr, seed=recipe.seed)
    learn(DynamicsObjective, schedule, folder)
    if recipe.dream_steps:
        before = {name: weight.clone() for name, weight in world.dynamics.state_dict().items()}
        # By another seed: other windows than those that the prior saw first.
        schedule = FitConfig(recipe.dream_steps, recipe.prior_batch, recipe.prior_lr / 2, seed=recipe.seed + 1)
        learn(DreamingObjective, schedule, _dreams(recipe, folder))
        keep_some(world.dynamics, before)
    outcomes = OutcomeObjective(
        world.dynamics.eval(), store, codes, size=recipe.outcome_steps * OUTCOME_BATCH, seed=recipe.seed
    )
    if new_rewards:
        outcomes.adopt_shares(ends=start is None)
    schedule = FitConfig(recipe.outcome_steps, OUTCOME_BATCH, OUTCOME_LR, seed=recipe.seed)
    fit(outcomes, schedule, _outcomes(recipe, folder))
    world.contexts = _contexts(store, codes)
    return world.eval()


def _together(codes: Tensor, video: VideoVQVAE, store: EpisodeStore) -> Tensor:
    """How often each of a store's codes, int16 [F, h, w], stands where each of `video`'s would: float [K, K]."""
    k, episodes = video.config.num_codes, track(range(len(store)), "Encoding episodes")
    others = torch.cat([CodedEpisode.read(store, i, video).codes.cpu() for i in episodes])
    return torch.bincount((codes.long() * k + others).flatten(), minlength=k**2).float().view(k, k)


def _dreams(recipe: Recipe, prior: Path) -> Path:
    """Where the prior's dreams are kept: after one that went on they are learned anew, and so is what follows."""
    return prior / f"dreams_after_{recipe.prior_steps}"


def _outcomes(recipe: Recipe, prior: Path) -> Path:
    return prior / f"outcomes_after_{recipe.prior_steps}_and_{recipe.dream_steps}"


def _video_config(store: EpisodeStore, recipe: Recipe, start: WorldModel | None) -> VideoConfig:
    """The shape of a tokenizer: that of the model it starts from, or the preset's."""
    if start:
        return start.config.video
    height, width, _ = store.frame_shape
    return video_preset(recipe.preset, (height, width))


def _config(store: EpisodeStore, video: VideoConfig, recipe: Recipe, start: WorldModel | None) -> WorldConfig:
    rewards, counts = np.unique(store.flat("rewards"), return_counts=True)
    commonest = rewards[counts.argmax()]
    rewards = _few(rewards, commonest)
    if start:
        known = np.array(start.config.dynamics.reward_values, np.float32)
        rewards = _few(np.union1d(known, rewards), commonest)
    dynamics = DynamicsConfig(
        code_shape=video.code_shape,
        num_codes=video.num_codes,
        n_actions=store.n_actions,
        reward_values=tuple(float(r) for r in rewards),
        order=recipe.order,
    )
    provenance = store.provenance
    return WorldConfig(video, dynamics, tuple(provenance["action_meanings"]), provenance["fps"])


def _few(values: np.ndarray, kept: np.float32) -> np.ndarray:
    """All values, ascending, if they are few enough, else some spread over them, with one that is kept to the digit."""
    if len(values) <= MAX_REWARDS:
        return values
    return np.union1d(np.quantile(values, np.linspace(0, 1, MAX_REWARDS - 1)).astype(np.float32), kept)


def _contexts(store: EpisodeStore, codes: Tensor) -> ContextBank:
    """Starts for dreams: moments of the recordings at which nothing has ended yet, with their past, as codes."""
    windows = WindowDataset(store, 2, size=4 * CONTEXTS, frames=codes, past=CONTEXT_FRAMES - 2)
    items = [windows[i] for i in range(len(windows))]
    items = [item for item in items if not item["terminated"].any()][:CONTEXTS]
    return ContextBank(*(torch.stack([item[name] for item in items]).long() for name in ("frames", "actions")))
