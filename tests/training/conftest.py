"""Small stand-ins for what training needs: images, parquet files and networks that learn in a blink."""

import dataclasses
from collections.abc import Iterator
from pathlib import Path

import pyarrow
import pyarrow.parquet
import pytest
import timm
import torch
from accelerate.state import AcceleratorState, PartialState
from timm.models.resnet import BasicBlock

from zoo import cli, train
from zoo.models import BACKBONES, register
from zoo.pretrained import CIFAR10_CLASSES
from zoo.training import memory
from zoo.training.data import Split
from zoo.training.recipe import Recipe

from .helpers import Command, WriteParquet, encode, make_images

# Not less than 8 channels: where a 1x1 convolution with a stride learns from fewer, channels last, oneDNN
# writes past its buffers, seen in 3.12, and the process dies (https://github.com/uxlfoundation/oneDNN/issues/6035).
_TINY = dataclasses.replace(
    BACKBONES["resnet10"],
    args={"block": BasicBlock, "layers": (1, 1, 1, 1), "channels": (8, 8, 16, 16), "stem_width": 8},
)


@pytest.fixture(autouse=True)
def one_cpu_process(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """Train on the CPU, let each test set accelerate up anew, and give memory back for the next tests."""
    monkeypatch.setenv("ACCELERATE_USE_CPU", "true")
    monkeypatch.setattr(memory, "keep_freed_memory", lambda: False)
    yield
    AcceleratorState._reset_state(reset_partial_state=True)
    PartialState._reset_state()


@pytest.fixture
def tiny_models() -> None:
    """Register ``testnet_static`` and dynamic twins of it: ResNets of a few thousand parameters."""
    for family in ("static", "kw", "dpk"):
        if not timm.is_model(f"testnet_{family}"):
            register(f"testnet_{family}", _TINY, family)


@pytest.fixture
def split() -> Split:
    """64 images whose label can be read off their brightness."""
    labels = torch.arange(64) % 10
    images = (make_images(64).float() * 0.07 + labels.view(-1, 1, 1, 1) * 20).to(torch.uint8)
    return Split(images, labels, CIFAR10_CLASSES, "made for a test", "0" * 64)


@pytest.fixture
def recipe() -> Recipe:
    """Three short epochs in two sizes."""
    return Recipe("testnet_static", phases=((16, 2), (32, 1)), batch_size=16, lr=1e-2, ema_decay=0.9)


@pytest.fixture
def write_parquet(tmp_path: Path) -> WriteParquet:
    """Return a function that writes a parquet file in the Hugging Face layout and returns its folder."""

    def write(name: str = "train.parquet", images: list | None = None, labels: list | None = None) -> Path:
        if images is None:
            images = [encode(image.permute(1, 2, 0).numpy()) for image in make_images(4)]
        labels = list(range(len(images))) if labels is None else labels
        rows = [{"bytes": data, "path": None} for data in images]
        struct = pyarrow.struct([("bytes", pyarrow.binary()), ("path", pyarrow.string())])
        table = pyarrow.table(
            {"img": pyarrow.array(rows, struct), "label": pyarrow.array(labels, pyarrow.int64())}
        )
        path = tmp_path / "data" / name
        path.parent.mkdir(parents=True, exist_ok=True)
        pyarrow.parquet.write_table(table, path)
        return tmp_path / "data"

    return write


@pytest.fixture
def data(write_parquet: WriteParquet) -> Path:
    """A folder with four images of each split."""
    write_parquet("train.parquet")
    return write_parquet("test.parquet")


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """An empty weights folder, in use."""
    folder = tmp_path / "weights"
    folder.mkdir()
    monkeypatch.setenv("ZOO_WEIGHTS", str(folder))
    return folder


@pytest.fixture
def run_dir(tmp_path: Path) -> Path:
    return tmp_path / "deep" / "run"


@pytest.fixture
def zoo_train(data: Path, run_dir: Path, weights: Path) -> Command:
    """Return a function that runs the command with the data and the run folder given."""

    def run(*words: str) -> int:
        return cli.run(train.main, ["--data", str(data), "--run-dir", str(run_dir), *words])

    return run
