"""The optimizer of every model here: Muon for the matrices between layers, AdamW for all else."""

from collections.abc import Iterable, Iterator

import torch
from torch import Tensor, nn


class Optimizer:
    """Muon (Jordan et al., 2024) for the weights of convolutions and linear maps, AdamW for all other parameters.

    A kernel [out, in, ...] is the matrix [out, in * ...]. Muon orthogonalises a matrix's step, so that directions of
    small gradient learn as fast as the others; its step is scaled to the size of AdamW's, and both share one learning
    rate.
    """

    def __init__(self, model: nn.Module) -> None:
        self.parameters = [p for p in model.parameters() if p.requires_grad]
        kernels = {id(p) for p in _kernels(model)}
        # Muon takes matrices: views of the kernels, and of their gradients before each step.
        self._matrices = [(p, _matrix(p.detach())) for p in self.parameters if id(p) in kernels]
        self._parts: list[torch.optim.Optimizer] = []
        if self._matrices:
            muon = torch.optim.Muon((m for _, m in self._matrices), weight_decay=0.01, adjust_lr_fn="match_rms_adamw")
            self._parts.append(muon)
        others = [p for p in self.parameters if id(p) not in kernels]
        if others:
            self._parts.append(torch.optim.AdamW(others, betas=(0.9, 0.99), weight_decay=0.01))

    def step(self, learning_rate: float) -> None:
        """Move the parameters against their gradients, and forget these."""
        for parameter, matrix in self._matrices:
            matrix.grad = None if parameter.grad is None else _matrix(parameter.grad, parameter)
        for part in self._parts:
            for group in part.param_groups:
                group["lr"] = learning_rate
            part.step()
        for parameter in self.parameters:
            parameter.grad = None

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
