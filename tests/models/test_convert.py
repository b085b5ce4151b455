"""Converting networks, and starting dynamic ones from their static twin."""

import pytest
import timm
import torch
from torch import nn

from zoo.errors import ZooError
from zoo.layers import FAMILIES, DynamicConv2d
from zoo.models import find_sites, warm_start
from zoo.models.convert import choose, dynamic_like, replace


def twin() -> nn.Module:
    """Return a static model whose batch norms have seen data, in eval mode."""
    model = timm.create_model("resnet10_static")
    with torch.no_grad():
        for module in model.modules():
            if isinstance(module, nn.BatchNorm2d):
                nn.init.uniform_(module.weight, 0.5, 1.5)
        for _ in range(3):
            model(torch.randn(8, 3, 32, 32))
    return model.eval()


@pytest.mark.parametrize(("family", "arguments"), [("kw", {}), ("fgk", {"embedding_dim": 9})])
def test_warm_start_leaves_the_outputs_unchanged(family: str, arguments: dict[str, int]) -> None:
    static = twin()
    dynamic = timm.create_model(f"resnet10_{family}", layer_args=arguments).eval()
    errors = warm_start(dynamic, static.state_dict())
    assert len(errors) == 8
    assert set(errors.values()) == {0.0}
    x = torch.randn(4, 3, 32, 32)
    torch.testing.assert_close(dynamic(x), static(x), rtol=1e-4, atol=1e-4)


def test_an_approximate_warm_start_reports_its_error() -> None:
    dynamic = timm.create_model("resnet10_fgk").eval()
    errors = warm_start(dynamic, twin().state_dict())
    assert all(0 < error < 1 for error in errors.values())
    assert errors.keys() == {name for name, m in dynamic.named_modules() if isinstance(m, DynamicConv2d)}


def test_a_family_without_room_for_static_kernels_keeps_its_own() -> None:
    static = twin()
    dynamic = timm.create_model("resnet10_dpk").eval()
    bank = dynamic.get_parameter("layer1.0.conv1.bank").clone()
    errors = warm_start(dynamic, static.state_dict())
    assert len(errors) == 8
    assert set(errors.values()) == {None}
    assert torch.equal(dynamic.get_parameter("layer1.0.conv1.bank"), bank)
    for name in ("bn1.running_var", "layer4.0.downsample.0.weight", "fc.weight"):
        assert torch.equal(dynamic.state_dict()[name], static.state_dict()[name])


def test_a_bias_is_taken_where_the_kernels_cannot_be() -> None:
    static = nn.Sequential(nn.Conv2d(4, 6, 3), nn.Conv2d(6, 2, 1))
    dynamic = nn.Sequential(FAMILIES["dpk"](4, 6, 3), nn.Conv2d(6, 2, 1))
    assert warm_start(dynamic, static.state_dict()) == {"0": None}
    assert torch.equal(dynamic[0].bias, static[0].bias)


@pytest.mark.parametrize("name", ["resnet10_dpk", "resnet10_static"])
def test_warm_start_from_weights_of_its_own(name: str) -> None:
    trained, fresh = timm.create_model(name).eval(), timm.create_model(name).eval()
    assert set(warm_start(fresh, trained.state_dict()).values()) <= {0.0}
    x = torch.randn(2, 3, 32, 32)
    torch.testing.assert_close(fresh(x), trained(x))


def test_warm_start_refuses_what_does_not_fit() -> None:
    model = timm.create_model("resnet10_kw")
    state = twin().state_dict()
    with pytest.raises(ZooError, match=r"layer1\.0\.conv1\.weight is missing"):
        warm_start(model, {key: value for key, value in state.items() if key != "layer1.0.conv1.weight"})
    with pytest.raises(ZooError, match=r"fc\.weight has shape \(3, 512\), the model needs \(10, 512\)"):
        warm_start(model, {**state, "fc.weight": torch.zeros(3, 512)})
    own = timm.create_model("resnet10_kw", num_classes=3).state_dict()
    with pytest.raises(ZooError, match=r"fc\.weight has shape \(3, 512\), the model needs \(10, 512\)"):
        warm_start(model, own)
    deeper = timm.create_model("resnet18_static").state_dict()
    for name in ("resnet10_kw", "resnet10_static"):
        with pytest.raises(ZooError, match=r"the model has no layer1\.1\.conv1\.weight; give those of the"):
            warm_start(timm.create_model(name), deeper)


