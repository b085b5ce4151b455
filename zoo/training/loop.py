"""The training loop: one command, one process or many, stopped and resumed at will."""

import contextlib
import dataclasses
import math
import time
from collections.abc import Iterable, Iterator
from fnmatch import fnmatchcase
from pathlib import Path
from typing import Any

import torch
from timm.scheduler import CosineLRScheduler
from timm.utils import ModelEmaV3
from torch import Tensor, nn
from torch.nn import functional as F

from zoo.errors import ZooError
from zoo.layers import (
    LOWERINGS,
    DynamicConv2d,
    anneal,
    anneals,
    constrain,
    dynamic_layers,
    set_lowering,
    share_context,
)
from zoo.models import create_model
from zoo.training import checkpoint, log
from zoo.training._require import require
from zoo.training.augment import warp
from zoo.training.batches import batches, updates_per_epoch
from zoo.training.checkpoint import Progress
from zoo.training.compiling import compiled, explained
from zoo.training.data import Split, hold_out
from zoo.training.distill import Teacher
from zoo.training.evaluate import top1
from zoo.training.mix import make_mix
from zoo.training.optimizer import make_optimizer
from zoo.training.processes import check_joined, on_cpu, on_cuda, progress_bar
from zoo.training.recipe import Recipe


def train(
    recipe: Recipe,
    model: nn.Module,
    data: Split,
    run_dir: Path,
    *,
    test: Split | None = None,
    eval_every: int | None = None,
    save_every: int = 1,
    resume: bool = False,
    facts: dict[str, Any] | None = None,
) -> Progress:
    """Train ``model`` in place and leave its checkpoint and log in ``run_dir``.

    Started through ``accelerate launch`` or ``torchrun``, every process takes its share of each batch; the
    batch size, and so the result up to rounding and batch statistics, does not depend on their number. MixUp
    and CutMix, where a recipe has them, mix each share by itself. The caller then has them part with
    :func:`zoo.training.processes.leave`.

    Args:
        recipe: what to run.
        model: a classifier of (N, 3, S, S) into the classes of ``data``.
        data: images to learn from.
        run_dir: an existing folder; receives ``checkpoint.safetensors`` and ``log.jsonl``.
        test: images for the averaged weights to be evaluated on, clean at full size; None skips it. Where the
            recipe holds images out, these take their place.
        eval_every: evaluate after every so many epochs and at the end, or never (0); None means at the end
            of each phase.
        save_every: write the checkpoint and draw the learning curve after every so many epochs, and at the
            end. A GPU can take less time for an epoch than the disk for a checkpoint.
        resume: go on from the checkpoint in ``run_dir``.
        facts: kept in the checkpoint, for the weights manifest; a resumed run keeps its own of other names.

    Returns:
        How far the run has come: to its end.

    Raises:
        ZooError: ``save_every`` is below 1, there are no images, the recipe does not fit the data or the
            processes, or training diverged.
    """
    if save_every < 1:
        raise ZooError(f"save_every is {save_every}; it must be at least 1.")
    if not len(data):
        raise ZooError(f"there are no images to learn from in {data.source}.")
    if recipe.held_out:
        data, test = hold_out(data, recipe.held_out)
    run = _Run(recipe, model, data, run_dir, Progress(recipe, facts=facts or {}))
    phase_ends = {sum(epochs for _, epochs in recipe.phases[: i + 1]) for i in range(len(recipe.phases))}
    try:
        if resume:
            run.resume()
            run.progress.facts.update(facts or {})
        elif run.accelerator.is_main_process:
            log.cut(run_dir, 0)  # of a run that ended before its first checkpoint
        with searched_convolutions():
            while not run.progress.finished:
                record = run.epoch()
                number = record["epoch"]
                if eval_every is None:
                    due = number in phase_ends
                else:
                    due = eval_every > 0 and (number % eval_every == 0 or run.progress.finished)
                if test is not None and due:
                    run.evaluate(record, test)
                run.finish_epoch(record, save=number % save_every == 0 or run.progress.finished)
    finally:
        run.release()
    run.accelerator.wait_for_everyone()  # what the first process wrote is there for all
    return run.progress


