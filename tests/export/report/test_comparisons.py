"""What the pages say of trainings that scripts compared, made of records alone."""

import json

import pytest

from export.report import comparisons
from zoo.errors import ZooError
from zoo.training.invariance import STEPS

from .helpers import rows

TWIN, KW, FGK = "resnet18_static", "resnet18_kw", "resnet18_fgk"


def test_distilled_shows_what_the_teacher_brought(tmp_path):
    record = {
        "model": "resnet18_dpk",
        "images_seen": 1000,
        "draws": 1,
        "command": "python docs/distilled.py",
        "rows": [
            {"teacher": None, "top1": 61.0, "top1_augmented": 50.5},
            {
                "teacher": TWIN,
                "top1": 60.5,
                "top1_augmented": 52.0,
                "gain": [-0.5, -1.0, 0.0],
                "gain_augmented": [1.5, 1.0, 2.0],
            },
        ],
    }
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/distilled.json").write_text(json.dumps(record))
    text = comparisons.distilled(tmp_path)
    assert rows(text) == [
        ["none", "61.00 %", "50.50 %"],
        ["`resnet18_static`", "60.50 % (-0.5 [-1.0, +0.0])", "52.00 % (+1.5 [+1.0, +2.0])"],
    ]
    assert "1,000 images each" in text
    assert "1 draw, the same for all" in text


