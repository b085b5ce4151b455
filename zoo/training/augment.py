"""The augmentation every weight of the zoo is trained with, as one warp per image.

Flips, a random crop and an affine map are each a change of coordinates. They are composed into one matrix
per image and sampled once, bilinearly, so an image is blurred once however many of them apply.
"""

import math
from collections.abc import Sequence
from dataclasses import dataclass

import torch
from torch import Tensor
from torch.nn import functional as F

from zoo.errors import ZooError

MEAN = 0.5
STD = 0.5


def normalise(
    images: Tensor, size: int | None = None, mean: Sequence[float] = (MEAN,), std: Sequence[float] = (STD,)
) -> Tensor:
    """Turn stored images into a clean network input.

    Args:
        images: (N, C, H, W), uint8.
        size: side of the output in pixels; None keeps H and W.
        mean, std: of each channel, or of all; by default those of this project's networks.

    Returns:
        (N, C, size, size), float32, by default in [-1, 1]; shrinking is antialiased.
    """
    shift, scale = (torch.tensor(values).view(-1, 1, 1).to(images.device) for values in (mean, std))
    return (_resize(images.float().div_(255), size) - shift) / scale


@dataclass(frozen=True)
class Augmentation:
    """Random flips, crop and affine map, applied to a batch on any device.

    Differs from doing them one after another in one way: pixels that a separate crop would have cut off, and
    a later rotation would have shown as black corners, stay visible.

    Args:
        hflip: mirror left-right with probability one half.
        vflip: mirror top-bottom with probability one half.
        crop_padding: largest shift on each axis in pixels of the input, as of a crop after as much padding.
        degrees: rotation is uniform in [-degrees, degrees].
        scale: the zoom is uniform between these two factors.
        shear: both shears are uniform in [-shear, shear] degrees.
        upright: share of the images that are spared all but ``hflip`` and the shift, 0 to 1. At full size
            they stay as sharp as test images; a warp blurs, and a network that has only seen warped images is
            worse at clean ones.
        turned: share of the images that are spared likewise, but turned by 90, 180 or 270 degrees first. Such
            a turn blurs nothing either, and warped images alone show a network none as sharp at these angles.

    Raises:
        ZooError: ``upright``, ``turned`` or their sum is out of range.
    """

    hflip: bool = True
    vflip: bool = True
    crop_padding: int = 4
    degrees: float = 180.0
    scale: tuple[float, float] = (0.8, 1.2)
    shear: float = 20.0
    upright: float = 0.0
    turned: float = 0.0

    def __post_init__(self) -> None:
        for name in ("upright", "turned"):
            if not 0 <= getattr(self, name) <= 1:
                raise ZooError(
                    f"{name} is {getattr(self, name)}; it must be from 0 to 1, a share of the images."
                )
        if self.upright + self.turned > 1:
            raise ZooError(
                f"upright is {self.upright} and turned is {self.turned}; together they must be at most 1."
            )

    def __call__(self, images: Tensor, generator: torch.Generator, size: int | None = None) -> Tensor:
        """Warp and normalise a batch.

        Args:
            images: (N, C, H, H), uint8.
            generator: source of all randomness, on any device.
            size: side of the output in pixels; None keeps H. A smaller one is antialiased.

        Returns:
            (N, C, size, size), float32 in [-1, 1]; what lies outside the image is black (-1).
        """
        return warp(images, self.draw(len(images), images.shape[-1], generator), size)

    def draw(self, count: int, side: int, generator: torch.Generator) -> Tensor:
        """Draw one map from output to input coordinates for each of ``count`` images of ``side`` pixels.

        Returns:
            (count, 2, 3), float32 on the generator's device, in the coordinates of ``grid_sample``.
        """

        def uniform(low: float, high: float) -> Tensor:
            unit = torch.rand(count, generator=generator, device=generator.device)
            return low + (high - low) * unit

        def signs(flip: bool) -> Tensor:
            coin = uniform(0, 1)
            return torch.where(coin < 0.5, -1.0, 1.0) if flip else torch.ones_like(coin)

        # Drawn in a fixed order, whichever are switched on, so that a seed means the same everywhere.
        flips = torch.stack([signs(self.hflip), signs(self.vflip)], dim=1)
        cells = 2 * self.crop_padding + 1
        offsets = torch.stack([uniform(0, cells), uniform(0, cells)], dim=1).floor().clamp(max=cells - 1)
        shift = (offsets - self.crop_padding) * (2 / side)
        linear = inverse_affine(
            uniform(-self.degrees, self.degrees),
            uniform(*self.scale),
            uniform(-self.shear, self.shear),
            uniform(-self.shear, self.shear),
        )
        share = uniform(0, 1)
        turns = uniform(1, 4).long().clamp(max=3).masked_fill(share < self.upright, 0)
        spared = (share < self.upright + self.turned)[:, None]
        upside = torch.tensor([False, True], device=flips.device)
        flips = flips.masked_fill(spared & upside, 1.0)
        linear = torch.where(spared[:, :, None], quarter_turns(turns), linear)
        # Output to input runs backwards: undo the affine map, then the crop, then the flips.
        return flips[:, :, None] * torch.cat([linear, shift[:, :, None]], dim=2)


