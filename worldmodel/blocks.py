"""The convolutional parts that the models of images, of video and of speech share."""

from collections.abc import Callable

from torch import Tensor, nn

Convolution = Callable[[int, int, int], nn.Module]
"""(channels in, channels out, side of the kernel) -> a convolution that keeps height and width, or length."""


def conv2d(inputs: int, outputs: int, kernel: int, stride: int = 1) -> nn.Conv2d:
    """A convolution of pictures that, with a stride of one, keeps height and width."""
    return nn.Conv2d(inputs, outputs, kernel, stride=stride, padding=kernel // 2)


def conv1d(inputs: int, outputs: int, kernel: int) -> nn.Conv1d:
    """A convolution of sequences that keeps their length."""
    return nn.Conv1d(inputs, outputs, kernel, padding=kernel // 2)


class ResidualBlock(nn.Module):
    """ReLU, 3x3, ReLU, 1x1 (§4.1) and around it; starts as the identity.

    With a `kernel` of 1 it mixes the channels of each place and leaves its neighbours alone.
    """

    def __init__(self, width: int, convolution: Convolution, kernel: int = 3) -> None:
        super().__init__()
        last = convolution(width, width, 1)
        self.layers = nn.Sequential(nn.ReLU(), convolution(width, width, kernel), nn.ReLU(inplace=True), last)
        nn.init.zeros_(last.weight)  # type: ignore[arg-type]

    def forward(self, x: Tensor) -> Tensor:
        return x + self.layers(x)
