"""The optimizer of every model here: Muon for the matrices between layers, AdamW for all else."""

import math
from collections.abc import Callable, Iterable, Iterator
from functools import partial

import torch
from torch import Tensor, nn

from worldmodel.precision import fast_dtype

WEIGHT_DECAY = 0.01
MOMENTUM = 0.95
# Of x -> a x + b x^3 + c x^5, which, applied again and again, takes all of (0, 1] near 1 (Jordan et al., 2024).
A, B, C = 3.4445, -4.7750, 2.0315


class Optimizer:
    """Muon (Jordan et al., 2024) for the weights of convolutions and linear maps, AdamW for all other parameters.

    A kernel [out, in, ...] is the matrix [out, in * ...]. Muon orthogonalises a matrix's step, so that directions of
    small gradient learn as fast as the others; its step is scaled to the size of AdamW's, and both share one learning
    rate, and a weight decay that is decoupled from the gradient.

    The Muon is our own, as that of PyTorch 2.13 multiplies in bfloat16 on every machine, and its learning rate is no
    tensor, as a recorded step on a GPU needs it.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kernels = {id(p) for p in _kernels(model)}
        self._kernels = [p for p in self.parameters if id(p) in kernels]
        self._momenta = [torch.zeros_like(_matrix(p)) for p in self._kernels]
        others = [p for p in self.parameters if id(p) not in kernels]
        rate, cuda = torch.zeros((), device=self.parameters[0].device), self.parameters[0].is_cuda
        settings = {"betas": (0.9, 0.99), "weight_decay": WEIGHT_DECAY, "foreach": cuda, "capturable": cuda}
        self._adam = torch.optim.AdamW(others, lr=rate, **settings) if others else None  # type: ignore[arg-type]

    @torch.no_grad()
    def step(self, learning_rate: Tensor) -> None:
        """Move the parameters against their gradients, by a rate that is a scalar on their device; forget these."""
        steps: list[Callable[[], object]] = [
            partial(_move_kernel, _matrix(kernel), _matrix(kernel.grad, kernel), momentum, learning_rate)
            for kernel, momentum in zip(self._kernels, self._momenta, strict=True)
            if kernel.grad is not None
        ]
        if self._adam is not None:
            self._adam.param_groups[0]["lr"].copy_(learning_rate)
            steps.append(self._adam.step)
        _side_by_side(steps, learning_rate.device)
        for parameter in self.parameters:
            parameter.grad = None

    def state(self) -> dict[str, Tensor]:
        """What resuming needs, by name."""
        state = {f"momentum.{index}": momentum for index, momentum in enumerate(self._momenta)}
        if self._adam is not None:
            for index, values in self._adam.state_dict()["state"].items():
                state |= {f"adam.{index}.{name}": value for name, value in values.items()}
        return state

    @torch.no_grad()
    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned for the same model."""
        for index, momentum in enumerate(self._momenta):
            momentum.copy_(state[f"momentum.{index}"])
        if self._adam is not None:
            values: dict[int, dict[str, Tensor]] = {}
            for key, value in state.items():
                if key.startswith("adam."):
                    _, number, name = key.split(".")
                    values.setdefault(int(number), {})[name] = value
            self._adam.load_state_dict({"state": values, "param_groups": self._adam.state_dict()["param_groups"]})


def _move_kernel(matrix: Tensor, gradient: Tensor, momentum: Tensor, learning_rate: Tensor) -> None:
    """A step of Muon, with Nesterov's momentum, of root mean square .2: that of AdamW's."""
    momentum.lerp_(gradient, 1 - MOMENTUM)
    direction = _orthogonal(gradient.lerp(momentum, MOMENTUM))
    matrix.mul_(1 - WEIGHT_DECAY * learning_rate).sub_(0.2 * math.sqrt(max(matrix.shape)) * learning_rate * direction)


def _orthogonal(matrix: Tensor) -> Tensor:
    """Nearly U V^T of a matrix U S V^T: five Newton-Schulz iterations, which leave singular values about .7 to 1.2."""
    x = (matrix / matrix.norm().clamp(min=1e-7)).to(fast_dtype(matrix.device))
    wide = len(x) <= x.shape[1]
    x = x if wide else x.T
    for _ in range(5):
        gram = x @ x.T
        x = torch.addmm(x, torch.addmm(gram, gram, gram, beta=B, alpha=C), x, beta=A)
    return (x if wide else x.T).to(matrix.dtype)


def _side_by_side(steps: list[Callable[[], object]], device: torch.device) -> None:
    """Take steps that have nothing to do with each other; on a GPU at once, for each is too small to fill it."""
    if device.type != "cuda":
        for step in steps:
            step()
        return
    here = torch.cuda.current_stream(device)
    streams = [torch.cuda.Stream(device) for _ in steps]
    for step, stream in zip(steps, streams, strict=True):
        stream.wait_stream(here)
        with torch.cuda.stream(stream):
            step()
    for stream in streams:
        here.wait_stream(stream)


def _kernels(model: nn.Module) -> Iterator[nn.Parameter]:
    """The matrices between layers.

    Embeddings and layers called `logits` are tables with a row a code, and not among them: a batch says something of
    some rows and nothing of others.
    """
    for name, module in model.named_modules():
        if not isinstance(module, nn.Embedding) and not name.endswith("logits"):
            yield from (p for kind, p in module.named_parameters(recurse=False) if kind == "weight" and p.ndim >= 2)


def _matrix(tensor: Tensor, like: Tensor | None = None) -> Tensor:
    """[out, in, ...] -> [out, in * ...], in whatever order `like` (the tensor itself) lies in memory."""
    like = tensor if like is None else like
    order: Iterable[int] = sorted(range(1, like.ndim), key=like.stride, reverse=True)
    return tensor.permute(0, *order).flatten(1)
