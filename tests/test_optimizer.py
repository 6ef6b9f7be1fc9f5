"""The optimizer: kernels move as the matrices they are, however they lie in memory, and it resumes where it was."""

import torch
from torch import nn

from worldmodel.optimizer import Optimizer
from worldmodel.precision import fast_dtype
from worldmodel.world import fast_layout


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed = nn.Embedding(5, 4)
        self.conv = nn.Conv2d(4, 6, 3, padding=1)
        self.out = nn.Linear(6, 2)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        out: torch.Tensor = self.out(self.conv(self.embed(x).permute(0, 3, 1, 2)).relu().mean((2, 3)))
        return out


def train(net: Net, steps: int, optimizer: Optimizer | None = None, first: int = 0) -> Optimizer:
    optimizer = optimizer or Optimizer(net)
    for step in range(first, first + steps):
        x = torch.randint(5, (8, 3, 3), generator=torch.Generator().manual_seed(step))
        (net(x) - x.float().mean((1, 2))[:, None]).square().mean().backward()
        optimizer.step(torch.tensor(0.02))
    return optimizer


def weights(net: Net) -> torch.Tensor:
    return torch.cat([p.detach().reshape(-1) for p in net.parameters()])


def test_a_kernel_moves_as_the_matrix_of_its_rows() -> None:
    """The first step of a kernel is that of `torch.optim.Muon` on the flattened kernel."""
    net = Net()
    matrix = net.conv.weight.detach().flatten(1).clone()
    x = torch.randint(5, (8, 3, 3))
    net(x).square().mean().backward()
    assert net.conv.weight.grad is not None
    matrix.grad = net.conv.weight.grad.flatten(1).clone()
    Optimizer(net).step(torch.tensor(0.1))
    torch.optim.Muon([matrix], lr=0.1, weight_decay=0.01, adjust_lr_fn="match_rms_adamw").step()
    # PyTorch's own rounds to bfloat16 on its way.
    torch.testing.assert_close(net.conv.weight.detach().flatten(1), matrix, rtol=0, atol=2e-3)
    assert net.conv.weight.grad is None


def test_a_kernel_moves_along_its_own_singular_vectors() -> None:
    """Newton-Schulz iterations are a polynomial of the singular values: here it is taken of those themselves."""
    net = Net()
    before = net.conv.weight.detach().flatten(1).double()
    net(torch.randint(5, (8, 3, 3))).square().mean().backward()
    assert net.conv.weight.grad is not None
    u, s, v = torch.linalg.svd(net.conv.weight.grad.flatten(1).double(), full_matrices=False)
    s = s / s.norm()  # the momentum of a first step is its gradient, but for its size
    for _ in range(5):
        s = 3.4445 * s - 4.7750 * s**3 + 2.0315 * s**5
    Optimizer(net).step(torch.tensor(0.1))
    expected = before * (1 - 0.1 * 0.01) - 0.1 * 0.2 * 36**0.5 * (u * s) @ v
    # Where bfloat16 is the faster one, it is rounded to on the way.
    tolerance = 2e-3 if fast_dtype(before.device) == torch.bfloat16 else 1e-5
    torch.testing.assert_close(net.conv.weight.detach().flatten(1).double(), expected, rtol=0, atol=tolerance)


def test_the_layout_in_memory_does_not_matter() -> None:
    plain, last = Net(), fast_layout(Net())
    assert last.conv.weight.stride() != plain.conv.weight.stride()
    train(plain, 3)
    train(last, 3)
    # Muon rounds to bfloat16 on the way: sums in another order may round to a neighbour.
    torch.testing.assert_close(weights(last), weights(plain), rtol=0, atol=2e-3)


def test_every_parameter_moves_and_the_loss_falls() -> None:
    net, before = Net(), Net()
    x = torch.randint(5, (64, 3, 3))
    target = x.float().mean((1, 2))[:, None]
    start = (net(x) - target).square().mean().item()
    train(net, 60)
    assert (net(x) - target).square().mean().item() < 0.2 * start
    for (name, moved), still in zip(net.named_parameters(), before.parameters(), strict=True):
        assert not torch.equal(moved, still), name


def test_it_goes_on_from_its_state_as_if_never_interrupted() -> None:
    whole, parts = Net(), Net()
    train(whole, 6)
    state = {name: value.clone() for name, value in train(parts, 3).state().items()}
    resumed = Optimizer(parts)
    resumed.load_state(state)
    train(parts, 3, resumed, first=3)
    assert torch.equal(weights(parts), weights(whole))
