"""Which test images a published model gets right, kept for comparisons."""

import json
from pathlib import Path

import pytest
import torch

from zoo.errors import ZooError
from zoo.training import answers
from zoo.training.answers import Answers


def published(folder: Path, **sha256: str) -> None:
    manifest = {name: {"file": name, "bytes": 1, "sha256": digest} for name, digest in sha256.items()}
    (folder / "manifest.json").write_text(json.dumps(manifest))


def test_answers_are_kept_by_model_and_go_with_its_weights(tmp_path: Path) -> None:
    assert answers.read(tmp_path) == {}
    published(tmp_path, one="1", two="2")
    generator = torch.Generator().manual_seed(0)
    first, second = (torch.rand(3, count, generator=generator) < 0.6 for count in (21, 16))
    answers.record("one", Answers(first, "a"), tmp_path)
    answers.record("two", Answers(second, "b"), tmp_path)
    found = answers.read(tmp_path)
    assert torch.equal(found["one"].right, first)
    assert torch.equal(found["two"].right, second)
    assert [found[name].data_sha256 for name in ("one", "two")] == ["a", "b"]
    published(tmp_path, one="1", two="other weights")
    assert answers.read(tmp_path).keys() == {"one"}
    published(tmp_path, one="1", two="2")
    answers.record("one", Answers(~first, "a"), tmp_path)
    found = answers.read(tmp_path)
    assert torch.equal(found["one"].right, ~first)
    assert torch.equal(found["two"].right, second), "the others stay"


def test_a_damaged_file_is_named(tmp_path: Path) -> None:
    published(tmp_path, one="1")
    answers.record("one", Answers(torch.ones(2, 8, dtype=torch.bool), "a"), tmp_path)
    path = tmp_path / answers.FILE
    path.write_bytes(path.read_bytes()[:40])
    with pytest.raises(ZooError, match=r"answers\.safetensors is damaged .*; restore it"):
        answers.read(tmp_path)
