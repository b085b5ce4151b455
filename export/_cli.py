"""The command line that every format shares."""

import argparse
import functools
import sys
from pathlib import Path
from typing import Any

import timm

from export import _flow
from export._inputs import REAL_IMAGES, real_images
from export.base import FP16, FP32, INT8, TUNE, ExportOptions, Runtime
from export.certificate import CertificateError
from zoo.errors import ZooError
from zoo.layers import LOWERINGS
from zoo.models import check_name

_DTYPES = {
    FP32: "as the model computes",
    FP16: "half precision between float32 inputs and outputs",
    INT8: "static layers in integers, calibrated on half of the images of --data",
}


def parser(runtime: Runtime) -> argparse.ArgumentParser:
    """Return the options of every format; a format adds its own."""
    name, suffix = f"python -m export.{runtime.name}", runtime.suffix
    made = argparse.ArgumentParser(
        prog=name,
        description=f"Export a model to {runtime.title}, certified to compute what the model computes.",
        epilog=f"{_lowerings()}\n\n"
        "Exit codes: 0 certified and written, 1 the artifact is wrong and was not kept, 2 bad input.",
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    made.add_argument("--model", required=True, help="a name listed by: python -m export --models")
    made.add_argument("--output", type=Path, help=f"file to write (default: MODEL{suffix} in this folder)")
    made.add_argument(
        "--lowering",
        default="auto",
        help=f"auto: likely the cheapest (default); {TUNE}: the fastest in a measurement on this machine's "
        "CPU, wherever the artifact will run; or one of those below",
    )
    made.add_argument(
        "--threads",
        type=int,
        metavar="N",
        help=f"that an operator may use while {TUNE} measures (default: the library's own choice)",
    )
    made.add_argument(
        "--batch", default="dynamic", help="dynamic (default), or the one batch size of the artifact"
    )
    dtypes = "; ".join(f"{name}: {_DTYPES[name]}" for name in runtime.dtypes)
    made.add_argument("--dtype", default=FP32, help=f"what to compute in (default: {FP32}); {dtypes}")
    made.add_argument(
        "--preprocess",
        action="store_true",
        help="take pixels (batch, height, width, channels), uint8, and return probabilities",
    )
    made.add_argument(
        "--checkpoint", type=Path, help="safetensors file to load instead of the pretrained weights"
    )
    made.add_argument("--no-pretrained", action="store_true", help="random weights, to try things out")
    made.add_argument("--num-classes", type=int, help="number of outputs (default: the model's)")
    made.add_argument(
        "--size", type=int, help="height and width of the input in pixels (default: the model's)"
    )
    needed = f"; {INT8} needs it, for its ranges" if INT8 in runtime.dtypes else ""
    made.add_argument(
        "--data",
        type=Path,
        help=f"folder of CIFAR-10 as parquet: certify on {REAL_IMAGES} test images too{needed}",
    )
    return made


def _lowerings() -> str:
    """Return a list of the lowerings, by the batch sizes that they are right at."""
    able = {"any": "at any batch size", "frozen": "with --batch N", "one": "with --batch 1"}
    lines = ["lowerings, where all layers are to have the same (* some families alone):"]
    for batch, title in able.items():
        lines.append(f"  {title}")
        for name, row in LOWERINGS.items():
            if row.batch == batch:
                lines.append(f"    {name:<8} {row.summary}{'' if row.common else ' *'}")
    return "\n".join(lines)


def main(runtime: Runtime, args: argparse.Namespace, **extra: Any) -> int:
    """Export what ``args`` ask for.

    Args:
        runtime: the format.
        args: of :func:`parser`.
        extra: further fields of :class:`ExportOptions` that the format has options for.

    Returns:
        The exit code: 0, or 1 for an artifact that failed its certificate.

    Raises:
        ZooError: bad input.
    """
    check_name(args.model)
    _check_threads(args.threads, args.lowering)
    config = timm.get_pretrained_cfg(args.model)
    assert config is not None
    size = config.input_size if args.size is None else (config.input_size[0], args.size, args.size)
    options = ExportOptions(
        lowering=args.lowering,
        batch=_batch(args.batch),
        input_size=size,
        dtype=args.dtype,
        preprocess=args.preprocess,
        **extra,
    )
    path = args.output or Path(f"{args.model}{runtime.suffix}")
    _flow.preflight(runtime, path, options)
    if options.dtype == INT8 and args.data is None:
        raise ZooError(
            f"{options.dtype} needs images for its ranges; give a CIFAR-10 parquet folder as --data."
        )
    pretrained = not args.no_pretrained and args.checkpoint is None
    _check_classes(args.num_classes, config.num_classes if pretrained else None)

    images = None if args.data is None else real_images(args.data, size[1])
    kwargs = {} if args.num_classes is None else {"num_classes": args.num_classes}
    model, weights = _flow.load_model(args.model, pretrained, args.checkpoint, **kwargs)
    say = functools.partial(print, flush=True)
    try:
        _flow.export(
            runtime, model, path, options, images=images, weights=weights, say=say, threads=args.threads
        )
    except CertificateError as error:
        print(f"error: {error}", file=sys.stderr)
        return 1
    return 0


def _batch(text: str) -> int | None:
    if text == "dynamic":
        return None
    try:
        return int(text)
    except ValueError:
        raise ZooError(
            f"batch {text!r} is not a batch size; give a whole number from 1, or dynamic."
        ) from None


def _check_threads(threads: int | None, lowering: str) -> None:
    if threads is not None and lowering != TUNE:
        raise ZooError(f"--threads is for the measurements of --lowering {TUNE} alone; leave it out.")
    if threads is not None and threads < 1:
        raise ZooError(f"{threads} is not a number of threads; give --threads a whole number from 1.")


def _check_classes(asked: int | None, trained: int | None) -> None:
    if asked is not None and asked < 1:
        raise ZooError(f"{asked} classes are too few; give --num-classes a number from 1.")
    if asked is not None and trained is not None and asked != trained:
        raise ZooError(
            f"the pretrained weights have {trained} classes, not {asked}; "
            "give weights that fit with --checkpoint, or --no-pretrained for random ones."
        )
