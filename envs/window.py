"""A window that shows frames at their own speed, for `render_mode="human"`."""

import importlib
from typing import Any

import numpy as np
from numpy.typing import NDArray

from worldmodel.errors import UserError


class Window:
    """Shows uint8 [H, W, 3] frames, enlarged by a whole number, `fps` of them a second.

    Raises `UserError` when pygame, which opens the window, is not installed.
    """

    def __init__(self, title: str, frame_shape: tuple[int, ...], fps: float) -> None:
        try:
            self._pygame: Any = importlib.import_module("pygame")
        except ImportError as error:
            raise UserError(
                'render_mode="human" needs pygame: pip install pygame-ce, or choose render_mode="rgb_array".'
            ) from error
        height, width = frame_shape[:2]
        scale = max(1, 480 // height)
        self._pygame.display.init()
        self._pygame.display.set_caption(title)
        self._screen = self._pygame.display.set_mode((width * scale, height * scale))
        self._clock, self._fps = self._pygame.time.Clock(), fps

    def show(self, frame: NDArray[np.uint8]) -> None:
        picture = self._pygame.surfarray.make_surface(frame.swapaxes(0, 1))
        self._pygame.transform.scale(picture, self._screen.get_size(), self._screen)
        self._pygame.event.pump()
        self._pygame.display.flip()
        self._clock.tick(self._fps)

    def close(self) -> None:
        self._pygame.display.quit()
