"""`worldmodel export`: write a store as a Minari dataset."""

from dataclasses import dataclass
from typing import Annotated

import tyro

from envs.exporters import export_minari
from worldmodel.episodes import EpisodeStore
from worldmodel.progress import track


@dataclass
class Args:
    """Write a store as a local Minari dataset."""

    store: Annotated[str, tyro.conf.Positional]
    """Where the store is: a folder, or any fsspec address."""
    minari: str
    """Name of the dataset, such as doom/take-cover-v0."""


def main(args: Args) -> None:
    store = EpisodeStore.open(args.store)
    export_minari(store, args.minari, progress=lambda episodes: track(episodes, "Exporting episodes"))
    print(f"{len(store)} episodes: Minari dataset {args.minari}")