@pytest.mark.parametrize("family", FAMILIES)
def test_dynamic_like_keeps_geometry_dtype_and_mode(family: str) -> None:
    x = torch.randn(2, 4, 9, 9, dtype=torch.float64)
    for conv in (
        nn.Conv2d(4, 6, (3, 5), 2, (1, 2), groups=2, bias=False),
        nn.Conv2d(4, 6, 3, padding="same", dilation=2),
    ):
        conv = conv.double().eval()
        dynamic = dynamic_like(conv, FAMILIES[family])
        assert isinstance(dynamic, FAMILIES[family])
        assert (dynamic.bias is None) == (conv.bias is None)
        assert not dynamic.training
        y = dynamic(x)
        assert (y.shape, y.dtype) == (conv(x).shape, torch.float64)


def test_dynamic_like_keeps_what_is_frozen() -> None:
    conv = nn.Conv2d(4, 6, 3)
    conv.weight.requires_grad_(False)
    frozen = {
        name for name, p in dynamic_like(conv, FAMILIES["kw"]).named_parameters() if not p.requires_grad
    }
    assert frozen == {"weight", "vectors", "reduce.weight", "reduce.bias"}
    conv.requires_grad_(False)
    assert not any(p.requires_grad for p in dynamic_like(conv, FAMILIES["kw"]).parameters())
    conv.requires_grad_(True)
    assert all(p.requires_grad for p in dynamic_like(conv, FAMILIES["kw"]).parameters())


def test_dynamic_like_keeps_hooks_and_their_handles() -> None:
    conv = nn.Conv2d(4, 6, 3)
    seen = []
    handle = conv.register_forward_hook(lambda module, args, output: seen.append(module))
    dynamic = dynamic_like(conv, FAMILIES["kw"])
    dynamic(torch.randn(1, 4, 5, 5))
    assert seen == [dynamic]
    handle.remove()
    dynamic(torch.randn(1, 4, 5, 5))
    assert len(seen) == 1


def test_dynamic_like_takes_the_familys_own_arguments_alone() -> None:
    conv, layer = nn.Conv2d(4, 6, 3), FAMILIES["kw"]
    with pytest.raises(ZooError, match=r"has no argument 'vector_dims'; .* Did you mean vector_dim\?"):
        dynamic_like(conv, layer, vector_dims=4)
    for name in ("groups", "bias", "device"):
        with pytest.raises(ZooError, match=f"has no argument '{name}'; its own are vector_dim"):
            dynamic_like(conv, layer, **{name: 2})


def test_replace_finds_every_name() -> None:
    inner = nn.Sequential(nn.Conv2d(3, 3, 3))
    model = nn.ModuleDict({"a": inner, "b": nn.Sequential(inner, inner[0])})
    old, new = inner[0], nn.Conv2d(3, 3, 1)
    replace(model, {old: new})
    assert all(model.get_submodule(name) is new for name in ("a.0", "b.0.0", "b.1"))
    replace(model, {new: old})
    assert model["b"][1] is old


class Varied(nn.Module):
    """A stem, a block of two resolutions with a gate, and a convolution that never runs."""

    def __init__(self) -> None:
        super().__init__()
        self.stem = nn.Conv2d(3, 4, 3, padding=1)
        self.body = nn.Conv2d(4, 4, 3, padding=1)
        self.pointwise = nn.Conv2d(4, 4, 1)
        self.gate = nn.Conv2d(4, 4, 1)
        self.strided = nn.Conv2d(4, 4, (1, 3), 2, (0, 1))
        self.unused = nn.Conv2d(4, 4, 3)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        x = self.pointwise(self.body(self.stem(x)))
        return self.strided(x * self.gate(x.mean((2, 3), keepdim=True)))


def chosen(model: nn.Module, **arguments) -> list[str]:
    """Return the names that ``choose`` takes, after checking that it accounts for all the others."""
    taken, kept = choose(find_sites(model), **arguments)
    names = [name for some in taken.values() for name in some]
    convolutions = {name for name, module in model.named_modules() if isinstance(module, nn.Conv2d)}
    assert convolutions == {*names, *kept}
    assert not kept.keys() & set(names)
    return names


