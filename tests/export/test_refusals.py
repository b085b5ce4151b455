"""What is refused before anything is exported, in one sentence."""

import numpy as np
import pytest
from torch import nn

from export import _flow, torchscript
from export.torchscript import TorchScript
from zoo.errors import ZooError

SIZE = (3, 12, 10)


@pytest.fixture(scope="module")
def model(small):
    return small("kw")


@pytest.mark.parametrize(
    ("arguments", "words"),
    [
        ({}, "does not say its input size"),
        ({"input_size": (4, 12, 10)}, "Sequential cannot take inputs of 4x12x10"),
        ({"input_size": SIZE, "class_names": ["cat"]}, "1 class names were given for a model with 7 outputs"),
        (
            {"input_size": SIZE, "images": np.zeros((2, 3, 9, 9), np.float32)},
            r"images of shape \(2, 3, 9, 9\)",
        ),
        ({"input_size": SIZE, "images": np.zeros((2, *SIZE))}, "float64, do not fit the model"),
        ({"input_size": SIZE, "images": np.zeros((0, *SIZE), np.float32)}, r"images of shape \(0, 3"),
        ({"input_size": (3, 5000, 5000)}, "is too large: an input may have 16777216 values"),
        ({"input_size": SIZE, "lowering": "single"}, "right at batch 1 only"),
    ],
)
def test_bad_arguments_say_what_is_wrong(model, tmp_path, arguments, words):
    with pytest.raises(ZooError, match=words) as caught:
        torchscript.export(model, tmp_path / "net.pt", **arguments)
    assert "\n" not in str(caught.value)
    assert not any(tmp_path.iterdir())


def test_a_model_with_two_outputs_is_refused(tmp_path):
    class Two(nn.Module):
        def forward(self, x):
            return x, x

    with pytest.raises(ZooError, match="Two must map one tensor"):
        torchscript.export(Two(), tmp_path / "net.pt", input_size=SIZE)


def test_places_that_cannot_be_written_are_refused_before_the_model_is_made(tmp_path):
    with pytest.raises(ZooError, match="it is a folder; give a file name"):
        torchscript.export("no such model", tmp_path)
    with pytest.raises(ZooError, match="does not exist; create it first"):
        torchscript.export("no such model", tmp_path / "missing" / "net.pt")


def test_a_name_that_is_too_long_is_refused_before_the_model_is_made(tmp_path):
    for length in (240, 300):  # the shorter one leaves no room for its certificate's
        with pytest.raises(ZooError, match="File name too long; give another name"):
            torchscript.export("no such model", tmp_path / ("x" * length))


def test_an_input_that_memory_cannot_hold_is_one_sentence(tmp_path):
    class Huge(nn.Module):
        def forward(self, x):
            raise MemoryError("Unable to allocate 1 TiB")

    with pytest.raises(ZooError, match=r"Huge cannot take inputs of 3x12x10 \(Unable to allocate 1 TiB"):
        torchscript.export(Huge(), tmp_path / "net.pt", input_size=SIZE)


def test_a_folder_without_write_permission_is_refused(tmp_path, monkeypatch):
    monkeypatch.setattr(_flow.os, "access", lambda path, mode: False)  # root may write anywhere
    with pytest.raises(ZooError, match="is not writable; choose another"):
        torchscript.export("no such model", tmp_path / "net.pt")


def test_a_runtime_that_is_missing_is_said_before_the_model_is_made(tmp_path, monkeypatch):
    monkeypatch.setattr(TorchScript, "available", lambda self, provider="cpu": "torch is broken")
    with pytest.raises(ZooError, match="cannot certify TorchScript here: torch is broken"):
        torchscript.export("no such model", tmp_path / "net.pt")
