"""The table of models: its counts against arithmetic, its filters and its layouts."""

import csv
import io
import json
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import zoo
from zoo import catalog, cli
from zoo.__main__ import main
from zoo.catalog import Complexity, Row, complexity
from zoo.errors import ZooError
from zoo.layers import (
    BlockWeightedConv2d,
    ConvexConv2d,
    DotProductConv2d,
    FCGeneratedConv2d,
    KernelWeightedConv2d,
    fold,
    lowerings_of,
    set_lowering,
)
from zoo.pretrained import read_manifest

# A convolution of 6 channels to 8 in 2 groups, 3x3, on 10x12 pixels with stride 2, so 5x6 come out.
INS, OUTS, PER_GROUP, P, PIXELS = 6, 8, 3, 9, 5 * 6
INPUT = (INS, 10, 12)
STATIC_MACS = PIXELS * OUTS * PER_GROUP * P
# The lowering rows computes all rows of the padded image, 12 of them instead of 5.
ROWS_MACS = 12 * 6 * OUTS * PER_GROUP * P


def small(layer: type[nn.Module], **sizes: int) -> nn.Module:
    return layer(INS, OUTS, 3, stride=2, padding=1, groups=2, device="meta", **sizes)


def test_a_static_convolution_and_a_linear_layer() -> None:
    assert complexity(small(nn.Conv2d), INPUT) == Complexity(OUTS * PER_GROUP * P + OUTS, STATIC_MACS)
    head = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.Flatten(), nn.Linear(INS, 5))
    assert complexity(head, INPUT) == Complexity(INS * 5 + 5, INS * 5)


@pytest.mark.parametrize("lowering", lowerings_of(KernelWeightedConv2d))
def test_kernel_weighted(lowering: str) -> None:
    v = 7
    layer = set_lowering(small(KernelWeightedConv2d, vector_dim=v), lowering)
    gates = INS * v + v * OUTS * PER_GROUP
    params = OUTS * PER_GROUP * P + OUTS * PER_GROUP * v + (INS * v + v) + OUTS
    convolution = ROWS_MACS if lowering == "rows" else STATIC_MACS
    assert complexity(layer, INPUT) == Complexity(params, gates + convolution)


@pytest.mark.parametrize("blocks", [1, 3])
@pytest.mark.parametrize("lowering", lowerings_of(BlockWeightedConv2d))
def test_block_weighted(lowering: str, blocks: int) -> None:
    v = 7
    layer = set_lowering(small(BlockWeightedConv2d, vector_dim=v, blocks=blocks), lowering)
    gates = INS * v + v * OUTS * blocks
    params = OUTS * PER_GROUP * P + OUTS * blocks * v + (INS * v + v) + OUTS
    convolution = ROWS_MACS if lowering == "rows" else STATIC_MACS
    assert complexity(layer, INPUT) == Complexity(params, gates + convolution)


@pytest.mark.parametrize("lowering", lowerings_of(FCGeneratedConv2d))
def test_fc_generated(lowering: str) -> None:
    v, h = 4, 5
    layer = set_lowering(small(FCGeneratedConv2d, embedding_dim=v, hidden_dim=h), lowering)
    basis = INS * h + h * v * P
    compose = OUTS * PER_GROUP * v * P
    # The basis filters every input channel, then a grouped 1x1 convolution mixes.
    contract = PIXELS * (INS * v * P + OUTS * PER_GROUP * v)
    # Of a gated copy of the input for each of h, filtered and mixed.
    scaled = INS * h + OUTS * PER_GROUP * h * v + PIXELS * (INS * h * P + OUTS * PER_GROUP * h)
    wanted = {"contract": basis + contract, "scaled": scaled, "rows": basis + compose + ROWS_MACS}
    assert complexity(layer, INPUT).macs == wanted.get(lowering, basis + compose + STATIC_MACS)


@pytest.mark.parametrize("lowering", lowerings_of(DotProductConv2d))
def test_dot_product(lowering: str) -> None:
    m, d = 3, 5
    layer = set_lowering(small(DotProductConv2d, bank_size=m, key_dim=d), lowering)
    attention = INS * d + OUTS * m * d * PER_GROUP
    compose = OUTS * PER_GROUP * m * P
    contract = PIXELS * (INS * m * P + OUTS * PER_GROUP * m)
    wanted = {"contract": contract, "rows": compose + ROWS_MACS}
    assert complexity(layer, INPUT).macs == attention + wanted.get(lowering, compose + STATIC_MACS)


@pytest.mark.parametrize("lowering", lowerings_of(ConvexConv2d))
def test_experts(lowering: str) -> None:
    e = 3
    layer = fold(set_lowering(small(ConvexConv2d, num_experts=e), lowering))
    summed = e * OUTS * PER_GROUP * P
    wanted = {"experts": e * STATIC_MACS, "fold": STATIC_MACS, "rows": summed + ROWS_MACS}
    assert complexity(layer, INPUT).macs == wanted.get(lowering, summed + STATIC_MACS)


def test_counting_leaves_the_model_as_it_was() -> None:
    model = nn.Sequential(nn.Conv2d(3, 4, 1), nn.BatchNorm2d(4)).half().train()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    assert complexity(model, (3, 2, 2)).macs == 2 * 2 * 3 * 4
    assert model.training
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())


