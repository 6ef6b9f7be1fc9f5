"""Episodes of a store, written in other formats."""

from __future__ import annotations

import errno
import os
import shutil
from collections.abc import Callable, Iterable
from contextlib import suppress
from types import ModuleType

import numpy as np
from gymnasium import spaces

from worldmodel.episodes import EpisodeStore
from worldmodel.errors import UserError, require
from worldmodel.files import new_folder
from worldmodel.training import interrupts_deferred


def export_minari(store: EpisodeStore, dataset_id: str, *, progress: Callable[[range], Iterable[int]] = iter) -> None:
    """Write a store as the local Minari dataset `dataset_id` ("NAMESPACE/NAME-v0"), frames without loss.

    The provenance goes into the dataset's metadata, so that importing the dataset gives the same store again. If
    anything goes wrong on the way, no dataset is left. `progress` may wrap the range of episodes.

    Raises `UserError` when the store is empty, the dataset exists or its name is not one, or Minari is not installed,
    and `OSError` when the disk is full.
    """
    minari = require("minari", "minari")
    if not len(store):
        raise UserError(f"{store.address} is empty: there is nothing to export.")
    namespace = _namespace(minari, dataset_id)
    root = minari.storage.get_dataset_path()
    folder = root / dataset_id
    if folder.exists():
        raise UserError(f"There is a {folder} already: delete it or take another name.")
    for parent in folder.relative_to(root).parents:
        if (root / parent / "data").exists():
            raise UserError(f"{root / parent} is a Minari dataset, in which there can be no other: take another name.")
    with interrupts_deferred() as interrupted, new_folder(folder, ()) as new:
        storage = minari.dataset.minari_storage.MinariStorage.new(
            new / "data",
            observation_space=spaces.Box(0, 255, store.frame_shape, np.uint8),
            action_space=spaces.Discrete(store.n_actions),
            jpeg_encoding=False,  # JPEG is lossy
        )
        storage.update_metadata(
            {
                "dataset_id": dataset_id,
                "minari_version": minari.__version__,
                "description": f"Episodes of {store.provenance['env_id']}",
                "provenance": store.provenance,
            }
        )
        for i in progress(range(len(store))):
            episode = store[i]
            # On a full disk h5py crashes; its chunks take up to half as much again, and the rest is small.
            if shutil.disk_usage(new).free < 2 * episode.frames.nbytes + 2**20:
                raise OSError(errno.ENOSPC, os.strerror(errno.ENOSPC), str(folder))
            storage.update_episodes(
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
            if interrupted.is_set():  # h5py, cut into, would swallow it
                raise KeyboardInterrupt
        if namespace and namespace not in minari.namespace.list_local_namespaces():
            minari.namespace.create_namespace(namespace)


def _namespace(minari: ModuleType, dataset_id: str) -> str | None:
    """Of the dataset of that name, if it has one. Raises `UserError` where Minari could not find the dataset again."""
    with suppress(ValueError, TypeError):  # a TypeError where there is no version
        namespace: str | None = minari.dataset.minari_dataset.parse_dataset_id(dataset_id)[0]
        # Whatever has a "data" in it is taken for a dataset.
        if namespace is None or not {"", "data"} & set(namespace.split("/")):
            return namespace
    raise UserError(
        f"{dataset_id} is no name for a Minari dataset: that is NAME-v0 or NAMESPACE/NAME-v0, of letters, digits, - "
        "and _, two at least in a namespace, which is not called data."
    )
