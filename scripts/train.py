"""`worldmodel train`: a store of episodes -> a world model."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, Literal

import tyro

from scripts.command import command_line
from scripts.device import FASTEST, Device, check_device
from scripts.settings import write_settings
from scripts.unused import refuse_unused
from worldmodel.digest import weights_digest
from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError
from worldmodel.folders import check_room
from worldmodel.recipe import Recipe, check_checkpoints, check_trainable, learn_prior, learn_tokenizer
from worldmodel.tokenizer import load_tokenizer, save_tokenizer
from worldmodel.video import VideoVQVAE
from worldmodel.world import WorldModel

MAY_DIFFER = {"out", "stage", "device", *(f.name for f in dataclasses.fields(Recipe))} - {"preset", "order", "seed"}
"""What may be another when a training goes on."""
OF_TOKENIZER = ("preset", "tokenizer_steps", "tokenizer_batch", "tokenizer_lr")
"""What a recipe says of the tokenizer alone."""


@dataclass
class Args:
    """Train a world model: the tokenizer (the video VQ-VAE), then the prior over its codes, on the recordings and then
    on its own dreams, then rewards and ends.

    Run the same command again to go on after an interruption: each part resumes from its last checkpoint. With more
    prior steps a finished training goes on, too.
    """

    store: Annotated[str, tyro.conf.Positional]
    """Episodes to learn from: the address of a store, made by `worldmodel collect` or `worldmodel import`."""
    out: Path
    """Folder for checkpoints, TensorBoard logs and, at the end, the model itself (OUT/model)."""
    tokenizer: str | None = None
    """Take this tokenizer as it is, and train the prior alone: that of a model (a bundled name, a folder, a Hub id), or
    one that --stage tokenizer has made."""
    init: str | None = None
    """Start from the weights of this model (a bundled name, a folder, a Hub id) instead of from random ones. Its prior
    is translated where the tokenizer has become, or --tokenizer is, another."""
    stage: Literal["both", "tokenizer"] = "both"
    """Train both, or the tokenizer alone (OUT/tokenizer/model)."""
    device: Device = FASTEST
    recipe: Annotated[Recipe, tyro.conf.arg(name="")] = field(default_factory=Recipe)


def main(args: Args) -> None:
    check_device(args.device)
    if args.tokenizer and args.stage == "tokenizer":
        raise UserError("With --tokenizer there is no tokenizer to train: leave out one of --tokenizer and --stage.")
    if args.tokenizer:
        refuse_unused(args.recipe, *OF_TOKENIZER, where="with --tokenizer, which is trained")
    store = EpisodeStore.open(args.store)
    given = None if args.tokenizer is None else load_tokenizer(args.tokenizer, device=args.device)
    start = None if args.init is None else WorldModel.from_pretrained(args.init, device=args.device)
    check_trainable(store, args.recipe, tokenizer=given, start=start, prior=args.stage == "both")
    tokenizer, prior, model = (args.out / part for part in ("tokenizer", "prior", "model"))
    # Codes mean what they do to one tokenizer alone, so a prior that goes on needs that very one.
    one_tokenizer = {"tokenizer_steps"} if prior.exists() and not args.tokenizer else set()
    kept = tokenizer / "model"  # of the tokenizer alone
    check_room(model if args.stage == "both" else kept)
    check_checkpoints(args.recipe, tokenizer=tokenizer, prior=prior)
    learned_from = {
        "episodes": len(store),
        "codebook": None if given is None else given.codebook_fingerprint(),
        "init_weights": weights_digest(start),
    }
    write_settings(args.out, {**_settings(args), **learned_from}, MAY_DIFFER - one_tokenizer)
    video = given
    if video is None:
        video = learn_tokenizer(store, args.recipe, tokenizer, args.device, start=start)
    if args.stage == "both":
        world = learn_prior(store, video, args.recipe, prior, start=start)
        world.save_pretrained(model, card=_world_card(args, store, world))
        print(f"The model is in {model}: try `worldmodel imagine --model {model}`.")
    else:
        save_tokenizer(video, kept, card=_tokenizer_card(args, store, video))
        print(f"The tokenizer is in {kept}, for --tokenizer; the same command without --stage goes on with the prior.")


def _settings(args: Args) -> dict[str, Any]:
    settings = dataclasses.asdict(args)
    return {**settings.pop("recipe"), **settings}


def _world_card(args: Args, store: EpisodeStore, world: WorldModel) -> str:
    more = f"""
- Actions: {", ".join(f"{i} {name}" for i, name in enumerate(world.action_meanings))}.
- Rewards seen: {", ".join(f"{r:g}" for r in world.config.dynamics.reward_values)}.
- Order within a frame: {world.config.dynamics.order}.

Dream with it: `worldmodel imagine --model FOLDER`, or `gymnasium.make("envs:worldmodel/Imagined-v0", model=FOLDER)`.
"""
    return _card("A world model", args, store, world.video, more)


def _tokenizer_card(args: Args, store: EpisodeStore, video: VideoVQVAE) -> str:
    more = "\n\nTrain a prior over its codes: `worldmodel train STORE --tokenizer FOLDER --out OUT`.\n"
    return _card("A tokenizer", args, store, video, more)


def _card(title: str, args: Args, store: EpisodeStore, video: VideoVQVAE, more: str) -> str:
    """The model card: what the model has seen, the command that made it, its codes, and `more`."""
    provenance = store.provenance
    settings = ", ".join(f"{k}={v}" for k, v in provenance.get("env_kwargs", {}).items())
    rows, columns = video.config.code_shape
    return f"""# {title} of {" ".join([provenance["env_id"], settings]).strip()}

Learned from {len(store)} episodes ({int(store.lengths.sum())} steps, {provenance["fps"]:g} a second) with

    {command_line("train", args)}

- Frames: {" x ".join(map(str, store.frame_shape))}, as {rows} x {columns} codes of {video.config.num_codes}.{more}"""