def test_a_row_says_what_the_manifest_and_the_model_say() -> None:
    entry = read_manifest()["resnet18_kw"]
    (row,) = catalog.rows(["resnet18_kw"])
    parameters = zoo.create_model("resnet18_kw").parameters()
    assert (row.model, row.family) == ("resnet18_kw", "kw")
    assert row.params == sum(parameter.numel() for parameter in parameters)
    assert row.weights == entry["bytes"]
    assert row.top1 == entry["figures"]["top1"]
    assert row.top1_augmented == entry["figures"]["top1_augmented"]


def test_a_folded_family_costs_what_its_twin_costs_but_keeps_its_parameters() -> None:
    static, convex = catalog.rows(["resnet10_static", "resnet10_convex"])
    assert convex.macs == static.macs
    assert convex.params > 3 * static.params


def test_families_of_several_words() -> None:
    assert catalog.split_name("mobilenetv3_small_100_kw") == ("mobilenetv3_small_100", "kw")
    assert catalog.split_name("resnet18_ge_minus") == ("resnet18", "ge_minus")
    assert catalog.split_name("another_net_kw") == ("another_net", "kw")


def test_names_in_the_order_of_the_zoo_each_once() -> None:
    assert catalog.names() == zoo.list_models()
    found = catalog.names(["resnet18_kw", "resnet1?_kw", "resnet10_dpk.cifar10"])
    assert found == ["resnet10_kw", "resnet10_dpk", "resnet18_kw"]


@pytest.mark.parametrize(
    ("pattern", "message"),
    [
        ("resnt18_kw", r"no model matches 'resnt18_kw'\. Did you mean resnet18_kw"),
        ("*_dkp", r"no model matches '\*_dkp'\. Did you mean \*_dpk"),
        ("resnt18_*", r"no model matches 'resnt18_\*'\. Did you mean resnet18_\*"),
        ("????", r"no model matches '\?\?\?\?'\. See them all with python -m zoo\."),
    ],
)
def test_a_pattern_without_a_match(pattern: str, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        catalog.names(["*_static", pattern])


def test_only_models_with_weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    entry = {"file": "f", "sha256": "s", "bytes": 12_300_000}
    (tmp_path / "manifest.json").write_text(json.dumps({"resnet10_dpk": entry, "not_of_this_zoo": entry}))
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    assert catalog.names(pretrained=True) == ["resnet10_dpk"]
    with pytest.raises(
        ZooError, match=r"no model with trained weights matches 'resnet18_dpk'\. Did you mean resnet10"
    ):
        catalog.names(["resnet18_dpk"], pretrained=True)
    (row,) = catalog.rows(pretrained=True)
    assert (row.weights, row.top1, row.top1_augmented) == (12_300_000, None, None)
    (tmp_path / "manifest.json").unlink()
    assert catalog.rows(pretrained=True) == []


ROWS = [
    Row("small_kw", "kw", 1_234_567, 9_876_543, None, None, None),
    Row("large_static", "static", 12_345_678, 1_234_567_890, 24_691_357, 55.5, 39.25),
    Row("third_kw", "kw", 5, 6, 7, 60.0, None),
]


def test_text_is_aligned() -> None:
    assert catalog.to_text(ROWS[:2]).splitlines() == [
        "model         family   params      MACs  weights  clean %  augmented %",
        "small_kw      kw       1.23 M     9.9 M        -        -            -",
        "large_static  static  12.35 M  1234.6 M  24.7 MB    55.50        39.25",
    ]


@pytest.mark.parametrize(
    ("column", "order"),
    [("params", [2, 0, 1]), ("model", [1, 0, 2]), ("top1", [2, 1, 0]), ("weights", [2, 1, 0])],
)
def test_sorting_puts_the_best_accuracy_first_and_the_missing_last(column: str, order: list[int]) -> None:
    assert catalog.sort(ROWS, column) == [ROWS[index] for index in order]


def test_json_and_csv_hold_every_value() -> None:
    assert [Row(**values) for values in json.loads(catalog.to_json(ROWS))] == ROWS
    first, second, _ = csv.DictReader(io.StringIO(catalog.to_csv(ROWS)))
    assert tuple(first) == catalog.COLUMNS
    assert (first["params"], first["top1"]) == ("1234567", "")
    assert (second["model"], second["top1_augmented"]) == ("large_static", "39.25")


def test_the_command(capsys: pytest.CaptureFixture[str]) -> None:
    assert main(["resnet1?_kw", "--sort", "macs"]) == 0
    captured = capsys.readouterr()
    lines = captured.out.splitlines()
    assert [line.split()[0] for line in lines[:3]] == ["model", "resnet10_kw", "resnet18_kw"]
    assert "2 models" in captured.out
    assert captured.err == ""
    assert main(["resnet10_kw", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)[0]["model"] == "resnet10_kw"
    assert cli.run(main, ["nothing_like_it"]) == 2
    assert capsys.readouterr().err.startswith("error: no model matches 'nothing_like_it'.")


def test_the_command_needs_no_tqdm(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.setitem(sys.modules, "tqdm", None)
    assert main(["resnet10_static"]) == 0
    assert "resnet10_static" in capsys.readouterr().out
