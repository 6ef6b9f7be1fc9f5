"""The one training loop: every model of the package is trained by `fit`, given an `Objective`."""

import math
import os
import signal
import threading
import time
from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import Protocol, runtime_checkable

import torch
from torch import Tensor, nn
from torch.utils.tensorboard import SummaryWriter

from worldmodel.allocator import keep_freed_memory
from worldmodel.errors import UserError
from worldmodel.files import read_metadata, read_tensors_and_metadata, write_tensors
from worldmodel.optimizer import Optimizer
from worldmodel.progress import training_progress
from worldmodel.sampling import check_seed
from worldmodel.sounds import spectrogram
from worldmodel.step import Batch, Taken, TrainingStep

LOGGED_EVERY = 20  # steps
MOST_AT_ONCE = 1 << 16  # items of a batch: more fit nowhere
CHECKPOINT = "checkpoint.safetensors"  # in the folder of a training


@dataclass(frozen=True)
class FitConfig:
    """How to train, whatever is trained."""

    steps: int
    batch_size: int
    learning_rate: float
    """Peak of a schedule that warms up over 200 steps and decays to a thirtieth along a cosine."""
    seed: int = 0
    checkpoint_every: float = 60.0
    """Seconds between checkpoints; a killed training loses at most this much."""
    pictures_every: int = 500
    """Steps between pictures, and sounds, in TensorBoard."""


def check_schedules(batches: Sequence[int], rates: Sequence[float], seed: int) -> None:
    """Raise `UserError` for sizes of batches, learning rates or a seed with which nothing can be trained."""
    for batch in batches:
        if not 1 <= batch <= MOST_AT_ONCE:
            raise UserError(f"A batch is 1 to {MOST_AT_ONCE} items, not {batch}.")
    for rate in rates:
        if not 0 < rate < 1:
            raise UserError(f"Learning rates are between 0 and 1, not {rate:g}.")
    check_seed(seed)


class Dataset(Protocol):
    """What is learned from: an endless sequence of random items."""

    def batch(self, first: int, size: int) -> Batch:
        """Items `first` to `first + size`, each of which depends on its number alone; all batches are of one shape."""


class Objective(Protocol):
    """What `fit` needs to know of a model and its data."""

    name: str

    @property
    def model(self) -> nn.Module: ...

    @property
    def dataset(self) -> Dataset: ...

    def loss(self, batch: Batch) -> tuple[Tensor, dict[str, Tensor]]:
        """The scalar to minimise, and scalars worth logging. A GPU calls it a few times only (see `TrainingStep`)."""

    def pictures(self) -> dict[str, Tensor]:
        """Pictures worth logging, uint8 [H, W, 3], and what a person should read from them as their names."""

    def trouble(self) -> str | None:
        """One sentence when the training goes wrong in a way that the loss does not show."""


@runtime_checkable
class Audible(Protocol):
    """An objective that people would rather listen to; the spectra of its sounds are logged, too."""

    sample_rate: int

    def sounds(self) -> dict[str, Tensor]:
        """Waves worth logging, float [T] in [-1, 1], and what a person should hear in them as their names."""


def fit(objective: Objective, config: FitConfig, folder: Path) -> None:
    """Train until `config.steps`, from the checkpoint in `folder` if there is one; all is logged to TensorBoard there.

    From then on the process keeps the memory that it frees (see `keep_freed_memory`).

    On a CPU an interrupted and resumed training gives bit for bit what an uninterrupted one gives: batches and random
    numbers depend on the step alone, and an interrupt waits for the end of the step.

    Raises `UserError` when the loss or its gradient is not finite (the last checkpoint, from before, is kept; on a GPU
    this is found within 20 steps), or the checkpoint is damaged or has had more steps. On Ctrl-C saves a checkpoint and
    raises `KeyboardInterrupt`.
    """
    check_checkpoint(folder, config.steps)
    keep_freed_memory()
    folder.mkdir(parents=True, exist_ok=True)
    checkpoint = folder / CHECKPOINT
    model = objective.model
    device = next(model.parameters()).device
    optimizer = Optimizer(model)
    step = load_checkpoint(checkpoint, model, optimizer) if checkpoint.exists() else 0
    model.train()
    take = TrainingStep(objective.loss, optimizer, device)
    saved = logged = time.monotonic()
    waited = 0.0
    with (
        SummaryWriter(str(folder), purge_step=step + 1 if step else None) as log,
        training_progress("loss") as progress,
        interrupts_deferred() as interrupted,
    ):
        task = progress.add_task(objective.name, total=config.steps, completed=step, loss="")
        while step < config.steps:
            torch.manual_seed(config.seed * 1_000_003 + step)
            asked = time.monotonic()
            batch = objective.dataset.batch(step * config.batch_size, config.batch_size)
            waited += time.monotonic() - asked
            taken = take(batch, _learning_rate(config, step))
            step += 1
            progress.advance(task)
            log_now = step % LOGGED_EVERY == 0 or step == config.steps
            # A GPU is steps ahead of whoever does not ask it what it found.
            if device.type == "cpu" or log_now:
                loss, norm = _check_finite(objective.name, taken, step, config, checkpoint)
                progress.update(task, loss=f"loss {loss:.3f}")
            if log_now:
                waiting = waited / (time.monotonic() - logged)
                every = {"loss": loss, "gradient norm": norm, "share of time waiting for data": waiting}
                for name, value in {**every, **taken.scalars}.items():
                    log.add_scalar(f"{objective.name}/{name}", value, step)
                waited, logged = 0.0, time.monotonic()
            if step % 500 == 0 and (trouble := objective.trouble()):
                progress.console.print(f"[yellow]{trouble}")
            if step % config.pictures_every == 0 or step == config.steps:
                for name, picture in objective.pictures().items():
                    log.add_image(f"{objective.name}/{name}", picture, step, dataformats="HWC")
                if isinstance(objective, Audible):
                    for name, wave in objective.sounds().items():
                        log.add_audio(f"{objective.name}/{name}", wave, step, objective.sample_rate)
                        log.add_image(f"{objective.name}/{name}", spectrogram(wave), step, dataformats="HWC")
            stop = interrupted.is_set()  # asked once: an interrupt from here on waits for the next step
            if stop or time.monotonic() - saved > config.checkpoint_every or step == config.steps:
                _check_finite(objective.name, taken, step, config, checkpoint)
                save_checkpoint(checkpoint, model, optimizer, step)
                saved = time.monotonic()
            if stop:
                raise KeyboardInterrupt
    model.eval()