def check(recipe: Recipe, model: nn.Module) -> None:
    """Raise a :class:`ZooError` for what a recipe wants of a model and cannot have; it is set up meanwhile.

    Training does so itself; this is for before what takes long.
    """
    set_training_lowering(model, recipe.lowering)
    _check_compiles(recipe, model)
    for parameter in _freeze(model, recipe.freeze):
        parameter.requires_grad_(True)
    if recipe.teacher is not None:
        Teacher(create_model(recipe.teacher, pretrained=True), model).release()


def _freeze(model: nn.Module, patterns: Iterable[str]) -> list[nn.Parameter]:
    """Have parameters stay as they are, and return those that could have learned.

    Args:
        model: whose.
        patterns: of their names.

    Raises:
        ZooError: a pattern is of no parameter.
    """
    found: dict[str, nn.Parameter] = {}
    for pattern in patterns:
        named = {name: each for name, each in model.named_parameters() if fnmatchcase(name, pattern)}
        if not named:
            raise ZooError(f"no parameter is called {pattern!r}; freeze those of the model by their names.")
        found |= {name: each for name, each in named.items() if each.requires_grad}
    for parameter in found.values():
        parameter.requires_grad_(False)
    return list(found.values())


def _check_compiles(recipe: Recipe, model: nn.Module) -> None:
    if recipe.compile and recipe.anneal and any(map(anneals, dynamic_layers(model))):
        raise ZooError(
            f"{recipe.model} anneals, and torch.compile would compile it anew at every update; "
            "train without --compile, or with --anneal 0."
        )


def set_training_lowering(model: nn.Module, name: str) -> None:
    """Choose how a model's dynamic convolutions are computed while they are trained.

    Args:
        model: changed in place.
        name: a lowering, or ``auto`` for each layer's own (:meth:`DynamicConv2d.training_lowering`).

    Raises:
        ZooError: a layer of the model has no such lowering, or it cannot train in batches.
    """
    if name != "auto" and (name not in LOWERINGS or LOWERINGS[name].batch == "one"):
        able = ", ".join(["auto", *(each for each, row in LOWERINGS.items() if row.batch != "one")])
        raise ZooError(f"the lowering {name!r} cannot train; choose from {able}.")
    if name == "auto":
        layers = {path: module for path, module in model.named_modules() if isinstance(module, DynamicConv2d)}
        set_lowering(model, {path: layer.training_lowering() for path, layer in layers.items()})
    else:
        set_lowering(model, name)


@contextlib.contextmanager
def searched_convolutions() -> Iterator[None]:
    """Let cuDNN time its ways to convolve: training has few shapes of images, and many updates of each."""
    before = torch.backends.cudnn.benchmark
    torch.backends.cudnn.benchmark = True
    try:
        yield
    finally:
        torch.backends.cudnn.benchmark = before


def memory_format(channels_last: bool | None, model: nn.Module, device: torch.device) -> torch.memory_format:
    """Return how a recipe's networks and images lie in memory.

    Args:
        channels_last: whether as NHWC, else as NCHW. None means as NHWC; but on a CPU as NCHW where most
            depthwise layers fold the batch into the groups of a convolution, which then needs no copy.
        model: with its lowerings chosen.
        device: that it is trained on.
    """
    if channels_last is None:
        fold = sum(layer.lowering == "grouped" for layer in dynamic_layers(model))
        static = sum(isinstance(each, nn.Conv2d) and each.groups > 1 for each in model.modules())
        channels_last = device.type != "cpu" or fold <= static
    return torch.channels_last if channels_last else torch.contiguous_format


def precision(amp: str | None) -> str:
    """Return what a recipe's ``amp`` means where this process trains: ``bf16`` or ``no``."""
    return amp or ("bf16" if on_cuda() else "no")


