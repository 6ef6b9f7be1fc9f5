"""The optimizer of every model here: Muon for the matrices between layers, AdamW for all else."""

from collections.abc import Callable, Iterable, Iterator

import torch
from torch import Tensor, nn

WEIGHT_DECAY = 0.01


class Optimizer:
    """Muon (Jordan et al., 2024) for the weights of convolutions and linear maps, AdamW for all other parameters.

    A kernel [out, in, ...] is the matrix [out, in * ...]. Muon orthogonalises a matrix's step, so that directions of
    small gradient learn as fast as the others; its step is scaled to the size of AdamW's, and both share one learning
    rate, and a weight decay that is decoupled from the gradient.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kernels = {id(p) for p in _kernels(model)}
        # What torch's optimizers move, at a learning rate of one, is no parameter but a zero beside it: Muon takes no
        # learning rate that a GPU could read by itself.
        self._moves = [torch.zeros_like(p) for p in self.parameters]
        # It takes matrices: views of the kernels' moves, and of their gradients before each step.
        self._views = [
            _matrix(move) if id(p) in kernels else move for p, move in zip(self.parameters, self._moves, strict=True)
        ]
        self._parts: list[torch.optim.Optimizer] = [
            torch.optim.Muon([view], lr=1, weight_decay=0, adjust_lr_fn="match_rms_adamw")
            for p, view in zip(self.parameters, self._views, strict=True)
            if id(p) in kernels
        ]
        others = [view for p, view in zip(self.parameters, self._views, strict=True) if id(p) not in kernels]
        if others:
            self._parts.append(torch.optim.Adam(others, lr=1, betas=(0.9, 0.99), capturable=others[0].is_cuda))

    @torch.no_grad()
    def step(self, learning_rate: Tensor) -> None:
        """Move the parameters against their gradients, by a rate that is a scalar on their device; forget these."""
        parameters: list[Tensor] = []  # those with a gradient
        moves: list[Tensor] = []
        for parameter, move, view in zip(self.parameters, self._moves, self._views, strict=True):
            if parameter.grad is not None:
                view.grad = parameter.grad if view is move else _matrix(parameter.grad, move)
                parameters.append(parameter)
                moves.append(move)
        _side_by_side([part.step for part in self._parts], learning_rate.device)
        torch._foreach_mul_(parameters, 1 - WEIGHT_DECAY * learning_rate)
        torch._foreach_mul_(moves, learning_rate)
        torch._foreach_add_(parameters, moves)
        torch._foreach_zero_(moves)
        for tensor in (*self.parameters, *self._views):
            tensor.grad = None

    def state(self) -> dict[str, Tensor]:
        """What resuming needs, by name."""
        return {
            f"{number}.{index}.{name}": value
            for number, part in enumerate(self._parts)
            for index, values in part.state_dict()["state"].items()
            for name, value in values.items()
        }

    def load_state(self, state: dict[str, Tensor]) -> None:
        """Go on from what `state` returned for the same model."""
        states: list[dict[int, dict[str, Tensor]]] = [{} for _ in self._parts]
        for key, value in state.items():
            number, index, name = key.split(".")
            states[int(number)].setdefault(int(index), {})[name] = value
        for part, values in zip(self._parts, states, strict=True):
            part.load_state_dict({"state": values, "param_groups": part.state_dict()["param_groups"]})


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
