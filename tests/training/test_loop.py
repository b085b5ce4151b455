import dataclasses
import json
import os
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor, nn
from torch._dynamo.exc import TorchDynamoException
from torch._dynamo.utils import counters

import zoo
from zoo.errors import ZooError
from zoo.layers import dynamic_layers
from zoo.training import checkpoint, log, loop
from zoo.training.augment import warp
from zoo.training.batches import batches
from zoo.training.data import Split, first
from zoo.training.loop import train
from zoo.training.recipe import Recipe

pytestmark = pytest.mark.usefixtures("tiny_models")

Run = Callable[..., dict[str, Tensor]]


@pytest.fixture
def run(recipe: Recipe, split: Split, tmp_path: Path) -> Run:
    """Return a function that trains in a subfolder and returns all tensors of the checkpoint."""

    def go(folder: str = "run", **options: Any) -> dict[str, Tensor]:
        run_dir = tmp_path / folder
        run_dir.mkdir(exist_ok=True)
        used = dataclasses.replace(recipe, **options.pop("recipe", {}))
        torch.manual_seed(used.seed)
        train(used, zoo.create_model(used.model), split, run_dir, **options)
        return {
            prefix + name: value
            for prefix in ("model.", "ema.", "optimizer.")
            for name, value in checkpoint._open(run_dir, prefix)[1].items()
        }

    return go


def read_log(run_dir: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in (run_dir / log.FILE).read_text().splitlines()]


def same(first: dict[str, Tensor], second: dict[str, Tensor]) -> bool:
    return first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)


def test_log_and_printed_lines(run: Run, split: Split, tmp_path: Path, capsys: pytest.CaptureFixture) -> None:
    run(test=split)
    lines = read_log(tmp_path / "run")
    assert [(line["epoch"], line["size"], "top1" in line) for line in lines] == [
        (1, 16, False),
        (2, 16, True),
        (3, 32, True),
    ]
    assert {"loss", "train_top1", "images_per_second", "seconds", "lr", "peak_memory_mb"} <= lines[0].keys()
    assert "epoch 3/3 at 32px, loss" in capsys.readouterr().out


def test_learns(run: Run, tmp_path: Path, split: Split) -> None:
    run(recipe={"phases": ((16, 25),), "label_smoothing": 0.0}, test=split)
    lines = read_log(tmp_path / "run")
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]
    assert lines[-1]["top1"] > 30


def test_a_trained_model_computes_in_its_own_precision(recipe: Recipe, split: Split, tmp_path: Path) -> None:
    model = zoo.create_model("testnet_dpk")
    how = dataclasses.replace(recipe, model="testnet_dpk", amp="bf16", shared_epochs=3)
    train(how, model, split, tmp_path)
    assert "forward" not in vars(model)
    seen: list[torch.dtype] = []
    model.conv1.register_forward_hook(lambda module, inputs, output: seen.append(output.dtype))
    model(torch.zeros(1, 3, 32, 32))
    assert seen == [torch.float32]
    assert {layer.shared_images for layer in zoo.layers.dynamic_layers(model)} == {1}


def test_frozen_parameters_stay_and_can_learn_again(recipe: Recipe, split: Split, tmp_path: Path) -> None:
    """With its vectors at 0 kw has the same kernels for all images, as a static network does."""
    torch.manual_seed(0)
    model = zoo.dynamize(zoo.create_model("testnet_static"), "kw")
    before = {name: parameter.clone() for name, parameter in model.named_parameters()}
    how = dataclasses.replace(recipe, model="testnet_kw", freeze=("*.vectors", "fc.bias"))
    train(how, model, split, tmp_path)
    same = {name for name, parameter in model.named_parameters() if torch.equal(parameter, before[name])}
    vectors = {name for name in before if name.endswith(".vectors")}
    # What reduces the context reaches the image through the vectors alone: its gradient is 0.
    reduced = {name for name in before if ".reduce." in name}
    assert vectors
    assert vectors | {"fc.bias"} <= same <= vectors | {"fc.bias"} | reduced
    assert all(parameter.requires_grad for parameter in model.parameters())
    kept = checkpoint.read_ema(tmp_path)
    assert all(not kept[name].any() for name in vectors)
    with pytest.raises(ZooError, match=r"no parameter is called 'vectors'; freeze those of the model"):
        loop.check(dataclasses.replace(how, freeze=("vectors",)), model)


