import hashlib
import sys
from pathlib import Path

import numpy
import pyarrow
import pyarrow.parquet
import pytest
import torch
from torchvision.datasets import CIFAR10

from zoo.errors import ZooError
from zoo.training.data import Split, hold_out, load_cifar10

from .helpers import WriteParquet, encode, make_images


def write_table(folder: Path, **columns: object) -> None:
    pyarrow.parquet.write_table(pyarrow.table(columns), folder / "train.parquet")


def test_reads_images_and_labels(write_parquet: WriteParquet) -> None:
    folder = write_parquet(labels=[3, 0, 9, 3])
    split = load_cifar10("train", folder)
    assert torch.equal(split.images, make_images(4))
    assert split.images.dtype is torch.uint8
    assert split.labels.tolist() == [3, 0, 9, 3]
    assert split.labels.dtype is torch.int64
    assert split.classes[3] == "cat"
    assert len(split) == 4
    assert split.sha256 == hashlib.sha256((folder / "train.parquet").read_bytes()).hexdigest()
    assert split.describe("lossy") == {
        "source": "CIFAR-10, parquet folder data, train",
        "note": "lossy",
        "sha256": split.sha256,
    }


def test_joins_shards_in_order_and_leaves_the_other_split(write_parquet: WriteParquet) -> None:
    images = [encode(image.permute(1, 2, 0).numpy()) for image in make_images(3)]
    write_parquet("train-00001-of-00002.parquet", images[2:], [2])
    write_parquet("train-00000-of-00002.parquet", images[:2], [0, 1])
    folder = write_parquet("test-00000-of-00001.parquet", images[:1], [7])
    assert torch.equal(load_cifar10("train", folder).images, make_images(3))
    assert load_cifar10("test", folder).labels.tolist() == [7]
    # The same files, found from the folder above.
    assert torch.equal(load_cifar10("train", folder.parent).images, make_images(3))


def test_missing_folder(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no data folder .*absent"):
        load_cifar10("train", tmp_path / "absent")


def test_missing_split(tmp_path: Path, write_parquet: WriteParquet) -> None:
    with pytest.raises(
        ZooError, match=r"no parquet file with 'test' in its name \(it holds train\.parquet\)"
    ):
        load_cifar10("test", write_parquet())
    (tmp_path / "empty").mkdir()
    with pytest.raises(ZooError, match="it holds no parquet file at all"):
        load_cifar10("test", tmp_path / "empty")


def test_broken_parquet(write_parquet: WriteParquet) -> None:
    folder = write_parquet()
    file = folder / "train.parquet"
    file.write_bytes(file.read_bytes()[:-20])
    with pytest.raises(ZooError, match=r"train\.parquet cannot be read as parquet"):
        load_cifar10("train", folder)


def test_missing_column(tmp_path: Path) -> None:
    write_table(tmp_path, label=[1])
    with pytest.raises(ZooError, match="lacks the column img; CIFAR-10 needs img and label"):
        load_cifar10("train", tmp_path)


def test_wrong_column_types(tmp_path: Path) -> None:
    write_table(tmp_path, img=[b"x"], label=[1])
    with pytest.raises(ZooError, match=r"column img .* is binary; expected a struct with a field bytes"):
        load_cifar10("train", tmp_path)
    write_table(tmp_path, img=[{"bytes": b"x"}], label=["cat"])
    with pytest.raises(ZooError, match=r"column label .* is string; expected integers"):
        load_cifar10("train", tmp_path)


def test_empty_split(write_parquet: WriteParquet) -> None:
    with pytest.raises(ZooError, match=r"the train split in .* is empty"):
        load_cifar10("train", write_parquet(images=[]))


@pytest.mark.parametrize("label", [-1, 10, None])
def test_label_out_of_range(write_parquet: WriteParquet, label: int | None) -> None:
    with pytest.raises(
        ZooError, match=f"label {label} in row 2 of the train split .* is not a CIFAR-10 class"
    ):
        load_cifar10("train", write_parquet(labels=[0, 1, label, 3]))


@pytest.mark.parametrize("data", [b"not an image", b"", None])
def test_undecodable_image(write_parquet: WriteParquet, data: bytes | None) -> None:
    good = encode(numpy.zeros((32, 32, 3), numpy.uint8))
    with pytest.raises(ZooError, match=r"the image in row 1 of the train split .* cannot be decoded"):
        load_cifar10("train", write_parquet(images=[good, data]))


def test_truncated_image(write_parquet: WriteParquet) -> None:
    noise = torch.randint(256, (32, 32, 3), dtype=torch.uint8).numpy()
    with pytest.raises(ZooError, match=r"row 0 .* cannot be decoded"):
        load_cifar10("train", write_parquet(images=[encode(noise)[:1000]]))


def test_wrong_size(write_parquet: WriteParquet) -> None:
    images = [encode(numpy.zeros((32, side, 3), numpy.uint8)) for side in (32, 28)]
    with pytest.raises(
        ZooError, match=r"row 1 of the train split .* is 28x32 pixels; CIFAR-10 images are 32x32"
    ):
        load_cifar10("train", write_parquet(images=images))


def test_missing_package(write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch) -> None:
    folder = write_parquet()
    monkeypatch.setitem(sys.modules, "pyarrow", None)
    with pytest.raises(ZooError, match=r"need the package pyarrow; .*pip install '\.\[train\]'"):
        load_cifar10("train", folder)


def test_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """torchvision's dataset is used as it comes; here a stand-in that does not reach for the network."""

    def pretend(self: CIFAR10, root: Path, train: bool, download: bool) -> None:
        assert download
        assert not train
        folder = Path(root) / CIFAR10.base_folder
        folder.mkdir()
        (folder / "test_batch").write_bytes(b"pixels")
        self.data = make_images(2).permute(0, 2, 3, 1).numpy()
        self.targets = [4, 5]
        self.classes = [str(number) for number in range(10)]

    monkeypatch.setattr(CIFAR10, "__init__", pretend)
    monkeypatch.setenv("ZOO_DATA", str(tmp_path))
    split = load_cifar10("test")
    assert torch.equal(split.images, make_images(2))
    assert split.labels.tolist() == [4, 5]
    assert split.sha256 == hashlib.sha256(b"pixels").hexdigest()


def test_failed_download(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    def fail(*args: object, **options: object) -> None:
        raise OSError("no route to host")

    monkeypatch.setattr(CIFAR10, "__init__", fail)
    with pytest.raises(ZooError, match=r"cannot get CIFAR-10 into .*: no route to host\. .*--data"):
        load_cifar10("train", download_root=tmp_path)


def test_the_last_images_are_held_out_and_no_others(split: Split) -> None:
    rest, held = hold_out(split, 10)
    assert torch.equal(torch.cat([rest.images, held.images]), split.images)
    assert torch.equal(torch.cat([rest.labels, held.labels]), split.labels)
    assert (len(rest), len(held), rest.sha256) == (54, 10, split.sha256)
    for count in (64, 100):
        with pytest.raises(
            ZooError, match=f"{count} images cannot be held out of the 64 in made for a test; h"
        ):
            hold_out(split, count)
