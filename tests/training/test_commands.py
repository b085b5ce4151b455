"""``python -m zoo.train``, from the command line to the manifest."""

import dataclasses
import json
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import save_file
from torch import Tensor

import zoo
from zoo import cli, evaluate, pretrained, train
from zoo.training import checkpoint, log, loop, publish
from zoo.training.data import Split
from zoo.training.recipe import Recipe
from zoo.training.recipes import cpu

from .helpers import SHORT, Command, WriteParquet, encode, make_images

pytestmark = pytest.mark.usefixtures("tiny_models")


def test_train_publish_evaluate(
    zoo_train: Command, run_dir: Path, weights: Path, data: Path, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*SHORT, "--publish") == 0
    assert "published: top-1" in capsys.readouterr().out
    entry = json.loads((weights / "manifest.json").read_text())["testnet_static"]
    assert entry["epochs"] == 2
    assert entry["images_seen"] == 8
    assert entry["recipe"]["phases"] == [[16, 1], [32, 1]]
    assert entry["data"]["note"] == "tiny"
    assert entry["versions"].keys() == {"python", "torch", "torchvision", "timm", "zoo"}
    assert entry["figures"]["images"] == 4
    assert str(data) not in json.dumps(entry), "the manifest names no folder of this machine"
    published = pretrained.load_checkpoint(weights / entry["file"])
    ema = checkpoint.read_ema(run_dir)
    assert published["conv1.weight"].dtype is torch.float16
    assert torch.equal(published["conv1.weight"], ema["conv1.weight"].half())

    words = ["--model", "testnet_static", "--data", str(data), "--checkpoint", str(run_dir / checkpoint.FILE)]
    assert cli.run(evaluate.main, words) == 0
    assert "testnet_static" in capsys.readouterr().out


