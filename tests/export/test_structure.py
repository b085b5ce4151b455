"""What the speed of an exported network hangs on, as far as its graph shows it."""

from collections import Counter

import onnx
import pytest
from torch import nn

import export.onnx
import export.openvino
import zoo
from export.base import BLOCKED, PLAIN
from export.benchmark.sessions import open_session
from zoo.layers import FAMILIES

SIZE = (3, 12, 12)
#: What runs a part of the graph once for each sample, or waits to know a shape.
SLOW = {"Loop", "Scan", "If", "NonZero", "Where", "Range", "Shape", "Resize", "GatherElements", "ScatterND"}


#: How many convolutions a layer is lowered to, dense and depthwise, beyond the one of its static twin.
MORE_CONVOLUTIONS = {
    "fgk": (2 * 4 - 1, 4 - 1),  # for each term a depthwise one, then a 1x1 one
    "kw": (-1, 0),  # a product of matrices instead
    "kwb": (4 - 1, 0),  # a single input channel is a single block
    "dpk": (1, 4 - 1),  # the bank, depthwise, and the kernel that all pairs share
    "condconv": (-1, 4 - 1),
    "dyconv": (-1, 4 - 1),
    "convex": (0, 0),
}


@pytest.fixture(scope="module")
def graphs(stir, tmp_path_factory):
    """Return ``graphs(family, depthwise, layout)``: the exported network, each made once."""
    made = {}

    def graph(family, depthwise=False, layout=PLAIN):
        if (family, depthwise, layout) not in made:
            layer = nn.Conv2d if family == "static" else FAMILIES[family]
            model = nn.Sequential(
                nn.Conv2d(3, 64, 3, padding=1, bias=False),
                nn.BatchNorm2d(64),
                nn.ReLU(),
                layer(64, 64, 3, padding=1, bias=False, groups=64 if depthwise else 1),
                nn.BatchNorm2d(64),
                nn.ReLU(),
                nn.Conv2d(64, 5, 1),
                nn.AdaptiveAvgPool2d(1),
                nn.Flatten(),
            )
            path = tmp_path_factory.mktemp(family) / "model.onnx"
            export.onnx.export(stir(model), path, input_size=SIZE, layout=layout)
            made[family, depthwise, layout] = onnx.load(path).graph
        return made[family, depthwise, layout]

    return graph


def count(graph):
    return Counter(node.op_type for node in graph.node)


def transposes(family, depthwise):
    """Return how many a layer has: of its map, to copy whole pixels, and of what the product takes."""
    multiplies_matrices = MORE_CONVOLUTIONS[family][depthwise] < 0
    return 2 * multiplies_matrices


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_nothing_runs_sample_by_sample_or_waits_for_a_shape(graphs, family, depthwise):
    assert not SLOW & count(graphs(family, depthwise)).keys()


@pytest.mark.slow
@pytest.mark.parametrize(
    ("backbone", "depthwise", "static", "layers"), [("resnet18", 0, 20, 16), ("mobilenetv2_100", 1, 52, 17)]
)
@pytest.mark.parametrize("family", FAMILIES)
def test_a_whole_network_is_its_layers(backbone, depthwise, static, layers, family, tmp_path):
    """Nothing runs sample by sample, and convolutions and transposes are as many as the layers'."""
    model = zoo.create_model(f"{backbone}_{family}").eval()
    export.onnx.export(model, tmp_path / "model.onnx", layout=PLAIN)
    found = count(onnx.load(tmp_path / "model.onnx").graph)
    assert not SLOW & found.keys()
    assert found["Conv"] == static + layers * MORE_CONVOLUTIONS[family][depthwise]
    assert found["Transpose"] == layers * transposes(family, depthwise)


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_no_kernel_is_transposed_and_a_map_once(graphs, family, depthwise):
    assert count(graphs(family, depthwise))["Transpose"] == transposes(family, depthwise)


