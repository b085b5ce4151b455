"""Every choice that decides what a training run computes, in one value."""

import dataclasses
import json
import math
from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from zoo.errors import ZooError
from zoo.training.augment import Augmentation

#: Settings of how a run is computed, not of what it shall learn: that is the same up to rounding.
COMPUTED = frozenset({"amp", "lowering", "channels_last", "compile", "threads"})


@dataclass(frozen=True)
class Recipe:
    """The hyper-parameters of a run; two runs of the same recipe on the same data agree.

    On CUDA they agree up to what cuDNN takes for the fastest way to convolve.

    Attributes:
        model: name in timm's registry.
        phases: (image side in pixels, epochs) in order; small images first make early epochs cheap.
        shared_epochs: for so many epochs at the start, images share the kernels of their mean context
            (:func:`zoo.layers.share_context`), which costs less than kernels of their own.
        shared_images: how many images of a batch share their kernels in these epochs; None means all of them.
        held_out: training images, the last ones, that are not learned from; where a run is evaluated, it is
            on these and not on test images, so that recipes can be compared without a look at those.
        images_per_epoch: images in an epoch, a fresh random subset each time; None means all of them.
        batch_size: images an update, over all processes together.
        optimizer: name in timm's optimizer registry.
        lr: peak learning rate; linear warm-up, then a cosine down to zero over all updates.
        weight_decay: decoupled decay; never on biases, norms and parameters that a layer exempts.
        warmup: share of all updates spent warming up, 0 to 1.
        anneal: share of all updates over which layers anneal (:func:`zoo.layers.anneal`), 0 to 1.
        label_smoothing: 0 to 1.
        mixup: alpha of MixUp, by which two images of a batch are blended (:mod:`zoo.training.mix`); 0: none.
        cutmix: alpha of CutMix, by which one gets a box of another, likewise; with both, each batch has one.
        clip_grad: largest norm of the gradient; None leaves it alone.
        ema_decay: final decay of the averaged weights, which are the ones published.
        seed: seeds the initial weights, the order of the images and their augmentation.
        amp: ``bf16`` autocast or ``no``; None means bf16 on CUDA and none on CPU.
        warm_start: file to start from, or None: safetensors of the static twin or of the model itself, or
            the checkpoint of a run of either.
        freeze: patterns of names of parameters that stay as they start, such as ``*.vectors``.
        teacher: name of a pretrained model to learn from as well, or None.
        distillation: weight of the teacher's opinion (:class:`zoo.training.distill.Teacher`), 0 to 1; the
            labels have the rest.
        attention: weight of the distance between the two models' maps of activity at the ends of stages.
        lowering: how dynamic convolutions are computed, ``auto`` or one of ``zoo.layers.LOWERINGS``; what is
            learned is the same up to rounding.
        channels_last: whether networks and images lie in memory as NHWC, else as NCHW; None means what is
            likely faster (:func:`zoo.training.loop.memory_format`).
        compile: whether torch.compile makes the forward and backward; it needs a C++ compiler, and time
            at the start and at each new size of the images.
        threads: CPU threads of a process; None leaves torch's choice.
        augmentation: how images are warped.

    Raises:
        ZooError: a value is out of its range.
    """

    model: str
    phases: tuple[tuple[int, int], ...] = ((32, 30),)
    shared_epochs: int = 0
    shared_images: int | None = None
    held_out: int = 0
    images_per_epoch: int | None = None
    batch_size: int = 128
    optimizer: str = "adamw"
    lr: float = 2e-3
    weight_decay: float = 0.05
    warmup: float = 0.05
    anneal: float = 0.1
    label_smoothing: float = 0.1
    mixup: float = 0.0
    cutmix: float = 0.0
    clip_grad: float | None = 1.0
    ema_decay: float = 0.999
    seed: int = 0
    amp: str | None = None
    warm_start: str | None = None
    freeze: tuple[str, ...] = ()
    teacher: str | None = None
    distillation: float = 0.5
    attention: float = 1.0
    lowering: str = "auto"
    channels_last: bool | None = None
    compile: bool = False
    threads: int | None = None
    augmentation: Augmentation = field(default_factory=Augmentation)

    def __post_init__(self) -> None:
        def check(holds: bool, name: str, wanted: str) -> None:
            if not holds:
                raise ZooError(f"{name} is {getattr(self, name)!r}; it must be {wanted}.")

        sizes_fit = all(size >= 8 and epochs >= 1 for size, epochs in self.phases)
        check(bool(self.phases) and sizes_fit, "phases", "SIZE:EPOCHS pairs of at least 8 pixels and 1 epoch")
        for name in ("batch_size", "images_per_epoch", "shared_images", "threads"):
            value = getattr(self, name)
            check(value is None or value >= 1, name, "at least 1")
        shared = 0 <= self.shared_epochs <= len(self.sizes)
        check(shared, "shared_epochs", "from 0 to the number of epochs")
        if self.shared_images is not None and self.shared_epochs == 0:
            raise ZooError(f"shared_images is {self.shared_images}, but in 0 epochs; set shared_epochs.")
        for name in ("warmup", "anneal", "label_smoothing", "ema_decay"):
            check(0 <= getattr(self, name) < 1, name, "at least 0 and below 1")
        check(math.isfinite(self.lr) and self.lr > 0, "lr", "above 0")
        for name in ("mixup", "cutmix"):
            check(0 <= getattr(self, name) < math.inf, name, "at least 0")
        check(math.isfinite(self.weight_decay) and self.weight_decay >= 0, "weight_decay", "at least 0")
        check(self.held_out >= 0, "held_out", "at least 0")
        check(0 <= self.distillation <= 1, "distillation", "from 0 to 1")
        check(math.isfinite(self.attention) and self.attention >= 0, "attention", "at least 0")
        check(self.clip_grad is None or self.clip_grad > 0, "clip_grad", "above 0, or None")
        check(0 <= self.seed < 2**31, "seed", "from 0 to 2**31 - 1")
        check(self.amp in (None, "bf16", "no"), "amp", "bf16 or no")

    @property
    def sizes(self) -> tuple[int, ...]:
        """The image side of every epoch, in order."""
        return tuple(size for size, epochs in self.phases for _ in range(epochs))

    def images_a_kernel(self, epoch: int) -> int:
        """Return how many images share their kernels in an epoch, counted from 0."""
        return (self.shared_images or self.batch_size) if epoch < self.shared_epochs else 1

    def to_dict(self) -> dict[str, Any]:
        """Return plain values that JSON can hold."""
        return json.loads(json.dumps(dataclasses.asdict(self)))

    def settings(self) -> dict[str, Any]:
        """Return every choice by its name, those of the augmentation among them."""
        settings = vars(self) | vars(self.augmentation)
        del settings["augmentation"]
        return settings

    def learned(self) -> dict[str, Any]:
        """Return what decides what is learned, but not the start, nor how it is computed."""
        return {
            name: value for name, value in self.settings().items() if name not in {"warm_start", *COMPUTED}
        }

    @classmethod
    def from_dict(cls, values: dict[str, Any]) -> "Recipe":
        """Rebuild a recipe from :meth:`to_dict`.

        Raises:
            ZooError: another version of the zoo wrote it, with choices that this one does not have.
        """
        augmentation = dict(values["augmentation"])
        unknown = values.keys() - cls.__dataclass_fields__.keys()
        if unknown := unknown | (augmentation.keys() - Augmentation.__dataclass_fields__.keys()):
            raise ZooError(
                f"the recipe says {', '.join(sorted(unknown))}, which this version of the zoo does not know; "
                "go on with the version that wrote it, or train anew."
            )
        augmentation["scale"] = tuple(augmentation["scale"])
        changed = {
            "phases": tuple((size, epochs) for size, epochs in values["phases"]),
            "freeze": tuple(values.get("freeze", ())),
            "augmentation": Augmentation(**augmentation),
        }
        return cls(**{**values, **changed})


def parse_phases(words: Iterable[str]) -> tuple[tuple[int, int], ...]:
    """Read ``["16:4", "32:1"]``, image side and epochs of each phase.

    Raises:
        ZooError: a word is not two whole numbers around a colon.
    """
    phases = []
    for word in words:
        size, _, epochs = word.partition(":")
        if not (size.isdecimal() and epochs.isdecimal()):
            raise ZooError(f"{word!r} is not a phase; write SIZE:EPOCHS, for example 16:4.")
        phases.append((int(size), int(epochs)))
    return tuple(phases)
