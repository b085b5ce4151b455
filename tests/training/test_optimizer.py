import pytest
import torch
from timm.scheduler import CosineLRScheduler
from torch import nn

import zoo
from zoo.layers import FAMILIES, lr_scales
from zoo.training.optimizer import make_optimizer
from zoo.training.recipe import Recipe


class _Layer(nn.Module):
    no_weight_decay_names = ("bank",)

    def lr_scales(self) -> dict[str, float]:
        return {"mix": 3.0}

    def __init__(self) -> None:
        super().__init__()
        self.bank = nn.Parameter(torch.zeros(2, 2))
        self.mix = nn.Parameter(torch.zeros(2, 2))


class _Network(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.layer = _Layer()
        self.position = nn.Parameter(torch.zeros(2, 2))
        self.fc = nn.Linear(2, 2)

    def no_weight_decay(self) -> set[str]:
        return {"position"}


def test_decay_spares_what_wants_none() -> None:
    network = _Network()
    optimizer = make_optimizer(Recipe("m", lr=0.5, weight_decay=0.1), network)
    names = {parameter: name for name, parameter in network.named_parameters()}
    decayed = {names[p]: group["weight_decay"] for group in optimizer.param_groups for p in group["params"]}
    assert decayed == {"layer.bank": 0, "layer.mix": 0.1, "position": 0, "fc.weight": 0.1, "fc.bias": 0}
    assert all(group["lr"] == 0.5 for group in optimizer.param_groups)
    assert isinstance(optimizer, torch.optim.AdamW)


def test_rates_follow_their_scale_through_a_schedule() -> None:
    network = _Network()
    optimizer = make_optimizer(Recipe("m", lr=0.5), network)
    schedule = CosineLRScheduler(
        optimizer, t_initial=8, warmup_t=2, warmup_prefix=True, warmup_lr_init=0.1, t_in_epochs=False
    )
    names = {parameter: name for name, parameter in network.named_parameters()}
    for step, rate in ((0, 0.1), (1, 0.3), (2, 0.5), (6, 0.25)):
        schedule.step_update(step)
        rates = {names[one]: group["lr"] for group in optimizer.param_groups for one in group["params"]}
        assert rates.pop("layer.mix") == pytest.approx(3 * rate)
        assert rates == pytest.approx(dict.fromkeys(rates, rate))


def test_what_dpk_attends_with_learns_faster_and_its_contexts_slower() -> None:
    model = zoo.create_model("mobilenetv3_small_100_dpk")
    scales = lr_scales(model)
    slow = {name: scale for name, scale in scales.items() if name.endswith("reduce.weight")}
    fast = {name: scale for name, scale in scales.items() if name not in slow}
    assert {name.rpartition(".")[2] for name in fast} == {"keys", "in_queries", "out_queries"}
    assert min(fast.values()) > 1
    assert len(slow) == len(fast) / 3
    for name, scale in slow.items():
        # A step of a whole row moves its product with a context by the same, however many channels that has.
        assert scale * model.get_parameter(name).shape[1] == pytest.approx(8)
    assert FAMILIES["dpk"](3, 4, 3).lr_scales()["reduce.weight"] == 1, "none learns them faster"
    assert lr_scales(zoo.create_model("mobilenetv3_small_100_static")) == {}


@pytest.mark.parametrize("family", ["kw", "kwb"])
def test_what_gates_are_made_with_learns_faster(family: str) -> None:
    """Kernels are some hundredths; gates that start at 1/2 would stay there at their rate."""
    scales = lr_scales(zoo.create_model(f"resnet10_{family}"))
    assert {name.rpartition(".")[2] for name in scales} == {"vectors"}
    assert min(scales.values()) > 1


def test_exemption_of_a_bare_layer() -> None:
    layer = _Layer()
    groups = make_optimizer(Recipe("m", weight_decay=0.1), layer).param_groups
    assert [
        parameter is layer.bank
        for group in groups
        if not group["weight_decay"]
        for parameter in group["params"]
    ]
