"""Sizes of TorchScript graphs: whole numbers, not tensors on the device."""

import pytest
import torch
from torch import nn

from export import _script_sizes
from export.base import ExportOptions, runtime
from zoo.layers import FAMILIES

SIZE = (3, 12, 10)


def kinds(graph):
    return [node.kind() for node in graph.nodes()]


def frozen(module):
    """Trace and freeze without simplifying."""
    with torch.no_grad():
        return torch.jit.freeze(torch.jit.trace(module.eval(), torch.zeros(2, *SIZE), check_trace=False))


@pytest.mark.parametrize("family", FAMILIES)
def test_an_artifact_computes_no_size_on_its_device(small, tmp_path, family):
    path = tmp_path / "net.pt"
    runtime("torchscript").export(small(family).eval(), path, ExportOptions(input_size=SIZE))
    graph = torch.jit.load(str(path)).inlined_graph
    assert not {"aten::Int", "prim::NumToTensor", "aten::ScalarImplicit"} & set(kinds(graph))


def test_an_artifact_asks_for_no_tf32(small, tmp_path):
    """A trace notes the choice at the time; on CUDA it would be out of the certificate's tolerance."""
    path = tmp_path / "net.pt"
    runtime("torchscript").export(small("dpk").eval(), path, ExportOptions(input_size=SIZE))
    graph = torch.jit.load(str(path)).inlined_graph
    choices = [list(node.inputs())[-1].toIValue() for node in graph.nodes() if "convolution" in node.kind()]
    assert choices
    assert not any(choices)


class Sizes(nn.Module):
    """Arithmetic of each kind, with a result that is not of the traced size alone."""

    def forward(self, x):
        half = (x.shape[2] + 3 - 1) // 2 * 2 - 3
        return x[:, :, : half - 2].flatten(2)[:, :, 1:]


@pytest.mark.parametrize("shape", [SIZE, (3, 17, 10), (3, 8, 4)])
def test_the_result_is_the_same_at_other_sizes(shape):
    plain, simple = frozen(Sizes()), frozen(Sizes())
    _script_sizes.simplify(simple.graph)
    assert "aten::Int" in kinds(plain.graph)
    assert "aten::Int" not in kinds(simple.graph)
    x = torch.randn(5, *shape)
    assert torch.equal(simple(x), Sizes()(x))


def test_slices_that_take_everything_go():
    module = frozen(Sizes())
    assert kinds(module.graph).count("aten::slice") > 2
    _script_sizes.simplify(module.graph)
    assert kinds(module.graph).count("aten::slice") == 2


def test_a_fraction_is_no_size():
    graph = torch._C.parse_ir("""
        graph(%x : float):
          %number : Tensor = prim::NumToTensor(%x)
          %sum : Tensor = aten::mul(%number, %number)
          %whole : int = aten::Int(%sum)
          return (%whole)""")
    _script_sizes.simplify(graph)
    assert torch._C._create_function_from_graph("run", graph)(1.5) == 2


def test_what_is_not_a_size_stays():
    """A sum with a factor, a product with what may be a fraction, and a number of an input."""
    graph = torch._C.parse_ir("""
        graph(%x : Tensor, %half : Tensor):
          %zero : int = prim::Constant[value=0]()
          %two : int = prim::Constant[value=2]()
          %size : int = aten::size(%x, %zero)
          %number : Tensor = prim::NumToTensor(%size)
          %scaled : Tensor = aten::add(%number, %number, %two)
          %product : Tensor = aten::mul(%number, %half)
          %a : int = aten::Int(%scaled)
          %b : int = aten::Int(%product)
          %c : int = aten::Int(%x)
          %all : int[] = prim::ListConstruct(%a, %b, %c)
          return (%all)""")
    _script_sizes.simplify(graph)
    assert kinds(graph).count("aten::Int") == 3
    run = torch._C._create_function_from_graph("run", graph)
    assert run(torch.tensor([7]), torch.tensor(0.5)) == [3, 0, 7]
