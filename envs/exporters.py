"""Episodes of a store, written in other formats."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Iterable

import numpy as np
from gymnasium import spaces

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError, require


def export_minari(store: EpisodeStore, dataset_id: str, *, progress: Callable[[range], Iterable[int]] = iter) -> None:
    """Write a store as the local Minari dataset `dataset_id` ("NAMESPACE/NAME-v0"), frames without loss.

    The provenance goes into the dataset's metadata, so that importing the dataset gives the same store again. If
    anything goes wrong on the way, no dataset is left. `progress` may wrap the range of episodes.

    Raises `UserError` when the store is empty, the dataset exists or its name is not one, or Minari is not installed.
    """
    minari = require("minari", "minari")
    if not len(store):
        raise UserError(f"{store.address} is empty: there is nothing to export.")
    try:
        if dataset_id in minari.list_local_datasets():
            raise UserError(f"There is a Minari dataset {dataset_id} already: delete it or take another name.")
        with warnings.catch_warnings():  # Minari's wishes for an author, a permalink, ...
            warnings.simplefilter("ignore")
            dataset = minari.create_dataset_from_buffers(
                dataset_id,
                [],
                observation_space=spaces.Box(0, 255, store.frame_shape, np.uint8),
                action_space=spaces.Discrete(store.n_actions),
                description=f"Episodes of {store.provenance['env_id']}",
                jpeg_encoding=False,  # JPEG is lossy
            )
    except (ValueError, AttributeError) as error:
        raise UserError(f"{dataset_id} cannot be made ({error}).") from error
    try:
        dataset.storage.update_metadata({"provenance": store.provenance})
        for i in progress(range(len(store))):
            episode = store[i]
            dataset.update_dataset_from_buffer(
                [
                    minari.data_collector.EpisodeBuffer(
                        id=i,
                        seed=episode.seed,
                        observations=episode.frames,
                        actions=episode.actions,
                        rewards=episode.rewards,
                        terminations=episode.terminated,
                        truncations=episode.truncated,
                    )
                ]
            )
    except BaseException:
        minari.delete_dataset(dataset_id)
        raise