def test_onnxruntime_multiplies_with_the_patches_as_they_lie(stir, tmp_path):
    """Of the two transposes of a gathering layer one is left in the graph that runs."""
    model = nn.Sequential(FAMILIES["kw"](3, 8, 3, padding=1), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    path, runs = tmp_path / "model.onnx", tmp_path / "runs.onnx"
    export.onnx.export(stir(model), path, input_size=SIZE, lowering="gather")
    open_session(path, optimised=runs)
    found = count(onnx.load(runs).graph)
    assert (found["Transpose"], found["FusedMatMul"], found["MatMul"]) == (1, 1, 0)
    assert (found["Gather"], found["Pad"], found["Slice"], found["Concat"]) == (1, 1, 0, 0)


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_operators_are_few(graphs, family, depthwise):
    """Each costs a call, which is what a small network is slow at: a tenth is left for other exporters."""
    most = {
        "kw": (30, 13),
        "kwb": (25, 13),
        "fgk": (27, 23),
        "dpk": (30, 33),
        "condconv": (27, 23),
        "dyconv": (29, 25),
        "convex": (7, 7),
    }
    assert len(graphs(family, depthwise).node) <= 1.1 * most[family][depthwise]


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_convolutions_are_as_many_as_the_lowering_needs(graphs, family, depthwise):
    more = count(graphs(family, depthwise))["Conv"] - count(graphs("static", depthwise))["Conv"]
    assert more == MORE_CONVOLUTIONS[family][depthwise]


@pytest.mark.parametrize("depthwise", [False, True], ids=["dense", "depthwise"])
@pytest.mark.parametrize("family", FAMILIES)
def test_blocks_cost_few_operators(graphs, family, depthwise):
    """One for each context, two for each map of one scale, as depthwise layers of kw and kwb gate them.

    The batch norm goes where a layer ends in a sum of convolutions.
    """
    plain, blocked = (count(graphs(family, depthwise, layout)) for layout in (PLAIN, BLOCKED))
    gated, contexts = depthwise and family in ("kw", "kwb"), family != "convex"
    summed = family == "fgk" or (depthwise and family in ("dpk", "condconv", "dyconv"))
    assert plain["BatchNormalization"] - blocked["BatchNormalization"] == summed
    assert blocked["Resize"] == gated
    assert blocked["Conv"] - plain["Conv"] == gated
    assert blocked["GlobalAveragePool"] == blocked["Flatten"] - plain["Flatten"] == contexts
    assert blocked.total() - plain.total() == 2 * gated + contexts - summed
    assert not SLOW & blocked.keys() - {"Resize"}


@pytest.mark.parametrize(("family", "depthwise"), [("kw", True), ("kwb", True), ("convex", False)])
def test_batch_norm_folds_into_a_static_last_step(graphs, family, depthwise):
    """Into the exported weights, or left for the runtime right behind a convolution."""
    graph = graphs(family, depthwise)
    producers = {name: node for node in graph.node for name in node.output}
    for node in graph.node:
        if node.op_type == "BatchNormalization":
            assert producers[node.input[0]].op_type == "Conv"


def test_what_no_image_changes_is_a_constant(graphs):
    """The keys times the out-queries of dpk, and each term of the embedding as fgk's ``widen`` leaves it."""
    shapes = {
        family: {tuple(value.dims) for value in graphs(family).initializer} for family in ("dpk", "fgk")
    }
    assert (64 * 3, 8) in shapes["dpk"]  # one of the four terms is set apart
    assert (64, 64, 1, 1) in shapes["fgk"]


def test_terms_are_added_as_the_convolutions_write_them(graphs):
    """Where a runtime fuses the sum: each addition is of a convolution and what was added up before."""
    graph = graphs("fgk")
    producers = {name: node for node in graph.node for name in node.output}
    operands = [
        {producers[name].op_type for name in node.input if name in producers}
        for node in graph.node
        if node.op_type == "Add"
    ]
    assert operands == [{"Conv"}, {"Conv", "Add"}, {"Conv", "Add"}]
    assert "Concat" not in count(graph)


@pytest.mark.parametrize("family", ["fgk", "condconv", "dyconv", "dpk"])
def test_onnxruntime_adds_the_terms_as_it_writes_them(family, stir, tmp_path):
    """What is left of a sum of terms in the graph that runs: convolutions, each fed the sum so far."""
    layer = FAMILIES[family](64, 64, 3, padding=1, bias=False, groups=64)
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(nn.Conv2d(3, 64, 3, padding=1), nn.ReLU(), layer, nn.ReLU(), *head)
    path, runs = tmp_path / "model.onnx", tmp_path / "runs.onnx"
    export.onnx.export(stir(model), path, input_size=SIZE)
    open_session(path, optimised=runs)
    nodes = [node for node in onnx.load(runs).graph.node if "nchwc" in node.domain]
    if not nodes:
        pytest.skip("onnxruntime has no blocked convolutions on this processor")
    convolutions = [node for node in nodes if node.op_type == "Conv"]
    assert len(convolutions) == 1 + 4
    assert sum(len(node.input) == 4 for node in convolutions) == 4 - 1
    assert count(onnx.load(runs).graph)["Add"] == (family == "dpk")  # in the denominator of its softmax


def test_scales_are_given_their_shape_once(graphs):
    """Not term by term: a small operation takes as long as a large one."""
    found = count(graphs("fgk", depthwise=True))
    assert found["Split"] == 1
    assert found["Squeeze"] == 0


def test_the_bounded_softmax_has_no_pass_for_the_maximum(graphs):
    found = count(graphs("dpk"))
    assert not {"Softmax", "ReduceMax"} & found.keys()
    assert found["Exp"] == 1


def test_openvino_gets_its_own_softmax(stir, tmp_path):
    """Which is faster there than exponentials without a maximum."""
    pytest.importorskip("openvino")
    model = nn.Sequential(FAMILIES["dpk"](3, 8, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten())
    export.openvino.export(stir(model), tmp_path / "model.onnx", input_size=SIZE)
    found = count(onnx.load(tmp_path / "model.onnx").graph)
    assert found["Softmax"] == 1
    assert "Exp" not in found


def test_a_large_mixing_is_made_in_slices(tmp_path):
    layer = FAMILIES["dpk"](512, 512, 3, padding=1)
    model = nn.Sequential(layer, nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    export.onnx.export(model, tmp_path / "model.onnx", input_size=(512, 6, 6))
    slices = count(onnx.load(tmp_path / "model.onnx").graph)["Exp"]
    assert slices == 512 * 512 * (layer.bank_size - 1) // layer.slice_numbers > 1


def test_openvino_does_not_take_the_routing_for_attention(stir, tmp_path):
    """Which is slow: it would have no softmax and no product of its own, but a subgraph of the two."""
    pytest.importorskip("openvino")
    head = (nn.AdaptiveAvgPool2d(1), nn.Flatten())
    model = nn.Sequential(FAMILIES["dyconv"](3, 8, 3, padding=1), *head)
    path = tmp_path / "model.onnx"
    export.openvino.export(stir(model), path, input_size=SIZE, lowering="gather")
    runs = export.openvino.compiled(path).get_runtime_model()
    kinds = Counter(node.get_rt_info()["layerType"].astype(str) for node in runs.get_ops())
    assert kinds["Softmax"] == 1, kinds
