"""`worldmodel import`: bring episodes that were recorded elsewhere into a store."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from worldmodel import importers
from worldmodel.progress import track


@dataclass
class Args:
    """Bring episodes that were recorded elsewhere into a store. Run again, it goes on where it was interrupted."""

    source: Annotated[str, tyro.conf.Positional]
    """A folder of films (*.mp4 and steps.npz), a folder of folders of pictures (each with a steps.npz),
    minari:DATASET_ID, or mirrored:STORE or shifted:STORE for a store's episodes and images of them; as above."""
    store: str
    """Where the store is or is to be: a folder, or any fsspec address such as s3://bucket/store."""


_, _, FORMATS = str(importers.__doc__).partition("\n\n")
Args.__doc__ = f"{Args.__doc__}\n\n{FORMATS}"


def main(args: Args) -> None:
    source = importers.open_source(args.source)
    store = importers.import_episodes(source, args.store, progress=lambda left: track(left, "Importing episodes"))
    world = source.provenance
    actions = ", ".join(world["action_meanings"])
    print(f"{len(store)} episodes of {world['env_id']} ({actions}), {store.lengths.sum()} steps: {args.store}")