def test_transfer_shows_every_start_and_the_budget(tmp_path):
    record = {
        "test_images": 1000,
        "images": 500,
        "epochs": 3,
        "size": 16,
        "command": "python docs/transfer.py",
        "starts": {KW: {"sha256": "0", "top1": 62.04}, TWIN: {"sha256": "1", "top1": 60.0}},
        "rows": [{"title": "scratch", "classes": 2, "commonest": 60.0, "before": 41.0, "top1": 61.23}],
    }
    with pytest.raises(ZooError, match=r"there is no .*transfer\.json; python docs/transfer\.py makes it"):
        comparisons.transfer(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/transfer.json").write_text(json.dumps(record))
    table, _, budget = comparisons.transfer(tmp_path).rpartition("\n\n")
    assert rows(table) == [["scratch", "60.0 %", "41.0 %", "61.2 %"]]
    assert budget == (
        "3 epochs of 500 images at 16 px each, tested at 32 px, from resnet18_kw at 62.0 % and "
        "resnet18_static at 60.0 %: `python docs/transfer.py`"
    )


def test_sizes_show_what_each_saves_and_costs(tmp_path):
    cost = {"params": 4_900_000, "macs": 253_400_000, "tax": {"1": 1.0, "8": 1.004}, "top1": 41.23}
    record = {
        "model": "resnet10",
        "recipe": {"phases": [[16, 4], [32, 1]], "images_per_epoch": 5001, "batch_size": 50},
        "test_images": 2500,
        "environment": {
            "date": "2026-11-30",
            "cpu": "a processor",
            "gpu": None,
            "versions": {"zoo": "1", "openvino": None},
            "commit": "abc",
        },
        "command": "python docs/sizes.py",
        "rows": [
            {"family": "static", "sizes": {}, **cost},
            {"family": "fgk", "sizes": {"embedding_dim": 2, "stages": [2, 3]}, **cost}
            | {"over_static": [-0.51, -1.2, 0.22]},
        ],
    }
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/sizes_resnet10.json").write_text(json.dumps(record))
    table, _, budget = comparisons.sizes(tmp_path).rpartition("\n\n")
    shown = ["4.90 M", "253 M", "1.00", "1.00", "41.2 %"]
    assert rows(table) == [
        ["static", "", *shown, ""],
        ["fgk", "embedding_dim 2, stages 2 and 3", *shown, "-0.5 [-1.2, +0.2]"],
    ]
    assert budget == (
        "resnet10, 20,000 at 16 px and 5,000 at 32 px, one seed; 2,500 test images, brackets are 95 % "
        "intervals over them; tax: onnxruntime, one thread: `python docs/sizes.py`. Measured 2026-11-30, a "
        "processor, zoo 1; commit abc."
    )
    early = [{name: value for name, value in row.items() if name != "over_static"} for row in record["rows"]]
    (tmp_path / "docs/sizes_resnet10.json").write_text(json.dumps(record | {"rows": early}))
    assert "2,500 test images, standard error at most 1.0 points; tax" in comparisons.sizes(tmp_path)
    other = {**record, "model": "another", "pretrained": True}
    (tmp_path / "docs/sizes_another.json").write_text(json.dumps(other))
    assert "another from the static network's weights as published then, 20,000 at" in comparisons.sizes(
        tmp_path
    )
    assert comparisons.sizes(tmp_path).count("one seed") == 2
    with pytest.raises(ZooError, match=r"sizes_\*\.json; python docs/sizes\.py makes one"):
        comparisons.sizes(tmp_path / "docs")


def test_spared_shows_every_run_by_its_shares(tmp_path):
    with pytest.raises(ZooError, match=r"there is no .*spared\.json; python docs/spared\.py makes it"):
        comparisons.spared(tmp_path)
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/spared.json").write_text("{")
    with pytest.raises(ZooError, match=r"spared\.json is not JSON .*; python docs/spared\.py makes it anew"):
        comparisons.spared(tmp_path)

    def row(upright, top1):
        rotation = {str(step): 50.0 + (step == 90) for step in STEPS["rotation"]}
        followed = {"images": 20, "top1": {"rotation": rotation}, "unchanged": {"rotation": rotation}}
        shares = {"upright": upright, "turned": 0.25}
        return shares | {"top1": top1, "top1_augmented": 40.0, "curves": followed}

    record = {"model": "m", "images_seen": 1000, "command": "python docs/spared.py"}
    (tmp_path / "docs/spared.json").write_text(json.dumps(record | {"rows": [row(0.5, 80.0), row(0, 70.0)]}))
    table, _, how = comparisons.spared(tmp_path).rpartition("\n\n")
    first, second = table.splitlines()[2:]
    assert first == "| 0% | 25% | 70.00 % | 40.00 % | 50.0 % | 51.0 % | 50.0 % | 50.0 % | 50.0 % | 50.0 % |"
    assert second.startswith("| 50% | 25% | 80.00 % |")
    assert "one run each of 1,000 images, all from the same weights; angles: 20 images" in how


@pytest.mark.parametrize(
    ("from_weights", "start"), [(True, "all of a model from the same"), (False, "from no")]
)
def test_seeds_shows_how_far_runs_of_a_model_lie_apart(tmp_path, from_weights, start):
    runs = [{"model": TWIN, "seed": seed, "top1": 70.0 + seed, "top1_augmented": 60.0} for seed in range(3)]
    runs += [
        {
            "model": KW,
            "seed": seed,
            "top1": 71.5 + seed,
            "top1_augmented": 60.0 + seed,
            "moves": {"a": 0.01, "b": 0.02 + seed / 100},
        }
        for seed in (2, 1, 0)
    ]
    runs += [{"model": FGK, "seed": seed, "top1": 70.0, "top1_augmented": 60.0} for seed in (1, 2)]
    record = {"images_seen": 1000, "draws": 2, "command": "python docs/seeds.py", "rows": runs}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/seeds.json").write_text(json.dumps(record | {"from_weights": from_weights}))
    table, _, how = comparisons.seeds(tmp_path).rpartition("\n\n")
    static, kw, fgk = rows(table)
    clean, augmented = ["71.00 ± 1.00 %", "70.00 to 72.00 %"], ["60.00 ± 0.00 %", "60.00 to 60.00 %"]
    assert static == [f"`{TWIN}`", "3", *clean, "", *augmented, "", ""]
    assert kw[8] == "2.0 to 4.0 %"
    assert (kw[4], kw[7]) == ("+1.50 ± 0.00", "+1.00 ± 1.00")
    assert (fgk[4], fgk[7]) == ("", ""), "of other seeds"
    assert "kernels move: the median" in how
    for row in runs:
        row.pop("moves", None)
    (tmp_path / "docs/seeds.json").write_text(json.dumps(record | {"from_weights": from_weights}))
    assert "kernels move" not in comparisons.seeds(tmp_path), "where nobody measured it"
    assert f"Runs of 1,000 images, {start} weights; augmented" in how


def test_single_runs_are_held_against_the_twin_image_by_image(tmp_path):
    static = {"model": TWIN, "seed": 1, "top1": 70.0, "top1_augmented": 60.0}
    gains = {"gain": [0.5, -0.25, 1.25], "gain_augmented": [-1.0, -2.0, 0.0]}
    kw = {"model": KW, "seed": 1, "top1": 70.5, "top1_augmented": 59.0, "moves": {"a": 0.03}, **gains}
    record = {"images_seen": 1000, "draws": 1, "command": "python docs/seeds.py", "from_weights": True}
    (tmp_path / "docs").mkdir()
    over = {"gain_unfrozen": [0.125, 0.0, 0.25], "gain_unfrozen_augmented": [-0.125, -0.25, 0.0]}
    frozen = {**kw, "frozen": ["*.vectors"], "moves": {"a": 0.0}, **over}
    (tmp_path / "docs/longer.json").write_text(json.dumps(record | {"rows": [static, kw, frozen]}))
    table, _, how = comparisons.seeds(tmp_path, "longer").rpartition("\n\n")
    ours = ["1", "70.50 %", "+0.5 [-0.2, +1.2]", "59.00 %", "-1.0 [-2.0, +0.0]"]
    assert rows(table) == [
        [f"`{TWIN}`", "1", "70.00 %", "", "60.00 %", "", ""],
        [f"`{KW}`", *ours, "3.0 %"],
        [f"`{KW}`, `*.vectors` frozen", *ours, "0.0 %"],
    ]
    assert "brackets are 95 % intervals over test images" in how
    assert f"`{KW}` over itself frozen, seed 1: +0.1 [+0.0, +0.2] clean, -0.1 [-0.2, +0.0] augmented" in how


def test_swapped_shows_what_other_kernels_cost(tmp_path):
    others = {"mean": [-0.5, -1.0, 0.0], "other": [-2.0, -3.0, -1.0]}
    augmented = {"top1": 60.0, **others, "upright": [0.25, -0.5, 1.0]}
    row = {"model": KW, "clean": {"top1": 80.0, **others}, "augmented": augmented}
    record = {"images": 1000, "command": "python docs/swapped.py", "rows": [row]}
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs/swapped.json").write_text(json.dumps(record))
    table, _, how = comparisons.swapped(tmp_path).rpartition("\n\n")
    lost = ["-0.5 [-1.0, +0.0]", "-2.0 [-3.0, -1.0]"]
    assert rows(table) == [[f"`{KW}`", "80.00 %", *lost, "60.00 %", *lost, "+0.2 [-0.5, +1.0]"]]
    assert "The first 1,000 test images, warped once" in how