def inverse_affine(degrees: Tensor, scale: Tensor, shear_x: Tensor, shear_y: Tensor) -> Tensor:
    """Return the inverse of rotate * scale * shear about the centre, (N, 2, 2).

    The parametrisation and its signs are those of ``torchvision.transforms.v2.functional.affine``.

    Args:
        degrees: (N,), clockwise rotation in degrees.
        scale: (N,), zoom factor.
        shear_x: (N,), shear along x in degrees.
        shear_y: (N,), shear along y in degrees.
    """
    angle, x, y = (value * (math.pi / 180) for value in (degrees, shear_x, shear_y))
    a = (angle - y).cos() / y.cos()
    b = -a * x.tan() - angle.sin()
    c = (angle - y).sin() / y.cos()
    d = -c * x.tan() + angle.cos()
    return torch.stack([d, -b, -c, a], dim=1).view(-1, 2, 2) / scale[:, None, None]


def quarter_turns(turns: Tensor) -> Tensor:
    """Return rotations by ``turns`` times 90 degrees, (N, 2, 2), whose entries are exactly 0, 1 and -1.

    Args:
        turns: (N,), int64, 0 to 3.
    """
    matrices = torch.tensor([[[1, 0], [0, 1]], [[0, 1], [-1, 0]], [[-1, 0], [0, -1]], [[0, -1], [1, 0]]])
    return matrices.to(turns.device, torch.float32)[turns]


def warp(images: Tensor, maps: Tensor, size: int | None = None) -> Tensor:
    """Sample each image through its map and normalise.

    Args:
        images: (N, C, H, H), uint8.
        maps: (N, 2, 3), output to input coordinates as :meth:`Augmentation.draw` returns them.
        size: side of the output in pixels; None keeps H.

    Returns:
        (N, C, size, size), float32 in [-1, 1].
    """
    pixels = images.float().div_(255)
    if size is not None and size < images.shape[-1]:
        pixels = _resize(pixels, size)
    side = size or images.shape[-1]
    shape = [*pixels.shape[:2], side, side]
    grid = F.affine_grid(maps.to(pixels.device), shape, align_corners=False)
    return (F.grid_sample(pixels, grid, padding_mode="zeros", align_corners=False) - MEAN) / STD


def _resize(pixels: Tensor, size: int | None) -> Tensor:
    if size is None or tuple(pixels.shape[-2:]) == (size, size):
        return pixels
    return F.interpolate(pixels, size=(size, size), mode="bilinear", antialias=True, align_corners=False)