def test_warm_start_and_resume(zoo_train: Command, run_dir: Path, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    static = run_dir / checkpoint.FILE
    twin = ["--model", "testnet_kw", "--epochs", "1", "--batch-size", "4", "--warm-start", str(static)]
    twin += ["--run-dir", str(run_dir / "twin")]
    assert zoo_train(*twin) == 0
    printed = capsys.readouterr().out
    assert "8 dynamic layers, largest relative error of the kernels" in printed
    assert "its images come again, warped alike; --seed 1 draws anew" in printed
    assert zoo_train(*twin[:-1], str(run_dir / "anew"), "--seed", "1") == 0
    third = ["--warm-start", str(run_dir / "anew" / checkpoint.FILE), "--run-dir", str(run_dir / "third")]
    assert "come again" not in capsys.readouterr().out
    assert zoo_train(*twin[:-4], *third) == 0
    assert "come again, warped alike; --seed 2 draws anew" in capsys.readouterr().out, "both seeds behind it"
    attention = ["testnet_dpk" if word == "testnet_kw" else word for word in twin[:-1]]
    assert zoo_train(*attention, str(run_dir / "attention")) == 0
    assert "8 dynamic layers, 8 of them with kernels that start at random" in capsys.readouterr().out
    static.unlink()
    assert zoo_train(*twin, "--resume") == 0
    assert zoo_train("--run-dir", str(run_dir / "twin"), "--resume") == 0
    assert checkpoint.read_progress(run_dir / "twin").recipe.model == "testnet_kw"


def stop_after_an_epoch(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have runs end as by Ctrl-C once they have saved."""
    save = checkpoint.save

    def stop(*args: object) -> None:
        save(*args)  # type: ignore[arg-type]
        raise KeyboardInterrupt

    monkeypatch.setattr(checkpoint, "save", stop)


def test_a_run_that_goes_on_elsewhere_names_both_devices(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    with monkeypatch.context() as patched:
        stop_after_an_epoch(patched)
        patched.setattr(publish, "device", lambda threads: "2 x processor")
        assert zoo_train(*SHORT) == 130
    first = checkpoint.read_progress(run_dir).facts
    assert first["device"] == "2 x processor"
    monkeypatch.setattr(train, "device", lambda threads: "processor")
    for _ in range(2):  # once more where it is is no other device
        assert zoo_train("--run-dir", str(run_dir), "--resume") == 0
    wanted = {**first, "device": "2 x processor, then processor"}
    assert checkpoint.read_progress(run_dir).facts == wanted


def test_images_held_out_are_evaluated_on_and_not_learned_from(
    zoo_train: Command, run_dir: Path, write_parquet: WriteParquet, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Six images, of which the last two have the label 1: a network that always says so has all of them."""
    images = [encode(image.permute(1, 2, 0).numpy()) for image in make_images(6)]
    write_parquet("train.parquet", images, [0, 0, 0, 0, 1, 1])
    learned: set[int] = set()
    update = loop._Run.update

    def watched(self: loop._Run, step: int, rows: Tensor, maps: Tensor, size: int) -> Tensor:
        learned.update(rows.tolist())
        return update(self, step, rows, maps, size)

    monkeypatch.setattr(loop._Run, "update", watched)
    monkeypatch.setattr(loop, "top1", lambda model, split: 100 * float((split.labels == 1).double().mean()))
    assert zoo_train(*SHORT, "--held-out", "2") == 0
    assert learned == {0, 1, 2, 3}
    *_, record = map(json.loads, (run_dir / log.FILE).read_text().splitlines())
    assert record["top1_held_out"] == 100
    assert "top1" not in record
    assert checkpoint.read_progress(run_dir).facts["train_images"] == 4


def test_images_held_out_are_none_that_the_start_has_learned_from(
    zoo_train: Command,
    run_dir: Path,
    write_parquet: WriteParquet,
    tmp_path: Path,
    capsys: pytest.CaptureFixture,
) -> None:
    images = [encode(image.permute(1, 2, 0).numpy()) for image in make_images(8)]
    write_parquet("train.parquet", images, [0] * 8)
    foreign = tmp_path / "foreign.safetensors"
    save_file(zoo.create_model("testnet_static").state_dict(), foreign)
    held = ["--held-out", "2", "--seed", "1"]
    for name, start in (("first", foreign), ("second", run_dir / "first" / checkpoint.FILE)):
        words = ["--run-dir", str(run_dir / name), "--warm-start", str(start)]
        assert zoo_train(*SHORT, *words, *held) == 0, "none of them was learned from, as far as is known"
        assert "learned from the images to hold out is not known" in capsys.readouterr().out
    on = ["--warm-start", str(run_dir / "second" / checkpoint.FILE), "--run-dir"]
    assert zoo_train(*SHORT, *on, str(run_dir / "more"), "--held-out", "3") == 2
    learned = "may have learned from some of the {} images to hold out; take what had"
    assert learned.format(3) in capsys.readouterr().err
    assert not (run_dir / "more").exists()
    assert zoo_train(*SHORT, *on, str(run_dir / "all")) == 0
    after = ["--warm-start", str(run_dir / "all" / checkpoint.FILE), "--run-dir", str(run_dir / "after")]
    assert zoo_train(*SHORT, *after, "--held-out", "1") == 2
    assert learned.format(1) in capsys.readouterr().err
    write_parquet("train.parquet", images[:1] * 8, [0] * 8)
    assert zoo_train(*SHORT, *on, str(run_dir / "others"), *held) == 2, "the last images are others"
    assert learned.format(2) in capsys.readouterr().err


def test_images_held_out_are_none_that_the_teacher_has_learned_from(
    zoo_train: Command, run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*SHORT, "--publish") == 0
    taught = ["--teacher", "testnet_static", "--run-dir", str(run_dir / "taught"), "--held-out", "1"]
    assert zoo_train("--model", "testnet_kw", *SHORT[2:], *taught) == 2
    words = "the teacher testnet_static may have learned from some of the 1 images to hold out"
    assert words in capsys.readouterr().err


def test_weights_that_could_not_be_published_are_not_trained(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*SHORT, "--publish") == 0
    known = train.load_cifar10
    monkeypatch.setattr(
        train, "load_cifar10", lambda *words: dataclasses.replace(known(*words), sha256="other")
    )
    anew = [*SHORT, "--publish", "--run-dir", str(run_dir / "anew")]
    assert zoo_train(*anew) == 2
    assert "were measured on other images (CIFAR-10, parquet folder" in capsys.readouterr().err
    assert not (run_dir / "anew").exists()
    assert zoo_train(*anew, "--replace") == 0


@pytest.fixture
def short_recipe(monkeypatch: pytest.MonkeyPatch) -> None:
    """Have ``cpu`` be three runs of an epoch: two of the twin, and the model's."""

    def recipe(model: str) -> tuple[Recipe, ...]:
        one = Recipe("testnet_static", phases=((16, 1),), batch_size=4)
        return one, dataclasses.replace(one, seed=1), dataclasses.replace(one, model=model, seed=2)

    monkeypatch.setattr(cpu, "recipe", recipe)


WHOLE = ("--recipe", "cpu", "--model")


@pytest.mark.usefixtures("short_recipe")
def test_one_command_trains_all_that_a_recipe_has(
    zoo_train: Command, run_dir: Path, weights: Path, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*WHOLE, "testnet_kw", "--publish", "--held-out", "0") == 0
    first, second = (run_dir.parent / f"testnet_static_cpu_{number}" for number in (1, 2))
    printed = capsys.readouterr().out
    for number, name, folder in ((1, "static", first), (2, "static", second), (3, "kw", run_dir)):
        assert f"run {number} of 3: testnet_{name} in {folder}, 1 epoch\n" in printed
    assert printed.count("warm start from") == 2
    runs = [checkpoint.read_progress(folder) for folder in (first, second, run_dir)]
    assert [run.recipe.seed for run in runs] == [0, 1, 2]
    assert [run.recipe.warm_start for run in runs] == [
        None,
        *(str(folder / checkpoint.FILE) for folder in (first, second)),
    ]
    # All that it was made by is in the manifest, and the weights are those of the last run.
    entry = pretrained.read_manifest()["testnet_kw"]
    assert [run["recipe"]["seed"] for run in pretrained.lineage(entry)] == [2, 1, 0]
    assert entry["images_seen"] + entry["started_from"]["images_seen"] == 8
    published = pretrained.load_checkpoint(weights / entry["file"])
    assert torch.equal(published["conv1.weight"], checkpoint.read_ema(run_dir)["conv1.weight"].half())

    # Another model takes what is there as it is.
    before = [(folder / checkpoint.FILE).read_bytes() for folder in (first, second)]
    twin = run_dir.with_name("twin")
    assert zoo_train(*WHOLE, "testnet_static", "--run-dir", str(twin)) == 0
    told = [line for line in capsys.readouterr().out.splitlines() if line.startswith("run ")]
    assert told == [
        f"run 2 of 3: testnet_static in {second}, 1 epoch, 1 of them done",
        f"run 3 of 3: testnet_static in {twin}, 1 epoch",
    ]
    assert [(folder / checkpoint.FILE).read_bytes() for folder in (first, second)] == before


@pytest.mark.usefixtures("short_recipe")
def test_a_recipe_that_was_stopped_goes_on_where_it_was(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    longer = (*WHOLE, "testnet_kw", "--amp", "bf16", "--threads", "1")
    known = cpu.recipe("testnet_kw")
    two = tuple(dataclasses.replace(each, phases=((16, 2),)) for each in known)
    monkeypatch.setattr(cpu, "recipe", lambda model: two)
    base = run_dir.parent / "testnet_static_cpu_1"
    with monkeypatch.context() as patched:
        stop_after_an_epoch(patched)
        assert zoo_train(*longer) == 130
    assert checkpoint.read_progress(base).epoch == 1
    assert zoo_train(*longer) == 2
    assert f"{base} already holds a run; add --resume to go on with it" in capsys.readouterr().err
    assert zoo_train(*longer[:-1], "2", "--resume") == 2
    assert f"the run in {base} has threads 1, not 2; go on with its own" in capsys.readouterr().err
    assert zoo_train(*WHOLE, "testnet_kw", "--resume") == 0
    assert f"run 1 of 3: testnet_static in {base}, 2 epochs, 1 of them done" in capsys.readouterr().out
    # The runs that followed compute as the one that was stopped.
    found = [checkpoint.read_progress(folder).recipe for folder in (base, run_dir)]
    assert [(recipe.amp, recipe.threads) for recipe in found] == [("bf16", 1)] * 2
    assert checkpoint.read_progress(base).finished
    assert checkpoint.read_progress(run_dir).finished
    # Once the last run is there, those before are not needed, whatever lies there.
    (base / checkpoint.FILE).write_bytes(b"damaged")
    assert zoo_train(*WHOLE, "testnet_kw", "--resume") == 0
    assert zoo_train(*WHOLE, "testnet_kw") == 2
    assert f"{run_dir} already holds a run" in capsys.readouterr().err
    assert (base / checkpoint.FILE).read_bytes() == b"damaged"


@pytest.mark.usefixtures("short_recipe")
@pytest.mark.parametrize(
    ("words", "message"),
    [
        (("--lowering", "scaled"), "has no lowering 'scaled'"),
        (("--teacher", "testnet_static", "--held-out", "1"), "the teacher testnet_static may have learned"),
    ],
)
def test_what_the_last_run_cannot_have_is_said_before_the_first(
    zoo_train: Command,
    run_dir: Path,
    weights: Path,
    words: tuple[str, ...],
    message: str,
    capsys: pytest.CaptureFixture,
) -> None:
    assert zoo_train(*SHORT, "--publish", "--run-dir", str(run_dir.parents[1] / "other")) == 0
    assert zoo_train(*WHOLE, "testnet_dpk", *words) == 2
    assert message in capsys.readouterr().err
    assert not list(run_dir.parent.glob("testnet_static_cpu_*"))


@pytest.mark.usefixtures("short_recipe")
def test_a_run_is_not_put_where_another_of_its_recipe_lies(
    zoo_train: Command, run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    taken = run_dir.with_name("testnet_static_cpu_2")
    assert zoo_train(*WHOLE, "testnet_kw", "--run-dir", str(taken)) == 2
    assert f"{taken} is where the recipe cpu has another of its runs" in capsys.readouterr().err


@pytest.mark.usefixtures("short_recipe")
def test_two_trainings_do_not_write_over_each_other(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    known, second = loop.train, run_dir.parent / "testnet_static_cpu_2"

    def beside(*words: Any, **options: Any) -> Any:
        second.mkdir(exist_ok=True)
        (second / checkpoint.FILE).write_bytes(b"of another process")
        return known(*words, **options)

    monkeypatch.setattr(loop, "train", beside)
    assert zoo_train(*WHOLE, "testnet_kw") == 2
    assert f"another training has begun in {second} meanwhile" in capsys.readouterr().err
    assert (second / checkpoint.FILE).read_bytes() == b"of another process"


@pytest.mark.usefixtures("short_recipe")
def test_the_command_line_reaches_the_runs_before_the_last(
    zoo_train: Command, run_dir: Path, capsys: pytest.CaptureFixture
) -> None:
    words = ("--held-out", "1", "--batch-size", "3", "--threads", "1", "--lr", "0.5", "--seed", "2")
    assert zoo_train(*WHOLE, "testnet_kw", *words) == 0
    folders = (run_dir.parent / "testnet_static_cpu_1", run_dir.parent / "testnet_static_cpu_2", run_dir)
    found = [checkpoint.read_progress(folder).recipe for folder in folders]
    assert [each.seed for each in found] == [20, 21, 22]
    assert {(each.held_out, each.batch_size, each.threads) for each in found} == {(1, 3, 1)}
    assert [each.lr for each in found] == [2e-3, 2e-3, 0.5]
    # What is there is of another recipe than one that holds nothing out, whatever the number of threads.
    capsys.readouterr()
    anew = ("--run-dir", str(run_dir.with_name("anew")))
    assert zoo_train(*WHOLE, "testnet_kw", *words[2:], *anew) == 2
    said = capsys.readouterr().err
    assert f"the run in {folders[1]} has held_out 1, not 0" in said
    assert "choose a --run-dir in another folder" in said
    assert zoo_train(*WHOLE, "testnet_kw", *words[:4], *words[6:], *anew) == 0


@pytest.mark.usefixtures("short_recipe")
def test_a_start_of_ones_own_leaves_the_last_run_of_a_recipe(zoo_train: Command, run_dir: Path) -> None:
    assert zoo_train(*SHORT) == 0
    own = run_dir.with_name("own")
    start = ("--warm-start", str(run_dir / checkpoint.FILE), "--seed", "3", "--run-dir", str(own))
    assert zoo_train(*WHOLE, "testnet_kw", *start) == 0
    assert checkpoint.read_progress(own).recipe.seed == 3
    assert {path.name for path in run_dir.parent.iterdir()} == {"run", "own"}


@pytest.mark.usefixtures("short_recipe")
def test_a_base_of_other_images_is_not_gone_on_from(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*WHOLE, "testnet_static") == 0
    known = train.load_cifar10
    monkeypatch.setattr(
        train, "load_cifar10", lambda *words: dataclasses.replace(known(*words), sha256="other")
    )
    assert zoo_train(*WHOLE, "testnet_kw", "--run-dir", str(run_dir.with_name("kw"))) == 2
    assert "testnet_static_cpu_2 was started with other images" in capsys.readouterr().err
    assert not run_dir.with_name("kw").exists()


def test_a_tag_is_no_part_of_the_key(zoo_train: Command, weights: Path, run_dir: Path) -> None:
    assert zoo_train("--model", "testnet_static.cifar10", *SHORT[2:], "--upright", "0.5", "--publish") == 0
    recipe = checkpoint.read_progress(run_dir).recipe
    assert (recipe.model, recipe.augmentation.upright) == ("testnet_static", 0.5)
    assert pretrained.read_manifest().keys() == {"testnet_static"}
    assert evaluate.expand(["testnet_static.cifar10", "testnet_*"]) == ["testnet_static"]


def test_publish_with_draws(zoo_train: Command, weights: Path) -> None:
    assert zoo_train(*SHORT, "--publish", "--draws", "2") == 0
    found = pretrained.read_manifest()["testnet_static"]["figures"]
    assert found["augmented_draws"] == 2
    assert found["top1_augmented_std"] >= 0


def test_publish_only(zoo_train: Command, weights: Path) -> None:
    assert zoo_train(*SHORT) == 0
    assert not list(weights.iterdir())
    assert zoo_train("--publish-only") == 0
    assert (weights / "testnet_static.safetensors").exists()


def test_publish_only_trains_nothing(zoo_train: Command, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    assert zoo_train("--publish-only", "--model", "testnet_kw") == 2
    assert "the run is of testnet_static, not of testnet_kw; leave --model out" in capsys.readouterr().err
    assert zoo_train("--publish-only", "--lr", "0.5") == 2
    assert "--lr changes how a model is trained, and --publish-only trains none" in capsys.readouterr().err
    assert zoo_train(*SHORT, "--replace") == 2
    assert "--replace is about publishing; add --publish" in capsys.readouterr().err


def test_an_unfinished_run_is_not_published(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    stop_after_an_epoch(monkeypatch)
    assert zoo_train(*SHORT) == 130
    assert zoo_train("--publish-only", "--data", "absent") == 2
    assert "has done 1 of 2 epochs; finish it with --resume" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("words", "message"),
    [
        ((*SHORT, "--held-out", "-1"), "held_out is -1; it must be at least 0"),
        ((*SHORT, "--held-out", "4"), "4 images cannot be held out of the 4 in CIFAR-10"),
        (("--model", "testnet_statik"), "unknown model 'testnet_statik'. Did you mean testnet_static"),
        (("--model", "testnet_static", "--resume"), "there is no checkpoint in"),
        (("--publish-only", "--data", "absent"), "there is no checkpoint in"),
        ((), "give the --model to train"),
        (
            ("--model", "testnet_static", "--optimizer", "adamv", "--data", "absent"),
            "there is no optimizer 'adamv'. Did you mean adam",
        ),
        (("--model", "testnet_static.imagenet"), "unknown tag 'imagenet' of testnet_static"),
        (("--model", "testnet_static", "--phases", "16x4"), "'16x4' is not a phase; write SIZE:EPOCHS"),
        (("--model", "testnet_static", "--epochs", "0"), "--epochs is 0; it must be at least 1"),
        (("--model", "testnet_static", "--save-every", "0"), "--save-every is 0; it must be at least 1"),
        (("--model", "testnet_static", "--attention", "2"), "--attention says how to learn from a teacher"),
        (
            ("--model", "testnet_static", "--teacher", "testnet_kw", "--data", "absent"),
            "the teacher testnet_kw has no trained weights yet",
        ),
        (("--model", "testnet_static", "--lr", "-1"), "lr is -1.0; it must be above 0"),
        (("--model", "testnet_static", "--eval-every", "-1"), "--eval-every is -1"),
        (("--model", "testnet_static", "--data", "absent"), "there is no data folder absent"),
        (
            ("--model", "testnet_kw", "--warm-start", "absent.safetensors"),
            "no checkpoint at absent.safetensors",
        ),
        (("--model", "testnet_static", "--batch-size", "5"), "batch_size 5 exceeds the 4 images"),
    ],
)
def test_errors(
    zoo_train: Command, words: tuple[str, ...], message: str, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*words) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_not_overwritten(zoo_train: Command, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    assert zoo_train(*SHORT) == 2
    assert "already holds a run; add --resume" in capsys.readouterr().err


def test_resuming_with_other_settings(zoo_train: Command, capsys: pytest.CaptureFixture) -> None:
    assert zoo_train(*SHORT) == 0
    assert zoo_train(*SHORT, "--lr", "0.5", "--resume") == 2
    said = "has lr 0.002, not 0.5; go on with its own settings, or choose another --run-dir."
    assert said in capsys.readouterr().err
    assert zoo_train(*SHORT, "--upright", "0.5", "--resume") == 2
    assert "has upright 0.0, not 0.5; go on with its own settings" in capsys.readouterr().err
    assert zoo_train(*SHORT, "--recipe", "gpu", "--resume") == 2
    assert "has lr 0.002, not 0.001; go on with its own settings" in capsys.readouterr().err
    assert zoo_train(*SHORT, "--upright", "0", "--resume") == 0


def test_resuming_with_other_images(
    zoo_train: Command, run_dir: Path, monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture
) -> None:
    assert zoo_train(*SHORT) == 0
    known = train.load_cifar10

    def other(name: str, folder: str | None) -> Split:
        return dataclasses.replace(known(name, folder), sha256="other")

    monkeypatch.setattr(train, "load_cifar10", other)
    assert zoo_train(*SHORT, "--resume") == 2
    assert "was started with other images (CIFAR-10, parquet folder" in capsys.readouterr().err


def test_run_dir_that_cannot_be_made(
    zoo_train: Command, tmp_path: Path, capsys: pytest.CaptureFixture
) -> None:
    (tmp_path / "file").write_text("in the way")
    assert zoo_train(*SHORT, "--run-dir", str(tmp_path / "file" / "run")) == 2
    assert "Not a directory; choose another --run-dir" in capsys.readouterr().err


@pytest.mark.parametrize("word", ["--publish", "--publish-only"])
def test_weights_folder_that_cannot_be_written(
    zoo_train: Command, weights: Path, word: str, capsys: pytest.CaptureFixture
) -> None:
    weights.rmdir()
    assert zoo_train(*SHORT, word, "--data", "absent") == 2
    assert "weights; set ZOO_WEIGHTS to a folder that exists and is writable" in capsys.readouterr().err


def test_nothing_to_train(capsys: pytest.CaptureFixture) -> None:
    assert cli.run(train.main, []) == 2
    assert "nothing to train: give --model" in capsys.readouterr().err
