"""`worldmodel train-image`: images -> an image VQ-VAE and the prior over its codes."""

import dataclasses
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated

import tyro

from scripts.command import command_line
from scripts.device import FASTEST, Device, check_device
from scripts.output import apart_from
from scripts.settings import write_settings
from scripts.unused import refuse_unused
from worldmodel.digest import weights_digest
from worldmodel.folders import check_room
from worldmodel.image import PRESETS
from worldmodel.image_data import Images, load_images
from worldmodel.image_model import ImageModel
from worldmodel.image_recipe import ImageRecipe, check_trainable, learn_images


@dataclass
class Args:
    """Train a model of images: the VQ-VAE, then the prior over its codes, then, for dmlab, the second stage.

    Run the same command again to go on after an interruption: each part resumes from its last checkpoint.
    """

    data: Annotated[str, tyro.conf.Positional]
    """Images to learn from: CIFAR-10's own files, sheets of images, a folder of images a class, or an episode store."""
    out: Path
    """Folder for checkpoints, TensorBoard logs and, at the end, the model itself (OUT/model)."""
    init: str | None = None
    """Start from the weights of this model (a bundled name, a folder, a Hub id) instead of from random ones; with
    --steps 0 its VQ-VAE stays as it is."""
    device: Device = FASTEST
    recipe: Annotated[ImageRecipe, tyro.conf.arg(name="")] = field(default_factory=ImageRecipe)


def main(args: Args) -> None:
    check_device(args.device)
    apart_from(args.data, args.out)
    if args.recipe.preset != "dmlab":
        refuse_unused(args.recipe, "second_steps", where=f"for {args.recipe.preset}, which has no second stage")
    if not args.recipe.steps:
        refuse_unused(args.recipe, "batch", "lr", "critic", where="with --steps 0, which leaves the VQ-VAE as it is")
    config = PRESETS[args.recipe.preset]
    images = load_images(args.data, "train", config.image_size)
    start = None if args.init is None else ImageModel.from_pretrained(args.init, device=args.device)
    check_trainable(images, args.recipe, start)
    check_room(args.out / "model")
    learned_from = {
        "images": len(images),
        "classes": images.classes,
        "init_weights": weights_digest(start),
    }
    write_settings(args.out, {"data": args.data, "init": args.init, **learned_from, **dataclasses.asdict(args.recipe)})
    model = learn_images(images, args.recipe, args.out, args.device, start=start)
    model.save_pretrained(args.out / "model", card=_card(args, images, model))
    print(f"The model is in {args.out / 'model'}: try `worldmodel sample --model {args.out / 'model'}`.")


def _card(args: Args, images: Images, model: ImageModel) -> str:
    """The model card: what the model has seen, and the command that made it."""
    config = model.config.image
    shape = " x ".join(map(str, (*config.code_shape, config.maps)))
    return f"""# A model of images

Learned from {len(images)} images with

    {command_line("train-image", args)}

- Images: {config.image_size[0]} x {config.image_size[1]}, as {shape} codes of {config.num_codes}.
- Classes: {", ".join(images.classes) or "none"}.

Draw with it: `worldmodel sample --model FOLDER`.
"""