class _Run:
    """The state of a run in one process."""

    def __init__(
        self, recipe: Recipe, model: nn.Module, data: Split, run_dir: Path, progress: Progress
    ) -> None:
        if recipe.threads is not None:
            torch.set_num_threads(recipe.threads)
        accelerate = require("accelerate")
        self.accelerator = accelerate.Accelerator(cpu=on_cpu(), mixed_precision=precision(recipe.amp))
        check_joined(self.accelerator.num_processes, self.accelerator.device)
        self.recipe, self.run_dir, self.progress = recipe, run_dir, progress
        self.world, self.rank = self.accelerator.num_processes, self.accelerator.process_index
        self.updates = updates_per_epoch(recipe, len(data), self.world)

        device = self.accelerator.device
        # The whole set fits: 150 MB as bytes. So a batch is an index, and no worker process copies images.
        self.images, self.labels = data.images.to(device), data.labels.to(device)
        self.mix = make_mix(recipe, len(data.classes))
        set_training_lowering(model, recipe.lowering)
        _check_compiles(recipe, model)
        self.memory_format = memory_format(recipe.channels_last, model, device)
        self.model = model.to(device).to(memory_format=self.memory_format)
        self.frozen = _freeze(self.model, recipe.freeze)
        self.ema = ModelEmaV3(self.model, decay=recipe.ema_decay, use_warmup=True)
        self.optimizer = make_optimizer(recipe, self.model)
        total = self.updates * len(recipe.sizes)
        warmup = int(recipe.warmup * total)
        self.annealed = int(recipe.anneal * total)
        self.schedule = CosineLRScheduler(
            self.optimizer,
            t_initial=total - warmup,
            warmup_t=warmup,
            warmup_prefix=True,
            warmup_lr_init=recipe.lr / 100,
            t_in_epochs=False,
        )
        # After the averaged copy is made: that one needs no teacher.
        self.teacher = None if recipe.teacher is None else Teacher(self.load_teacher(), self.model)
        self.own_forward = {name: value for name, value in vars(model).items() if name == "forward"}
        # The optimizer is left as it is: bf16 needs no loss scaling, and gradients are never accumulated.
        self.prepared = self.accelerator.prepare(self.model)
        if recipe.compile:
            self.prepared = compiled(self.prepared)

    def release(self) -> None:
        """Let the caller's model compute as before: in its own precision, for each image, unwatched."""
        self.accelerator.unwrap_model(self.prepared, keep_fp32_wrapper=False)
        # accelerate leaves a forward in the instance.
        vars(self.model).pop("forward", None)
        vars(self.model).update(self.own_forward)
        if self.teacher is not None:
            self.teacher.release()
        share_context(self.model, 1)
        for parameter in self.frozen:
            parameter.requires_grad_(True)
        if self.recipe.compile:
            torch._dynamo.reset()  # it keeps a few compilations of a forward, and runs further models without

    def resume(self) -> None:
        """Load the checkpoint and forget what was logged after it."""
        self.progress = checkpoint.read_progress(self.run_dir)
        checkpoint.restore(self.run_dir, self.model, self.ema.module, self.optimizer)
        if self.accelerator.is_main_process:
            for name in (checkpoint.FILE, log.FILE, log.PICTURE):
                for leftover in self.run_dir.glob(f".{Path(name).stem}.*"):
                    leftover.unlink()  # half a file, from a run killed while writing it
            log.cut(self.run_dir, self.progress.epoch)

    def load_teacher(self) -> nn.Module:
        """Return the recipe's teacher where this process trains."""
        assert self.recipe.teacher is not None
        teacher = create_model(self.recipe.teacher, pretrained=True)
        return teacher.to(self.accelerator.device).to(memory_format=self.memory_format)

    def epoch(self) -> dict[str, Any]:
        """Train for one epoch and return what to log about it."""
        recipe, done = self.recipe, self.progress
        size = recipe.sizes[done.epoch]
        # Dropout and mixing, where a run has them, draw from the global generator.
        torch.manual_seed(recipe.seed * 1_000_003 + done.epoch + self.rank)
        self.prepared.train()
        share_context(self.model, recipe.images_a_kernel(done.epoch))
        totals = torch.zeros(2, device=self.accelerator.device)
        title = f"epoch {done.epoch + 1}/{len(recipe.sizes)} at {size}px"
        bar = progress_bar(total=self.updates * recipe.batch_size, desc=title, unit=" images")
        began = time.perf_counter()
        shares = batches(recipe, done.epoch, len(self.labels), self.images.shape[-1], self.rank, self.world)
        for update, (rows, maps) in enumerate(shares):
            totals += self.update(done.step + update, rows, maps, size)
            bar.update(recipe.batch_size)
            if update % 20 == 19:  # reading the loss waits for the device, so not every time
                seen = (update + 1) * recipe.batch_size // self.world
                bar.set_postfix(loss=f"{totals[0].item() / seen:.3f}", lr=f"{self.lr:.1e}")
        bar.close()
        loss, correct = self.accelerator.reduce(totals).tolist()
        seconds = time.perf_counter() - began
        images = self.updates * recipe.batch_size
        if not math.isfinite(loss):
            raise ZooError(f"the loss became {loss} in epoch {done.epoch + 1}; start anew with a lower --lr.")
        self.progress = dataclasses.replace(
            done, epoch=done.epoch + 1, step=done.step + self.updates, seconds=done.seconds + seconds
        )
        return {
            "epoch": done.epoch + 1,
            "size": size,
            "loss": round(loss / images, 4),
            "train_top1": round(100 * correct / images, 2),
            "lr": self.lr,
            "images_per_second": round(images / seconds, 1),
            "seconds": round(seconds, 1),
            "peak_memory_mb": log.peak_memory_mb(),
        }

    def update(self, step: int, rows: Tensor, maps: Tensor, size: int) -> Tensor:
        """Do one update; return the summed loss and the number of right answers."""
        self.schedule.step_update(step)
        anneal(self.model, min(1.0, step / self.annealed) if self.annealed else 1.0)
        rows = rows.to(self.images.device)
        inputs, labels = warp(self.images[rows], maps, size), self.labels[rows]
        inputs, targets = (inputs, labels) if self.mix is None else self.mix(inputs, labels)
        inputs = inputs.contiguous(memory_format=self.memory_format)
        with explained(self.recipe.model):
            logits = self.prepared(inputs)
            loss = F.cross_entropy(logits.float(), targets, label_smoothing=self.recipe.label_smoothing)
            if self.teacher is not None:
                with self.accelerator.autocast():
                    opinion, attention = self.teacher.losses(inputs, logits)
                share = self.recipe.distillation
                loss = (1 - share) * loss + share * opinion + self.recipe.attention * attention
            self.optimizer.zero_grad()
            self.accelerator.backward(loss)
        if self.recipe.clip_grad is not None:
            nn.utils.clip_grad_norm_(self.model.parameters(), self.recipe.clip_grad)
        self.optimizer.step()
        constrain(self.model)
        self.ema.update(self.model, step=step + 1)
        answers = targets if targets.ndim == 1 else targets.argmax(1)  # of a mixed image the larger share's
        return torch.stack([loss.detach() * len(rows), (logits.detach().argmax(1) == answers).sum()])

    @property
    def lr(self) -> float:
        """The learning rate of the last update, of parameters that learn at the usual one."""
        first = self.optimizer.param_groups[0]
        return first["lr"] / first["lr_scale"]

    def evaluate(self, record: dict[str, Any], test: Split) -> None:
        """Add the averaged weights' clean top-1 to ``record``; other processes wait at the next batch."""
        if self.accelerator.is_main_process:
            name = log.HELD_OUT if self.recipe.held_out else log.TEST
            record[name] = round(top1(self.ema.module, test), 2)

    def finish_epoch(self, record: dict[str, Any], save: bool) -> None:
        """Log the epoch, and if told to write the checkpoint and draw the log."""
        if not self.accelerator.is_main_process:
            return
        # The log goes first: a run killed in between repeats the epoch, and resuming drops the extra line.
        log.append(self.run_dir, record)
        if save:
            checkpoint.save(self.run_dir, self.progress, self.model, self.ema.module, self.optimizer)
            log.draw(self.run_dir)
        print(log.summary(record, len(self.recipe.sizes)), flush=True)
