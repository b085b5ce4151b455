import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from torch import nn

from zoo.errors import ZooError
from zoo.training import checkpoint
from zoo.training.checkpoint import Progress
from zoo.training.recipe import Recipe

Parts = tuple[nn.Module, nn.Module, torch.optim.Optimizer]


def make_parts(seed: int = 0) -> Parts:
    """A network in channels_last, its average, and an optimizer with two groups and some momentum."""
    torch.manual_seed(seed)
    model = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    model.to(memory_format=torch.channels_last)
    ema = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(16, 2))
    parameters = list(model.parameters())
    groups: list[dict[str, Any]] = [{"params": parameters[1::2]}, {"params": parameters[::2]}]
    groups[0]["weight_decay"] = 0.0
    optimizer = torch.optim.AdamW(groups)
    for _ in range(2):
        optimizer.zero_grad()
        model(torch.randn(5, 3, 4, 4)).square().sum().backward()
        optimizer.step()
    return model, ema, optimizer


@pytest.fixture
def progress() -> Progress:
    return Progress(
        Recipe("testnet_static", phases=((32, 3),)), epoch=2, step=8, seconds=1.5, facts={"a": [1]}
    )


def test_round_trip(tmp_path: Path, progress: Progress) -> None:
    saved, other = make_parts(), make_parts(seed=1)
    checkpoint.save(tmp_path, progress, *saved)
    assert checkpoint.read_progress(tmp_path) == progress
    checkpoint.restore(tmp_path, *other)
    for before, after in zip(saved[:2], other[:2], strict=True):
        assert before.state_dict().keys() == after.state_dict().keys()
        assert all(
            torch.equal(before.state_dict()[name], value) for name, value in after.state_dict().items()
        )
    for old, new in zip(saved[0].parameters(), other[0].parameters(), strict=True):
        for key, value in saved[2].state[old].items():
            restored = other[2].state[new][key]
            assert torch.equal(restored, value)
            assert restored.stride() == value.stride(), "the memory format is part of the speed"


def test_ema_is_read_alone(tmp_path: Path, progress: Progress) -> None:
    parts = make_parts()
    checkpoint.save(tmp_path, progress, *parts)
    state = checkpoint.read_ema(tmp_path)
    assert all(torch.equal(state[name], value) for name, value in parts[1].state_dict().items())


def test_holds_tensors_and_json_only(tmp_path: Path, progress: Progress) -> None:
    checkpoint.save(tmp_path, progress, *make_parts())
    names = load_file(tmp_path / checkpoint.FILE)
    assert {
        "model.0.weight",
        "ema.3.bias",
        "optimizer.0.weight.exp_avg",
        "optimizer.3.bias.step",
    } <= names.keys()


def test_failed_write_leaves_the_old_one(
    tmp_path: Path, progress: Progress, monkeypatch: pytest.MonkeyPatch
) -> None:
    checkpoint.save(tmp_path, progress, *make_parts())
    before = (tmp_path / checkpoint.FILE).read_bytes()

    def half(tensors: object, path: Path, metadata: object) -> None:
        Path(path).write_bytes(b"half a file")
        raise OSError("No space left on device")

    monkeypatch.setattr(checkpoint, "save_file", half)
    with pytest.raises(OSError, match="No space left"):
        checkpoint.save(tmp_path, progress, *make_parts(seed=1))
    assert (tmp_path / checkpoint.FILE).read_bytes() == before
    assert [file.name for file in tmp_path.iterdir()] == [checkpoint.FILE]


def test_no_checkpoint(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match=r"there is no checkpoint in .*; start a run there first"):
        checkpoint.read_progress(tmp_path)


def test_damaged(tmp_path: Path, progress: Progress) -> None:
    checkpoint.save(tmp_path, progress, *make_parts())
    file = tmp_path / checkpoint.FILE
    file.write_bytes(file.read_bytes()[:-100])
    with pytest.raises(ZooError, match=r"is damaged .*; delete it and train anew"):
        checkpoint.read_ema(tmp_path)


@pytest.mark.parametrize("described", [None, "{", json.dumps({"recipe": {}}), json.dumps([1])])
def test_not_a_training_run(tmp_path: Path, described: str | None) -> None:
    metadata = None if described is None else {"training": described}
    save_file({"x": torch.zeros(1)}, tmp_path / checkpoint.FILE, metadata=metadata)
    with pytest.raises(ZooError, match="does not describe a training run"):
        checkpoint.read_progress(tmp_path)


def test_another_models_checkpoint(tmp_path: Path, progress: Progress) -> None:
    _, _, optimizer = parts = make_parts()
    checkpoint.save(tmp_path, progress, *parts)
    with pytest.raises(ZooError, match="do not fit this model"):
        checkpoint.restore(tmp_path, nn.Linear(2, 2), nn.Linear(2, 2), optimizer)


def test_weights_from_a_run_or_a_plain_file(tmp_path: Path, progress: Progress) -> None:
    parts = make_parts()
    checkpoint.save(tmp_path, progress, *parts)
    state = {name: value.half().contiguous() for name, value in parts[1].state_dict().items()}
    del state["3.bias"]
    save_file(state, tmp_path / "plain.safetensors")
    from_run = checkpoint.read_weights(tmp_path / checkpoint.FILE)
    from_file = checkpoint.read_weights(tmp_path / "plain.safetensors")
    assert from_file["0.weight"].dtype is torch.float32
    torch.testing.assert_close(from_file["0.weight"], from_run["0.weight"], rtol=1e-3, atol=1e-4)
    with pytest.raises(
        ZooError,
        match=r"plain\.safetensors does not fit the model: \d+ of \d+ tensors differ, the first is .*3\.bias",
    ):
        checkpoint.load_weights(parts[0], tmp_path / "plain.safetensors")


def test_a_renamed_checkpoint(tmp_path: Path, progress: Progress) -> None:
    parts = make_parts()
    checkpoint.save(tmp_path, progress, *parts)
    renamed = (tmp_path / checkpoint.FILE).rename(tmp_path / "best.safetensors")
    assert checkpoint.is_run(renamed)
    assert checkpoint.read_progress(renamed) == progress
    state = checkpoint.read_weights(renamed)
    assert all(torch.equal(state[name], value) for name, value in parts[1].state_dict().items())


def test_a_plain_file_of_the_same_name(tmp_path: Path) -> None:
    plain = tmp_path / checkpoint.FILE
    save_file({"x": torch.ones(1)}, plain)
    assert not checkpoint.is_run(plain)
    assert checkpoint.read_weights(plain).keys() == {"x"}
    plain.write_bytes(b"damaged")
    assert not checkpoint.is_run(plain)
    assert not checkpoint.is_run(tmp_path)