@pytest.mark.cuda
@pytest.mark.skipif(not torch.cuda.is_available(), reason="torch has no CUDA device here")
@pytest.mark.parametrize("model", ["testnet_static", "testnet_kw", "testnet_dpk"])
def test_learns_on_cuda(
    run: Run, recipe: Recipe, split: Split, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    """In bf16, as runs on CUDA are unless they say otherwise; the images are warped there."""
    monkeypatch.delenv("ACCELERATE_USE_CPU")
    seen: set[str] = set()
    draw = loop.warp

    def noted(images: Tensor, *args: Any, **options: Any) -> Tensor:
        seen.add(images.device.type)
        return draw(images, *args, **options)

    monkeypatch.setattr(loop, "warp", noted)
    tensors = run(recipe={"model": model, "phases": ((16, 25),), "label_smoothing": 0.0}, test=split)
    lines = read_log(tmp_path / "run")
    assert seen == {"cuda"}
    assert lines[-1]["loss"] < 0.75 * lines[0]["loss"]
    assert all(value.isfinite().all() for value in tensors.values() if value.is_floating_point())


def test_checkpoints_are_written_as_often_as_asked_and_at_the_end(
    run: Run, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    saved: list[int] = []
    save = checkpoint.save

    def noted(run_dir: Path, progress: checkpoint.Progress, *rest: Any) -> None:
        saved.append(progress.epoch)
        save(run_dir, progress, *rest)

    monkeypatch.setattr(checkpoint, "save", noted)
    five = {"phases": ((16, 5),)}
    run(recipe=five, save_every=2)
    assert saved == [2, 4, 5]
    assert [line["epoch"] for line in read_log(tmp_path / "run")] == [1, 2, 3, 4, 5]


def test_what_was_logged_after_the_last_checkpoint_is_done_again(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    five = {"phases": ((16, 5),)}
    whole = run("whole", recipe=five)
    append = log.append

    def killed(run_dir: Path, record: dict[str, Any]) -> None:
        append(run_dir, record)
        if record["epoch"] == 3:
            raise KeyboardInterrupt

    with monkeypatch.context() as patched:
        patched.setattr(log, "append", killed)
        with pytest.raises(KeyboardInterrupt):
            run("cut", recipe=five, save_every=2)
    assert same(whole, run("cut", recipe=five, save_every=2, resume=True))
    assert [line["epoch"] for line in read_log(tmp_path / "cut")] == [1, 2, 3, 4, 5]


def test_a_new_run_forgets_what_was_logged_before_the_first_checkpoint(run: Run, tmp_path: Path) -> None:
    (tmp_path / "run").mkdir()
    (tmp_path / "run" / log.FILE).write_text('{"epoch": 1, "loss": 9.0, "train_top1": 1.0, "size": 16}\n')
    run()
    assert [line["epoch"] for line in read_log(tmp_path / "run")] == [1, 2, 3]


def test_cudnn_searches_in_training_alone(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    seen: list[bool] = []
    update = loop._Run.update

    def noted(self: loop._Run, *args: Any) -> Tensor:
        seen.append(torch.backends.cudnn.benchmark)
        return update(self, *args)

    monkeypatch.setattr(loop._Run, "update", noted)
    monkeypatch.setattr(torch.backends.cudnn, "benchmark", False)
    run()
    assert set(seen) == {True}
    assert torch.backends.cudnn.benchmark is False


def test_same_seed_same_weights(run: Run) -> None:
    first = run("a")
    assert same(first, run("b"))
    assert not same(first, run("c", recipe={"seed": 1}))


def test_annealing_ends_at_its_share_of_the_updates(
    run: Run, recipe: Recipe, monkeypatch: pytest.MonkeyPatch
) -> None:
    seen: list[float] = []
    monkeypatch.setattr(loop, "anneal", lambda model, progress: seen.append(progress))
    run("half", recipe={"anneal": 0.5})
    half = len(seen) // 2
    assert seen == pytest.approx([min(1, step / half) for step in range(len(seen))])
    seen.clear()
    run("none", recipe={"anneal": 0.0})
    assert set(seen) == {1.0}


def test_the_logits_of_dpk_are_kept_small(recipe: Recipe, split: Split, tmp_path: Path) -> None:
    model = zoo.create_model("testnet_dpk")
    layers = dynamic_layers(model)
    with torch.no_grad():
        for layer in layers:
            layer.in_queries.mul_(1e3)
    train(dataclasses.replace(recipe, model="testnet_dpk"), model, split, tmp_path)
    for layer in layers:
        reach = (layer.out_queries.unsqueeze(1) * (layer.keys[1:] - layer.keys[:1])).abs().flatten(0, 1)
        logits = reach @ layer.in_queries.abs().t() / layer.key_dim**0.5
        assert float(logits.max().detach()) <= layer.largest_logit * (1 + 1e-5)


@pytest.mark.parametrize("model", ["testnet_static", "testnet_kw"])
def test_resumed_is_uninterrupted(
    run: Run, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch, model: str
) -> None:
    changes = {"model": model, "images_per_epoch": 48}
    whole = run("whole", recipe=changes)
    update, calls = loop._Run.update, []

    def killed_in_the_second_epoch(self: loop._Run, *args: Any) -> Tensor:
        calls.append(1)
        if len(calls) == 5:
            raise KeyboardInterrupt
        return update(self, *args)

    with monkeypatch.context() as patch:
        patch.setattr(loop._Run, "update", killed_in_the_second_epoch)
        with pytest.raises(KeyboardInterrupt):
            run("cut", recipe=changes)
    # What a kill at the worst moment leaves behind: a torn line and half a checkpoint.
    with (tmp_path / "cut" / log.FILE).open("a") as file:
        file.write('{"epoch": 2, "lo')
    (tmp_path / "cut" / ".checkpoint.abc.safetensors").write_bytes(b"half")
    (tmp_path / "cut" / ".log.abc.jsonl").write_text("{")
    (tmp_path / "cut" / ".learning_curve.abc.png").write_bytes(b"half")
    assert checkpoint.read_progress(tmp_path / "cut").epoch == 1

    assert same(whole, run("cut", recipe=changes, resume=True))
    kept = [checkpoint.FILE, log.PICTURE, log.FILE]
    assert sorted(file.name for file in (tmp_path / "cut").iterdir()) == kept
    losses = [[line["loss"] for line in read_log(tmp_path / folder)] for folder in ("whole", "cut")]
    assert losses[0] == losses[1]


def test_resuming_a_finished_run_changes_nothing(run: Run) -> None:
    assert same(run(), run(resume=True))


def test_learning_rate_warms_up_and_falls_to_zero(run: Run, tmp_path: Path) -> None:
    run(recipe={"phases": ((16, 10),), "warmup": 0.2})
    rates = [line["lr"] for line in read_log(tmp_path / "run")]
    assert rates[0] < rates[1]
    assert max(rates) == pytest.approx(1e-2, rel=0.1)
    assert rates[2:] == sorted(rates[2:], reverse=True)
    assert rates[-1] < 1e-3 * 0.2


@pytest.mark.parametrize("smoothing", [0.0, 0.3])
def test_labels_are_smoothed_as_the_recipe_says(
    run: Run, recipe: Recipe, split: Split, tmp_path: Path, smoothing: float
) -> None:
    changes = {"phases": ((32, 1),), "batch_size": 64, "label_smoothing": smoothing}
    run(recipe=changes)  # one update, so that the logged loss is that of the initial weights
    ((rows, maps),) = batches(dataclasses.replace(recipe, **changes), 0, 64, 32)
    torch.manual_seed(recipe.seed)
    model = zoo.create_model(recipe.model).train()
    likely = model(warp(split.images[rows], maps, 32)).log_softmax(dim=1)
    wanted = torch.full((64, 10), smoothing / 10)
    wanted[torch.arange(64), split.labels[rows]] += 1 - smoothing
    loss = -(wanted * likely).sum(dim=1).mean().item()
    assert read_log(tmp_path / "run")[0]["loss"] == pytest.approx(loss, abs=2e-4)
    plain = -likely[torch.arange(64), split.labels[rows]].mean().item()
    assert (abs(loss - plain) > 2e-3) == (smoothing > 0), "the two losses can be told apart"


def test_the_averaged_weights_are_an_average(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    history: list[dict[str, Tensor]] = []
    update = loop._Run.update

    def watched(self: loop._Run, *args: Any) -> Tensor:
        result = update(self, *args)
        history.append({name: value.detach().clone() for name, value in self.model.named_parameters()})
        return result

    monkeypatch.setattr(loop._Run, "update", watched)
    found = run(recipe={"ema_decay": 0.5})
    assert len(history) == 12
    for name, last in history[-1].items():
        # After the first update a copy, then decay that warms up to the recipe's: 1 - 2 ** (-2/3) is 0.37.
        average = history[0][name]
        for step, weights in enumerate(history[1:], start=1):
            decay = min(0.5, 1 - (1 + step) ** (-2 / 3))
            average = decay * average + (1 - decay) * weights[name]
        assert torch.equal(found[f"model.{name}"], last)
        torch.testing.assert_close(found[f"ema.{name}"], average, rtol=1e-4, atol=1e-6)
    moved = "conv1.weight"
    assert not torch.allclose(found[f"ema.{moved}"], history[-1][moved], rtol=1e-3, atol=1e-5)


def test_kernels_are_shared_in_the_first_epochs(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    monkeypatch.setattr(loop, "share_context", lambda model, images: calls.append(images))
    run(recipe={"model": "testnet_kw", "shared_epochs": 1})
    assert calls == [16, 1, 1, 1]  # the whole batch, then none, and none once it is trained
    run(recipe={"model": "testnet_kw", "shared_epochs": 2, "shared_images": 2})
    assert calls[4:] == [2, 2, 1, 1]


def test_batches_are_warped_as_the_recipe_says(recipe: Recipe) -> None:
    upright = dataclasses.replace(recipe.augmentation, upright=1.0)
    for given, share in ((recipe, 0.0), (dataclasses.replace(recipe, augmentation=upright), 1.0)):
        maps = torch.cat([maps for _, maps in batches(given, 0, 64, 32)])
        level = (maps[:, 1, :2] == torch.tensor([0.0, 1.0])).all(dim=1)
        assert level.float().mean().item() == share


def test_an_epoch_is_a_fresh_random_subset(recipe: Recipe) -> None:
    short = dataclasses.replace(recipe, images_per_epoch=32)
    epochs = [torch.cat([rows for rows, _ in batches(short, epoch, 64, 32)]).tolist() for epoch in (0, 1)]
    assert [len(set(rows)) for rows in epochs] == [32, 32]
    assert set(epochs[0]) != set(epochs[1])


def test_processes_share_each_batch(recipe: Recipe) -> None:
    whole = list(batches(recipe, 0, 64, 32))
    shares = [list(batches(recipe, 0, 64, 32, rank, 2)) for rank in (0, 1)]
    for (rows, maps), *parts in zip(whole, *shares, strict=True):
        assert torch.equal(rows, torch.cat([part[0] for part in parts]))
        assert torch.equal(maps, torch.cat([part[1] for part in parts]))


def test_evaluation_every_epoch(run: Run, split: Split, tmp_path: Path) -> None:
    run(test=split, eval_every=1)
    assert all("top1" in line for line in read_log(tmp_path / "run"))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"images_per_epoch": 65}, "images_per_epoch is 65, but the data has only 64 images"),
        ({"batch_size": 65}, "batch_size 65 exceeds the 64 images of an epoch"),
        ({"optimizer": "adamv"}, r"there is no optimizer 'adamv'\. Did you mean adam"),
    ],
)
def test_recipe_that_does_not_fit(run: Run, changes: dict[str, Any], message: str) -> None:
    with pytest.raises(ZooError, match=message):
        run(recipe=changes)


def test_nothing_to_learn_from_and_no_checkpoint_to_keep(recipe: Recipe, split: Split) -> None:
    with pytest.raises(ZooError, match="there are no images to learn from in made for a test"):
        train(recipe, nn.Linear(1, 1), first(split, 0), Path())
    with pytest.raises(ZooError, match="save_every is 0; it must be at least 1"):
        train(recipe, nn.Linear(1, 1), split, Path(), save_every=0)


def test_batch_that_does_not_split(recipe: Recipe, split: Split, monkeypatch: pytest.MonkeyPatch) -> None:
    import accelerate

    monkeypatch.setattr(accelerate.Accelerator, "num_processes", 3)
    monkeypatch.setattr(loop, "check_joined", lambda processes, device: None)
    with pytest.raises(ZooError, match="batch_size 16 cannot be split evenly over 3 processes"):
        train(recipe, nn.Linear(1, 1), split, Path())


def test_divergence_keeps_the_last_good_checkpoint(
    run: Run, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    update, calls = loop._Run.update, []

    def diverging(self: loop._Run, *args: Any) -> Tensor:
        calls.append(1)
        return update(self, *args) * (float("nan") if len(calls) > 4 else 1)

    monkeypatch.setattr(loop._Run, "update", diverging)
    with pytest.raises(ZooError, match="the loss became nan in epoch 2; start anew with a lower --lr"):
        run()
    assert checkpoint.read_progress(tmp_path / "run").epoch == 1


@pytest.mark.parametrize("channels_last", [True, False])
def test_the_network_and_its_images_lie_in_memory_as_the_recipe_says(
    run: Run, monkeypatch: pytest.MonkeyPatch, channels_last: bool
) -> None:
    seen = set()

    def looked_at(self: loop._Run, *args: Any) -> Tensor:
        hook = self.model.conv1.register_forward_hook(
            lambda module, inputs, output: seen.update(
                each.is_contiguous() for each in (inputs[0], module.weight)
            )
        )
        result = update(self, *args)
        hook.remove()
        return result

    update = loop._Run.update
    monkeypatch.setattr(loop._Run, "update", looked_at)
    run(recipe={"channels_last": channels_last})
    assert seen == {not channels_last}


@pytest.mark.parametrize(
    ("model", "device", "chosen"),
    [
        ("mobilenetv3_small_100_static", "cpu", torch.channels_last),
        ("mobilenetv3_small_100_kw", "cpu", torch.channels_last),  # its layers are scaled
        ("mobilenetv3_small_100_fgk", "cpu", torch.contiguous_format),
        ("mobilenetv3_small_100_fgk", "cuda", torch.channels_last),
        ("resnet10_dpk", "cpu", torch.channels_last),
    ],
)
def test_images_lie_in_memory_as_is_likely_faster(
    model: str, device: str, chosen: torch.memory_format
) -> None:
    network = zoo.create_model(model)
    loop.set_training_lowering(network, "auto")
    assert loop.memory_format(Recipe(model).channels_last, network, torch.device(device)) is chosen


def test_images_lie_in_memory_as_suits_most_layers() -> None:
    network = zoo.create_model("mobilenetv3_small_100_fgk", stages=(3,))
    loop.set_training_lowering(network, "auto")
    assert loop.memory_format(None, network, torch.device("cpu")) is torch.channels_last


@pytest.mark.slow
@pytest.mark.skipif(shutil.which(os.environ.get("CXX", "g++")) is None, reason="there is no C++ compiler")
def test_a_compiled_run_learns_the_same(run: Run, tmp_path: Path) -> None:
    recipe = {"model": "testnet_kw", "phases": ((16, 2),)}
    plain = run("plain", recipe=recipe)
    counters.clear()
    compiled = run("compiled", recipe={**recipe, "compile": True})
    assert counters["stats"]["unique_graphs"] > 0
    assert plain.keys() == compiled.keys()
    losses = [[line["loss"] for line in read_log(tmp_path / name)] for name in ("plain", "compiled")]
    assert losses[1] == pytest.approx(losses[0], rel=1e-2)
    # And its checkpoint is that of any run.
    progress = checkpoint.read_progress(tmp_path / "compiled")
    assert progress.recipe.compile
    zoo.create_model("testnet_kw").load_state_dict(
        checkpoint.read_weights(tmp_path / "compiled" / checkpoint.FILE)
    )


def test_what_cannot_be_compiled_is_one_sentence(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    def refuse(model: nn.Module, **options: Any) -> nn.Module:
        def fail(*args: Any) -> None:
            raise TorchDynamoException("no compiler\nand much more")

        broken = nn.Identity()
        broken.forward = fail
        return broken

    monkeypatch.setattr(torch, "compile", refuse)
    with pytest.raises(ZooError, match=r"cannot compile testnet_static \(no compiler\); leave --compile out"):
        run(recipe={"compile": True})


def test_other_errors_of_a_compiled_run_are_themselves(run: Run, monkeypatch: pytest.MonkeyPatch) -> None:
    class Broken(nn.Module):
        def forward(self, inputs: Tensor) -> Tensor:
            raise RuntimeError("out of memory")

    monkeypatch.setattr(loop, "compiled", lambda model: Broken())
    with pytest.raises(RuntimeError, match=r"^out of memory$"):
        run(recipe={"compile": True})


def test_what_anneals_is_not_compiled_at_every_update(
    split: Split, recipe: Recipe, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(loop, "compiled", lambda model: model)
    soft = dataclasses.replace(recipe, model="resnet10_dyconv", compile=True, phases=((8, 1),))
    with pytest.raises(
        ZooError, match=r"resnet10_dyconv anneals.* train without --compile, or with --anneal 0"
    ):
        train(soft, zoo.create_model("resnet10_dyconv"), split, tmp_path)
    train(dataclasses.replace(soft, anneal=0), zoo.create_model("resnet10_dyconv"), split, tmp_path)