def _check_finite(name: str, taken: Taken, step: int, config: FitConfig, checkpoint: Path) -> tuple[float, float]:
    """Loss and gradient norm of step `step`. Raises `UserError` when one of them is not finite."""
    loss, norm = taken.loss.item(), taken.gradient_norm.item()
    if not (math.isfinite(loss) and math.isfinite(norm)):
        kept = f"; {checkpoint} is from before" if checkpoint.exists() else ""
        raise UserError(
            f"The loss of the {name} is {loss:g}, its gradient {norm:g}, at step {step - 1}: "
            f"train with a learning rate below {config.learning_rate:g}{kept}."
        )
    return loss, norm


@contextmanager
def interrupts_deferred() -> Iterator[threading.Event]:
    """While inside, Ctrl-C only sets the event: what must not be cut in two asks for it between its parts.

    It says so, and a second one is not deferred.
    """
    event = threading.Event()
    if threading.current_thread() is not threading.main_thread():
        yield event  # signals go to the main thread
        return

    def defer(*_: object) -> None:
        if event.is_set():
            raise KeyboardInterrupt
        event.set()
        # Unlike `print`, this may cut into anything.
        os.write(2, b"\nStopping as soon as what is under way is done; Ctrl-C again stops at once.\n")

    before = signal.signal(signal.SIGINT, defer)
    try:
        yield event
    finally:
        signal.signal(signal.SIGINT, before)


def check_checkpoint(folder: Path, steps: int) -> None:
    """Raise `UserError` when the training in a folder, if there is one, is damaged or has had more than `steps`."""
    path = folder / CHECKPOINT
    had = int(read_metadata(path).get("step", 0)) if path.exists() else 0
    if had > steps:
        raise UserError(f"The training in {folder} has had {had} steps: give it as many, or choose another --out.")


def save_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer, step: int) -> None:
    """Everything that resuming needs, in one file that is replaced whole."""
    tensors = {f"model.{name}": value for name, value in model.state_dict().items()}
    tensors |= {f"optimizer.{name}": value for name, value in optimizer.state().items()}
    write_tensors(path, tensors, {"step": str(step)})


def load_checkpoint(path: Path, model: nn.Module, optimizer: Optimizer) -> int:
    """Restore model and optimizer; returns the step. Raises `UserError` for a damaged file, or another model's."""
    tensors, metadata = read_tensors_and_metadata(path)
    try:
        model.load_state_dict(_below("model.", tensors))
        optimizer.load_state(_below("optimizer.", tensors))
        return int(metadata["step"])
    except (RuntimeError, KeyError, ValueError, IndexError) as error:
        raise UserError(f"{path} is a checkpoint of another model; choose another --out, or remove it.") from error


def _below(prefix: str, tensors: dict[str, Tensor]) -> dict[str, Tensor]:
    """The tensors whose names begin with `prefix`, without it."""
    return {name.removeprefix(prefix): value for name, value in tensors.items() if name.startswith(prefix)}


def _learning_rate(config: FitConfig, step: int) -> float:
    warmup = min(1.0, (step + 1) / 200)
    decay = 0.5 * (1 + math.cos(math.pi * step / config.steps))
    return config.learning_rate * warmup * (1 / 30 + (1 - 1 / 30) * decay)
