"""A warp that is known exactly, forwards and backwards."""

from __future__ import annotations

import math
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Points = NDArray[np.float64]  # [..., 2 (y, x)]


@dataclass(frozen=True)
class Warp:
    """Bends, then turns and shrinks about the centre of a map of ``height`` x ``width`` pixels.

        bend:  (y, x) -> (y + amplitude * sin(2 pi (x - centre_x) / period), x)
        turn:  p -> centre + scale * R(angle) (p - centre)

    Both steps have a closed inverse, so every place is known to float64's precision.
    """

    height: int
    width: int
    angle: float
    scale: float
    amplitude: float
    period: float

    @classmethod
    def for_map(cls, height: int, width: int) -> Warp:
        """Returns a warp that is well visible and, on most shapes, keeps all of the map in view."""
        angle = math.radians(12)
        amplitude, period = 0.07 * min(height, width), 0.85 * width
        tall = (height + 2 * amplitude) * math.cos(angle) + width * math.sin(angle)
        wide = (height + 2 * amplitude) * math.sin(angle) + width * math.cos(angle)
        scale = min(0.85, max(0.6, 0.98 * min(height / tall, width / wide)))
        return cls(height, width, angle, scale, amplitude, period)

    def __call__(self, points: Points) -> Points:
        """Returns where points of the straight map are on the warped one."""
        bent = points.copy()
        bent[..., 0] += self._bend(points[..., 1])
        return self._centre + self.scale * (bent - self._centre) @ self._rotation.T

    def inverse(self, points: Points) -> Points:
        """Returns where points of the warped map were on the straight one."""
        straight = self._centre + (points - self._centre) @ self._rotation / self.scale
        straight[..., 0] -= self._bend(straight[..., 1])
        return straight

    @property
    def _centre(self) -> Points:
        return np.array([(self.height - 1) / 2, (self.width - 1) / 2])

    @property
    def _rotation(self) -> Points:
        c, s = math.cos(self.angle), math.sin(self.angle)
        return np.array([[c, -s], [s, c]])

    def _bend(self, x: NDArray[np.float64]) -> NDArray[np.float64]:
        phase = 2 * math.pi * (x - self._centre[1]) / self.period
        return self.amplitude * np.sin(phase)


def pixel_grid(height: int, width: int) -> Points:
    """Returns the places of all pixels, [height, width, 2 (y, x)]."""
    rows, columns = np.meshgrid(np.arange(height), np.arange(width), indexing="ij")
    return np.stack([rows, columns], axis=-1).astype(np.float64)


def inside(points: Points, height: int, width: int) -> NDArray[np.bool_]:
    """Returns which points lie between the outermost pixels' centres."""
    result: NDArray[np.bool_] = np.all((points >= 0) & (points <= (height - 1, width - 1)), axis=-1)
    return result


def warped_photo(
    photo: NDArray[np.float32],
) -> tuple[Warp, NDArray[np.float32], NDArray[np.bool_]]:
    """Returns a warp for a photo [C, H, W], the photo warped, and where that shows it, [H, W]."""
    height, width = photo.shape[1:]
    warp = Warp.for_map(height, width)
    places = warp.inverse(pixel_grid(height, width))
    return warp, sample_exactly(photo, places).astype(np.float32), inside(places, height, width)


def sample_exactly(image: NDArray[np.floating], points: Points) -> NDArray[np.float64]:
    """Reads [C, H, W] bilinearly at points [..., 2], in float64; outside the map is 0.

    The yardstick of the demo: written from the formula, and sharing nothing with the library.
    """
    channels, height, width = image.shape
    framed = np.zeros((channels, height + 2, width + 2))
    framed[:, 1:-1, 1:-1] = image
    framed_size = np.array([height + 1, width + 1])
    place = np.clip(points + 1, 0, framed_size)
    low = np.minimum(np.floor(place), framed_size - 1).astype(int)
    (y, x), (fy, fx) = np.moveaxis(low, -1, 0), np.moveaxis(place - low, -1, 0)
    result: NDArray[np.float64] = (
        framed[:, y, x] * (1 - fy) * (1 - fx)
        + framed[:, y, x + 1] * (1 - fy) * fx
        + framed[:, y + 1, x] * fy * (1 - fx)
        + framed[:, y + 1, x + 1] * fy * fx
    )
    return result
