import importlib.metadata
import re
import subprocess
import sys
from pathlib import Path

import onnxruntime
import pytest

import export
import export.onnx
from export.base import RUNTIMES, ExportOptions, Runtime, installed, runtime
from zoo.errors import ZooError
from zoo.layers import LOWERINGS


@pytest.mark.parametrize("name", RUNTIMES)
def test_the_defaults_suit_every_format(name):
    runtime(name).check(ExportOptions())


def test_help_says_at_which_batch_sizes_a_lowering_is_right(capsys):
    with pytest.raises(SystemExit):
        export.onnx.main(["--help"])
    *_, anything, n, one = re.split("  (?:at any batch size|with --batch [N1])\n", capsys.readouterr().out)
    for text, batch in ((anything, "any"), (n, "frozen"), (one, "one")):
        names = {line.split()[0] for line in text.splitlines() if line.startswith("    ")}
        assert names == {name for name, row in LOWERINGS.items() if row.batch == batch}


@pytest.mark.parametrize("lowering", LOWERINGS)
@pytest.mark.parametrize("batch", [None, 1, 4])
def test_a_lowering_must_serve_the_batch(lowering, batch):
    able = LOWERINGS[lowering].batch
    if able == "any" or batch == 1 or (able == "frozen" and batch):
        assert ExportOptions(lowering=lowering, batch=batch).lowering == lowering
    else:
        with pytest.raises(ZooError, match=rf"the lowering {lowering} .*batch"):
            ExportOptions(lowering=lowering, batch=batch)


def test_a_frozen_lowering_names_those_with_a_dynamic_batch():
    able = ", ".join(name for name, row in LOWERINGS.items() if row.batch == "any")
    with pytest.raises(ZooError, match=f"fix the batch to a number, or take one of auto, {able}"):
        ExportOptions(lowering="grouped")


@pytest.mark.parametrize(
    ("bad", "words"),
    [
        ({"lowering": "unfol"}, "unknown lowering 'unfol'.*Did you mean unfold"),
        ({"batch": 0}, "batch 0 is not a batch size"),
        ({"batch": -3}, "batch -3 is not a batch size"),
        ({"input_size": (3, 0, 32)}, r"input size \(3, 0, 32\)"),
        ({"input_size": (32, 32)}, r"not \(channels, height, width\)"),
    ],
)
def test_bad_options_say_what_is_wrong(bad, words):
    with pytest.raises(ZooError, match=words):
        ExportOptions(**bad)


@pytest.mark.parametrize("name", RUNTIMES)
def test_every_row_is_a_whole_runtime(name):
    made = runtime(name)
    assert isinstance(made, Runtime)
    assert made.name == name
    assert made.suffix.startswith(".")
    assert made.available("cpu") is None
    assert all(installed(package) for package in made.packages)
    assert "npu" in (made.available("npu") or "")


def test_where_two_distributions_share_a_module_its_own_version_counts(monkeypatch):
    """The two need not be in one folder, nor of one version."""
    versions = {"onnxruntime": "1.0", "onnxruntime-gpu": "2.0", "timm": "3.0"}

    def version(name):
        if name not in versions:
            raise importlib.metadata.PackageNotFoundError(name)
        return versions[name]

    monkeypatch.setattr(importlib.metadata, "version", version)
    assert installed("timm") == "3.0"
    assert installed("openvino") is None
    assert installed("onnxruntime") == onnxruntime.__version__
    del versions["onnxruntime"]
    assert installed("onnxruntime") == "2.0"


def test_suffixes_are_distinct():
    assert len({runtime(name).suffix for name in RUNTIMES}) == len(RUNTIMES)


def test_an_unknown_format_names_the_nearest():
    with pytest.raises(ZooError, match=r"unknown format 'onxx'.*Did you mean onnx"):
        runtime("onxx")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_provider_that_is_not_there_is_no_silent_cpu(name, tmp_path):
    reason = runtime(name).available("cuda")
    if reason is None:
        pytest.skip("CUDA runs here")
    with pytest.raises(ZooError, match="cuda"):
        runtime(name).load(tmp_path / "model", provider="cuda")


@pytest.mark.parametrize("name", RUNTIMES)
def test_a_file_of_another_kind_is_one_sentence(name, tmp_path):
    path = tmp_path / "model"
    for content in (None, b"not a model"):
        if content is not None:
            path.write_bytes(content)
        with pytest.raises(ZooError, match="cannot load") as caught:
            runtime(name).load(path)
        assert "\n" not in str(caught.value)


def test_public_names_are_lazy():
    assert all(hasattr(export, name) for name in export.__all__)
    assert set(export.__all__) <= set(dir(export))
    with pytest.raises(AttributeError, match="no attribute 'nothing'"):
        _ = export.nothing
    code = "import sys, export; assert not {'onnx', 'torch', 'onnxruntime'} & sys.modules.keys()"
    subprocess.run([sys.executable, "-c", code], check=True, cwd=Path(export.__file__).parents[1])
