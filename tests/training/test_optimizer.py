import torch
from torch import nn

from zoo.training.optimizer import make_optimizer
from zoo.training.recipe import Recipe


class _Layer(nn.Module):
    no_weight_decay_names = ("bank",)

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


def test_exemption_of_a_bare_layer() -> None:
    layer = _Layer()
    groups = make_optimizer(Recipe("m", weight_decay=0.1), layer).param_groups
    assert [
        parameter is layer.bank
        for group in groups
        if not group["weight_decay"]
        for parameter in group["params"]
    ]
