"""Finding where the convolutions of a network stand."""

import re

import pytest
import timm
import torch
import torchvision
from torch import nn
from torch.nn import functional as F
from torch.nn.utils import prune

from zoo.errors import ZooError
from zoo.models import find_sites, is_spatial
from zoo.models.sites import Site


def create(name: str, **kwargs) -> nn.Module:
    """Create a model of timm or torchvision without weights: only shapes matter here."""
    with torch.device("meta"):
        if name.startswith("torchvision."):
            return getattr(torchvision.models, name.removeprefix("torchvision."))(**kwargs)
        return timm.create_model(name, **kwargs)


def named(sites: list[Site], role: str) -> set[str]:
    return {site.name for site in sites if site.role == role}


@pytest.mark.parametrize("name", ["resnet18", "resnet50"])
@pytest.mark.parametrize("stem", ["cifar", "imagenet"])
def test_the_stages_of_a_resnet_are_its_layers(name: str, stem: str) -> None:
    sites = find_sites(create(f"{name}_static", stem=stem), (3, 224, 224))
    spatial = {site.name: site.stage for site in sites if site.role == "body" and is_spatial(site.module)}
    assert len(spatial) == 16
    assert spatial == {key: int(key[len("layer")]) - 1 for key in spatial}
    assert named(sites, "stem") == {"conv1"}


def test_a_stage_begins_with_its_strided_convolution_and_its_shortcut() -> None:
    sites = {site.name: site for site in find_sites(create("resnet18"))}
    assert sites["layer1.1.conv2"].stage == 0
    for name in ("layer2.0.conv1", "layer2.0.downsample.0", "layer2.1.conv2"):
        assert (sites[name].stage, sites[name].output_size) == (1, (28, 28))
    assert sites["layer2.0.conv1"].input_size == (56, 56)
    # A bottleneck's 1x1 convolution before the stride still makes maps of the stage before.
    assert {s.name: s.stage for s in find_sites(create("resnet50"))}["layer2.0.conv1"] == 0


@pytest.mark.parametrize(
    ("name", "sizes"),
    [
        ("convnext_tiny", [56, 28, 14, 7]),
        ("densenet121", [56, 28, 14, 7]),
        ("efficientnet_b0", [112, 56, 28, 14, 7]),
        ("mobilenetv4_conv_small", [56, 28, 14, 7]),
        ("inception_v3", [147, 73, 35, 17, 8]),  # valid padding: the reductions are no powers of two
        ("dla34", [224, 112, 56, 28, 14, 7]),
        ("hrnet_w18_small", [56, 28, 14, 7]),  # parallel branches: stages do not follow each other
    ],
)
def test_stages_go_by_resolution(name: str, sizes: list[int]) -> None:
    sites = find_sites(create(name))
    first = {site.stage: site.output_size for site in reversed(sites) if site.role == "body"}
    assert [first[stage] for stage in sorted(first)] == [(size, size) for size in sizes]


def test_an_odd_size_gives_the_same_stages() -> None:
    model = create("resnet18")
    stages = {site.name: site.stage for site in find_sites(model)}
    for size in ((3, 33, 33), (3, 97, 161), (3, 32, 48)):
        assert {site.name: site.stage for site in find_sites(model, size)} == stages


