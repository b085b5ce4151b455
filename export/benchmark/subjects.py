"""The networks that are measured, and the peers: the same networks as people run them today."""

import copy
import functools
from typing import Any

import torch
from timm.layers import CondConv2d as TimmCondConv2d
from torch import Tensor, nn
from torch.nn import functional as F

from export._inputs import input_size
from export.base import TUNE, ExportOptions, Predict, Runtime
from export.lowering import chosen
from export.parity import prepared, reference
from zoo.catalog import complexity, split_name
from zoo.errors import ZooError
from zoo.layers import STATIC, CondConv2d, fold
from zoo.models import create_model
from zoo.pretrained import read_manifest

TIMM = "timm"
"""Not a lowering of ours: CondConv computed by timm's own layer."""

PEERS = {"kw": "grouped", "fgk": "grouped", "dpk": "grouped", "condconv": TIMM, "dyconv": "grouped"}
"""How each family is run elsewhere: the batch folded into groups, as the research code does, and timm.

A family without a row here has no such counterpart.
"""


class Subjects:
    """The models of one run, each made once.

    Args:
        pretrained: take trained weights where there are some; random ones cost the same time.

    Attributes:
        model: the model of a name, in evaluation mode.
        expected: the unlowered eager model of a name, as a function of arrays.
        cost: the parameters of a model, and the multiply-accumulates for one image; the arguments are those
            of :meth:`deployed`.
    """

    def __init__(self, pretrained: bool = True):
        self.pretrained = pretrained
        self._manifest = read_manifest() if pretrained else {}
        self._choices: dict[tuple, str | dict[str, str]] = {}
        self.model = functools.lru_cache(maxsize=None)(self._model)
        self.expected = functools.lru_cache(maxsize=None)(self._expected)
        self.cost = functools.lru_cache(maxsize=None)(self._cost)

    def is_trained(self, name: str) -> bool:
        """Tell whether the weights are trained ones."""
        return name in self._manifest

    def top1(self, name: str) -> float | None:
        """Return the clean top-1 of the weights in percent, as the manifest has it, or None."""
        return self._manifest.get(name, {}).get("figures", {}).get("top1")

    def size(self, name: str) -> tuple[int, int, int]:
        """Return (channels, height, width) of the model's inputs."""
        return input_size(self.model(name), ExportOptions())

    def deployed(
        self,
        name: str,
        lowering: str,
        runtime: Runtime | None = None,
        batch: int | None = None,
        threads: int | None = None,
    ) -> nn.Module:
        """Return a model as it is exported: in evaluation mode, lowered, folded, on the CPU.

        Args:
            name: of the model.
            lowering: as an export takes it, or :data:`TIMM`.
            runtime: the format to choose the lowerings for; None leaves ``auto`` to the layers.
            batch: the one batch size of the artifact, or None.
            threads: that a lowering is tuned for.
        """
        model = self.model(name)
        if lowering == TIMM:
            return as_timm_writes_it(prepared(model, "auto"))
        if runtime is None:
            return fold(prepared(model, lowering))
        key = name, lowering, runtime.name, batch, threads if lowering == TUNE else None
        if key not in self._choices:
            options = ExportOptions(lowering, batch, self.size(name))
            self._choices[key] = chosen(runtime, model, options, threads=threads)
        return fold(prepared(model, self._choices[key], runtime))

    def _cost(self, name: str, *way: Any) -> tuple[int, int]:
        macs = complexity(self.deployed(name, *way).to("meta"), self.size(name)).macs
        return sum(parameter.numel() for parameter in self.model(name).parameters()), macs

    def _model(self, name: str) -> nn.Module:
        if self.is_trained(name):
            try:
                return create_model(name, pretrained=True).eval()
            except RuntimeError as error:  # torch's, for weights of other shapes
                cure = "train it anew, or measure with --no-pretrained"
                raise ZooError(f"the trained weights of {name} do not fit it; {cure}.") from error
        torch.manual_seed(0)
        return enliven(create_model(name))

    def _expected(self, name: str) -> Predict:
        return reference(self.model(name))


def family_of(name: str) -> str:
    """Return what a model's name says behind its backbone: a family, an attention module, or ``static``."""
    return split_name(name)[1]


def twin_of(name: str) -> str:
    """Return the name of a model's static twin."""
    return f"{split_name(name)[0]}_{STATIC}"


@torch.no_grad()
def enliven(model: nn.Module) -> nn.Module:
    """Give a network with random weights outputs that depend on all of its layers, in place.

    Fresh ResNets multiply each block's branch by zero: whatever a runtime computed there, it would be right.
    """
    norms = [module for module in model.modules() if isinstance(module, nn.BatchNorm2d)]
    momenta = [norm.momentum for norm in norms]
    for norm in norms:
        if norm.affine:
            norm.weight.uniform_(0.3, 0.8)
        norm.reset_running_stats()
        norm.momentum = None  # the statistics of this one batch, so that activations keep their magnitude
    images = torch.randn(8, *input_size(model, ExportOptions()))
    model.train()(images * torch.linspace(0.3, 3, 8).view(-1, 1, 1, 1))
    for norm, momentum in zip(norms, momenta, strict=True):
        norm.momentum = momentum
    return model.eval()


def as_timm_writes_it(model: nn.Module) -> nn.Module:
    """Return a copy of a model with every CondConv computed by timm's layer, from the same weights."""
    model = copy.deepcopy(model)
    for name, module in list(model.named_modules()):
        if isinstance(module, CondConv2d):
            model.set_submodule(name, _TimmCondConv(module))
    return model


class _TimmCondConv(nn.Module):
    """timm's ``CondConv2d`` with its routing, as in ``timm.models._efficientnet_blocks.CondConvResidual``.

    The batch is folded into the groups of one convolution, so an export of it holds for one batch size.
    """

    def __init__(self, ours: CondConv2d):
        super().__init__()
        geometry: dict[str, Any] = {
            name: getattr(ours, name) for name in ("stride", "padding", "dilation", "groups", "num_experts")
        }
        self.routing_fn = copy.deepcopy(ours.route)
        self.conv = TimmCondConv2d(ours.in_channels, ours.out_channels, ours.kernel_size, **geometry)
        with torch.no_grad():
            # (E, O, kh*kw, I/G) here, (E, O * I/G * kh*kw) there
            self.conv.weight.copy_(ours.experts.transpose(2, 3).flatten(1))
        self.bias = ours.bias

    def forward(self, x: Tensor) -> Tensor:
        """Convolve x (N, I, H, W), routed by its global average."""
        routing = torch.sigmoid(self.routing_fn(F.adaptive_avg_pool2d(x, 1).flatten(1)))
        y = self.conv(x, routing)
        return y if self.bias is None else y + self.bias.view(1, -1, 1, 1)
