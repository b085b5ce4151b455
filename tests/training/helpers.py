"""Images made on the spot, and the bytes they are stored as."""

import io
from collections.abc import Callable
from pathlib import Path

import numpy
import torch
from PIL import Image
from torch import nn

#: The fixture ``write_parquet``: (file name, images, labels), each optional, to the folder of the file.
WriteParquet = Callable[..., Path]

#: The fixture ``zoo_train``: words of the command line to the exit code.
Command = Callable[..., int]

#: A run of four updates.
SHORT = ("--model", "testnet_static", "--phases", "16:1", "32:1", "--batch-size", "2", "--data-note", "tiny")


def make_images(count: int, seed: int = 0) -> torch.Tensor:
    """Return (count, 3, 32, 32) uint8: smooth colours, so that resampling has something to get right."""
    generator = torch.Generator().manual_seed(seed)
    coarse = torch.rand(count, 3, 4, 4, generator=generator)
    return nn.functional.interpolate(coarse, size=32, mode="bicubic").clamp(0, 1).mul(255).to(torch.uint8)


def encode(pixels: numpy.ndarray) -> bytes:
    """Return an image (H, W, 3) as PNG."""
    stream = io.BytesIO()
    Image.fromarray(pixels).save(stream, "png")
    return stream.getvalue()