def test_sites_come_in_order_of_execution() -> None:
    class Backwards(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.last = nn.Conv2d(4, 4, 3)
            self.unused = nn.Conv2d(4, 4, 3)
            self.first = nn.Conv2d(3, 4, 3)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.last(input=self.first(x))

    sites = find_sites(Backwards(), (3, 16, 12))
    assert [site.name for site in sites] == ["first", "last", "unused"]
    assert [site.role for site in sites] == ["stem", "body", "idle"]
    assert (sites[1].input_size, sites[1].output_size, sites[1].stage) == ((14, 10), (12, 8), 0)
    assert (sites[2].input_size, sites[2].output_size, sites[2].stage) == (None, None, None)


GATE = r"\.se\.|block\.[12]\.fc|\.attn\.fc|conv2\.fc|^conv_head$"


@pytest.mark.parametrize("size", [None, (3, 32, 32)], ids=["own", "32x32"])
@pytest.mark.parametrize(
    ("name", "count"),
    [
        ("efficientnet_b0", 32),
        ("mobilenetv3_small_100", 19),  # with the head, which sees the pooled map
        ("torchvision.mobilenet_v3_small", 18),
        ("regnety_002", 26),
        ("resnest14d", 8),
        ("skresnet18", 16),
    ],
)
def test_gates_are_told_from_small_maps(name: str, count: int, size: tuple[int, int, int] | None) -> None:
    """At 32x32 the last maps of these networks are 1x1 too."""
    # The head convolution of efficientnet_b0 sees whole maps.
    pattern = GATE.replace("|^conv_head$", "") if name == "efficientnet_b0" else GATE
    sites = find_sites(create(name), size)
    if size:
        assert any(site.input_size == (1, 1) and site.role == "body" for site in sites)
    assert named(sites, "pooled") == {site.name for site in sites if re.search(pattern, site.name)}
    assert len(named(sites, "pooled")) == count


def test_branches_that_see_the_image_are_all_stems() -> None:
    assert named(find_sites(create("repvgg_a0")), "stem") == {"stem.conv_1x1.conv", "stem.conv_kxk.conv"}


def test_a_stem_may_follow_a_normalisation() -> None:
    model = nn.Sequential(nn.InstanceNorm2d(3), nn.Conv2d(3, 4, 3), nn.Conv2d(4, 4, 3))
    assert [site.role for site in find_sites(model)] == ["stem", "body"]


class LeNet(nn.Module):
    """Whose third convolution is a linear layer; it takes one size only."""

    def __init__(self) -> None:
        super().__init__()
        self.layers = nn.Sequential(
            nn.Conv2d(1, 6, 5), nn.Tanh(), nn.AvgPool2d(2), nn.Conv2d(6, 16, 5), nn.Tanh(), nn.AvgPool2d(2),
            nn.Conv2d(16, 120, 5), nn.Tanh(), nn.Conv2d(120, 84, 1), nn.Flatten(), nn.Linear(84, 10),
        )  # fmt: skip

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.layers(x)


def test_linear_layers_in_disguise() -> None:
    sites = find_sites(LeNet(), (1, 32, 32))
    assert [site.role for site in sites] == ["stem", "body", "dense", "dense"]
    for size in (None, (3, 32, 32)):
        assert named(find_sites(create("vgg11_bn"), size), "dense") == {"pre_logits.fc1", "pre_logits.fc2"}
    # A convolution that a stride brings to a single pixel is none.
    assert not named(find_sites(create("convnext_tiny"), (3, 32, 32)), "dense")


def test_a_convolution_that_runs_twice_is_one_site_at_its_first_resolution() -> None:
    class Twice(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv = nn.Conv2d(3, 4, 3, 2, 1), nn.Conv2d(4, 4, 3, 2, 1)
            self.again = self.conv

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return self.conv(self.again(self.stem(x)))

    stem, conv = find_sites(Twice(), (3, 32, 32))
    assert conv.names == ("conv", "again")
    assert (conv.input_size, conv.output_size, conv.stage) == ((16, 16), (8, 8), 0)
    assert stem.names == ("stem",)


class Fussy(nn.Module):
    """A network that needs real numbers: its scale is no buffer, and it looks at a value."""

    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.full((1, 3, 1, 1), 2.0)
        self.stem, self.norm, self.conv = nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Conv2d(4, 4, 3)
        self.register_buffer("runs", torch.zeros(()))

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        self.runs.add_(1)
        x = self.norm(self.stem(x * self.scale))
        return self.conv(x) if self.runs.item() > 0 else x


class Tied(nn.Module):
    """Modules of two names, and two modules of one weight."""

    def __init__(self) -> None:
        super().__init__()
        self.norm, self.conv, self.twin = nn.BatchNorm2d(3), nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3)
        self.twin.weight = self.conv.weight
        self.again = nn.Sequential(self.conv, self.norm)

    def forward(self, x: torch.Tensor) -> torch.Tensor:
        return self.twin(self.again(self.norm(self.conv(x))))


@pytest.mark.parametrize(
    "model", [Fussy(), Tied(), timm.create_model("test_resnet")], ids=["zeros", "tied", "meta"]
)
def test_the_model_is_left_as_it_was(model: nn.Module) -> None:
    model.train()
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    norms[0].eval()
    state = {key: value.clone() for key, value in model.state_dict().items()}
    tensors = [id(value) for module in model.modules() for value in module._parameters.values()]
    tensors += [id(value) for module in model.modules() for value in module._buffers.values()]
    random = torch.get_rng_state()
    assert "stem" in {site.role for site in find_sites(model)}
    assert torch.equal(torch.get_rng_state(), random)
    after = [id(value) for module in model.modules() for value in module._parameters.values()]
    after += [id(value) for module in model.modules() for value in module._buffers.values()]
    assert after == tensors
    assert all(torch.equal(value, state[key]) for key, value in model.state_dict().items())
    assert [name for name, module in model.named_modules() if not module.training] == [
        name for name, module in model.named_modules() if module is norms[0]
    ]
    assert not any(module._forward_hooks for module in model.modules())


def test_what_runs_in_training_alone_is_idle() -> None:
    model = create("torchvision.googlenet", init_weights=False).train()
    assert named(find_sites(model), "idle") == {"aux1.conv.conv", "aux2.conv.conv"}


def test_the_size_is_the_models_own_unless_given() -> None:
    model = create("inception_v3")
    assert find_sites(model)[0].input_size == (299, 299)
    assert find_sites(model, (3, 160, 128))[0].input_size == (160, 128)
    assert find_sites(create("torchvision.resnet18"))[0].input_size == (224, 224)


@pytest.mark.parametrize("channels", [1, 4])
def test_channels_are_those_the_network_takes(channels: int) -> None:
    assert len(find_sites(create("resnet18", in_chans=channels))) == 20


def test_what_forbids_to_replace_a_convolution() -> None:
    class Same(nn.Conv2d):
        pass

    tied = nn.Conv2d(4, 4, 3)
    model = nn.Sequential(
        nn.Conv2d(3, 4, 3),
        Same(4, 4, 3),
        nn.utils.parametrizations.weight_norm(nn.Conv2d(4, 4, 3)),
        prune.identity(nn.Conv2d(4, 4, 3), "weight"),
        nn.Conv2d(4, 4, 3, padding=1, padding_mode="reflect"),
        tied,
        nn.Conv2d(4, 4, 3),
    )
    model[6].weight = tied.weight
    assert [site.obstacle for site in find_sites(model)] == [
        "",
        "Same, a subclass of nn.Conv2d",
        "ParametrizedConv2d, a subclass of nn.Conv2d",
        "its weight is computed (weight norm, pruning)",
        "padding mode 'reflect'",
        "another module has the same weight",
        "another module has the same weight",
    ]


def test_dynamic_convolutions_keep_their_stage() -> None:
    static, dynamic = (find_sites(create(f"resnet18_{family}")) for family in ("static", "kw"))
    assert {s.name: (s.stage, s.role) for s in static} == {s.name: (s.stage, s.role) for s in dynamic}
    assert {site.obstacle for site in dynamic} == {"", "already dynamic"}


@pytest.mark.parametrize(
    ("model", "size", "message"),
    [
        (
            LeNet(),
            (1, 64, 64),
            "cannot see the convolutions of LeNet at work: it does not take one image of 1x64",
        ),
        (LeNet(), (3, 32, 32), r"\(RuntimeError: .*\); give input_size=\(channels, height, width\)"),
        (LeNet(), (1, 32), r"input_size must be \(channels, height, width\) in pixels, not \(1, 32\)"),
        (LeNet(), (1, 0, 32), "input_size must be"),
    ],
)
def test_a_size_that_does_not_fit_is_named(model: nn.Module, size: tuple, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        find_sites(model, size)


def test_a_network_without_convolutions_has_no_sites() -> None:
    assert find_sites(nn.Sequential(nn.Flatten(), nn.Linear(12, 2))) == []


def test_functions_passed_over_change_no_shape() -> None:
    class Plain(nn.Module):
        def __init__(self) -> None:
            super().__init__()
            self.stem, self.conv, self.norm = nn.Conv2d(3, 4, 3), nn.Conv2d(4, 6, 3), nn.BatchNorm2d(4)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = F.hardswish(self.norm(self.stem(x)), inplace=True) * F.hardsigmoid(x.mean())
            return F.layer_norm(self.conv(x), (28, 28))

    assert find_sites(Plain(), (3, 32, 32))[1].output_size == (28, 28)
