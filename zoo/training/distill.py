"""Learning from a teacher: its opinion of every image, and where in the image it looks.

Knowledge distillation (Hinton et al., https://arxiv.org/abs/1503.02531) and activation-based attention
transfer (Zagoruyko and Komodakis, https://arxiv.org/abs/1612.03928).
"""

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError


class Teacher:
    """A trained model beside the one that learns, and the losses between the two.

    Args:
        teacher: put into eval mode; its parameters are frozen.
        student: its stage ends are watched from now on, so make copies of it before.
        temperature: softens both opinions.

    Raises:
        ZooError: one of the two does not say where its stages end (timm's ``feature_info``), or they differ
            in the number of stages or of classes.
    """

    def __init__(self, teacher: nn.Module, student: nn.Module, temperature: float = 4.0):
        self.model = teacher.eval().requires_grad_(False)
        self.temperature = temperature
        self._theirs: dict[int, Tensor] = {}
        self._own: dict[int, Tensor] = {}
        ends = stage_ends(teacher), stage_ends(student)
        if len(ends[0]) != len(ends[1]):
            raise ZooError(
                f"the teacher has {len(ends[0])} stages and the model {len(ends[1])}; choose a teacher alike."
            )
        classes = getattr(teacher, "num_classes", None), getattr(student, "num_classes", None)
        if classes[0] != classes[1]:
            raise ZooError(f"the teacher tells {classes[0]} classes apart and the model {classes[1]}.")
        self._hooks = [
            module.register_forward_hook(_keep(kept, stage))
            for kept, modules in zip((self._theirs, self._own), ends, strict=True)
            for stage, module in enumerate(modules)
        ]

    def release(self) -> None:
        """Stop watching the two models."""
        for hook in self._hooks:
            hook.remove()

    def losses(self, images: Tensor, logits: Tensor) -> tuple[Tensor, Tensor]:
        """Return the distillation and the attention loss of a batch that the student has just seen.

        Args:
            images: (N, 3, H, W), what the student saw.
            logits: (N, classes), what it said.

        Returns:
            The Kullback-Leibler divergence of the softened opinions times the squared temperature, and the
            attention loss summed over stages; both are means over the batch.
        """
        with torch.no_grad():
            theirs = self.model(images)
        heat = self.temperature
        distillation = heat**2 * F.kl_div(
            (logits.float() / heat).log_softmax(dim=1),
            (theirs.float() / heat).log_softmax(dim=1),
            reduction="batchmean",
            log_target=True,
        )
        stages = zip(self._own.values(), self._theirs.values(), strict=True)
        attention = torch.stack([attention_loss(own, other) for own, other in stages]).sum()
        self._own.clear()
        self._theirs.clear()
        return distillation, attention


def stage_ends(model: nn.Module) -> list[nn.Module]:
    """Return the modules at the ends of a model's stages, as timm's ``feature_info`` names them."""
    info = getattr(model, "feature_info", None)
    if not info:
        raise ZooError(
            f"{type(model).__name__} does not say where its stages end; take one of timm's models."
        )
    names = [entry["module"] for entry in info]
    return [model.get_submodule(name) for name in names]


def attention_loss(own: Tensor, theirs: Tensor) -> Tensor:
    """Return the mean squared distance (per image) of two normalised maps of activity.

    Args:
        own: (N, C, H, W).
        theirs: (N, any, any, any); the larger of the two maps is averaged down to the smaller.
    """
    height, width = (min(sizes) for sizes in zip(own.shape[2:], theirs.shape[2:], strict=True))

    def activity(features: Tensor) -> Tensor:
        mean = features.float().square().mean(dim=1, keepdim=True)
        return F.normalize(F.adaptive_avg_pool2d(mean, (height, width)).flatten(1))

    return (activity(own) - activity(theirs)).square().sum(dim=1).mean()


def _keep(kept: dict[int, Tensor], stage: int) -> Callable[..., None]:
    def hook(module: nn.Module, inputs: tuple, output: Tensor) -> None:
        kept[stage] = output

    return hook