@pytest.mark.parametrize(
    ("arguments", "names"),
    [
        ({}, ["body", "strided"]),
        ({"stages": (1,)}, ["strided"]),
        ({"where": "all"}, ["body", "pointwise", "strided"]),
        ({"where": "all", "stages": range(1)}, ["body", "pointwise"]),
        ({"where": lambda name, conv: True}, ["stem", "body", "pointwise", "gate", "strided"]),
        ({"where": lambda name, conv: True, "stages": (0, 1)}, ["body", "pointwise", "strided"]),
        ({"where": lambda name, conv: name == "stem" or conv.stride == (2, 2)}, ["stem", "strided"]),
        ({"stages": ()}, []),
    ],
)
def test_choose(arguments: dict, names: list[str]) -> None:
    assert chosen(Varied(), **arguments) == names


def test_choose_says_why_not() -> None:
    _, kept = choose(find_sites(Varied()), stages=(1,))
    assert kept == {
        "stem": "stem, sees the image itself",
        "body": "in stage 0",
        "pointwise": "pointwise, its kernel is 1x1",
        "gate": "pooled, sees one pixel: a gate or a head",
        "unused": "idle, the network does not run it",
    }
    _, kept = choose(find_sites(Varied()), where=lambda name, conv: name == "body")
    assert kept["strided"] == "not picked"


def test_a_convolution_that_cannot_be_replaced_is_not_offered() -> None:
    asked = []
    model = nn.Sequential(nn.Conv2d(3, 4, 3), timm.layers.StdConv2d(4, 4, 3), nn.Conv2d(4, 4, 3))
    choose(find_sites(model), where=lambda name, conv: asked.append(name))
    assert asked == ["0", "2"]


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (
            {"where": "spacial"},
            r"unknown where='spacial'; choose from spatial, all, or .* Did you mean spatial\?",
        ),
        ({"where": None}, "unknown where=None; choose from spatial, all, or give a function"),
        ({"stages": 1}, r"stages=1 is one number; give a tuple, such as stages=\(1,\)"),
        ({"stages": (0, 2)}, r"stage 2 is out of range; this backbone has stages 0 to 1, not \(0, 2\)"),
        ({"stages": (-1,)}, "stage -1 is out of range"),
        ({"stages": "01"}, "stage 0 is out of range"),
    ],
)
def test_choose_names_bad_input(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        choose(find_sites(Varied()), **arguments)


def dynamic_names(model: nn.Module) -> set[str]:
    return {name for name, module in model.named_modules() if isinstance(module, DynamicConv2d)}


def test_registered_models_take_stages_and_where() -> None:
    assert {name[:6] for name in dynamic_names(timm.create_model("resnet10_kw", stages=(1, 3)))} == {
        "layer2",
        "layer4",
    }
    everything = dynamic_names(timm.create_model("resnet10_kw", where="all"))
    spatial = dynamic_names(timm.create_model("resnet10_kw"))
    assert everything - spatial == {f"layer{layer}.0.downsample.0" for layer in (2, 3, 4)}
    assert dynamic_names(timm.create_model("resnet10_kw", where=lambda name, _: name == "conv1")) == {"conv1"}
    for name in ("resnet10_kw", "resnet10_static"):
        with pytest.raises(ZooError, match="stage 4 is out of range; this backbone has stages 0 to 3"):
            timm.create_model(name, stages=(4,))
        with pytest.raises(ZooError, match="unknown where='everything'"):
            timm.create_model(name, where="everything")


@pytest.mark.parametrize(
    "arguments", [{"in_chans": 1}, {"stem": "imagenet"}, {"output_stride": 8}, {"features_only": True}]
)
def test_timms_arguments_change_nothing_about_what_is_dynamic(arguments: dict) -> None:
    assert dynamic_names(timm.create_model("resnet10_kw", **arguments)) == dynamic_names(
        timm.create_model("resnet10_kw")
    )


def test_stages_that_keep_their_resolution_are_one() -> None:
    with pytest.raises(ZooError, match="this backbone has stages 0 to 1"):
        timm.create_model("resnet10_kw", output_stride=8, stem="imagenet", stages=(2,))


def test_a_model_can_be_created_without_memory() -> None:
    with torch.device("meta"):
        model = timm.create_model("resnet10_kw")
    assert len(dynamic_names(model)) == 8
    assert all(tensor.is_meta for tensor in model.state_dict().values())
