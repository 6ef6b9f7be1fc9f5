"""One step of training; on a GPU it is recorded once and then replayed."""

from collections.abc import Callable
from dataclasses import dataclass

import torch
from torch import Tensor, nn

from worldmodel.optimizer import Optimizer
from worldmodel.precision import fast_dtype

Batch = dict[str, Tensor]
Loss = Callable[[Batch], tuple[Tensor, dict[str, Tensor]]]

WARMUP = 3  # steps before the recording, in which all that is made once is made


@dataclass
class Taken:
    """What a step found, as scalar tensors; on a GPU the next step overwrites them."""

    loss: Tensor
    gradient_norm: Tensor
    scalars: dict[str, Tensor]


class TrainingStep:
    """Loss, gradient, and a move against it.

    A step of a small model is a thousand short kernels, which takes a GPU less time than it takes Python to ask for
    them one by one. So on a GPU the step is recorded as a CUDA graph and replayed for every later batch: batches must
    be of one shape, and `loss` must ask no tensor for its values.
    """

    def __init__(self, loss: Loss, optimizer: Optimizer, device: torch.device) -> None:
        self._loss, self._optimizer, self._device = loss, optimizer, device
        self._learning_rate = torch.zeros((), device=device)
        self._before = WARMUP
        self._recorded: tuple[torch.cuda.CUDAGraph, Batch, Taken] | None = None

    def __call__(self, batch: Batch, learning_rate: float) -> Taken:
        self._learning_rate.fill_(learning_rate)
        if self._device.type != "cuda":
            return self._take(batch)
        batch = {name: value.pin_memory().to(self._device, non_blocking=True) for name, value in batch.items()}
        if self._before:
            self._before -= 1
            return self._take_aside(batch)
        if self._recorded is None:
            graph = torch.cuda.CUDAGraph()
            with torch.cuda.graph(graph):
                taken = self._take(batch)
            self._recorded = graph, batch, taken
        graph, given, taken = self._recorded
        for name, value in batch.items():
            given[name].copy_(value)
        graph.replay()
        return taken

    def _take(self, batch: Batch) -> Taken:
        rounded = fast_dtype(self._device) == torch.bfloat16
        # Without its cache: a weight that was first rounded where no gradient is wanted would stay without one
        # (https://github.com/pytorch/pytorch/issues/158232).
        with torch.autocast(self._device.type, torch.bfloat16, enabled=rounded, cache_enabled=False):
            loss, scalars = self._loss(batch)
        loss.backward()
        norm = nn.utils.clip_grad_norm_(self._optimizer.parameters, 1.0)
        self._optimizer.step(self._learning_rate)
        return Taken(loss.detach(), norm, {name: value.detach() for name, value in scalars.items()})

    def _take_aside(self, batch: Batch) -> Taken:
        """On a stream of its own, as CUDA asks of the steps before a recording."""
        stream = torch.cuda.Stream(self._device)
        stream.wait_stream(torch.cuda.current_stream(self._device))
        with torch.cuda.stream(stream):
            taken = self._take(batch)
        torch.cuda.current_stream(self._device).wait_stream(stream)
        return taken
