"""ONNX: ``python -m export.onnx --model resnet18_kw`` writes a certified ``resnet18_kw.onnx``.

One file with its weights inside, input ``input`` (batch, channels, height, width), output ``logits``
(batch, classes), and everything needed to use it in its metadata. Inside this file ``import onnx`` is the
package of that name.
"""

from collections.abc import Sequence
from pathlib import Path
from typing import Any, ClassVar

import numpy as np
import torch
from torch import nn

from export import _cli, _flow, _onnxruntime
from export.base import BLOCKED, DTYPES, FP32, PLAIN, ExportOptions, Predict, Runtime, first_line
from export.certificate import Certificate
from zoo.cli import run
from zoo.errors import ZooError

INPUT, LOGITS, PROBABILITIES = "input", "logits", "probabilities"

OLDEST_OPSET = 18
"""What torch's exporter writes; newer ones are converted from it."""

NEWEST_OPSET = 25
"""The last one that onnxscript converts to by itself."""


class OnnxRuntime(Runtime):
    """ONNX, run by onnxruntime."""

    name: ClassVar[str] = "onnx"
    title: ClassVar[str] = "ONNX"
    suffix: ClassVar[str] = ".onnx"
    packages: ClassVar[tuple[str, ...]] = ("onnx", "onnxscript", "onnxruntime")
    providers: ClassVar[tuple[str, ...]] = tuple(_onnxruntime.PROVIDERS)
    dtypes: ClassVar[tuple[str, ...]] = DTYPES

    def obstacle(self, provider: str) -> str | None:
        """Return None when a session on ``provider`` runs here, otherwise the reason it cannot."""
        return _onnxruntime.available(provider)

    def check(self, options: ExportOptions) -> None:
        """Refuse an opset that cannot be written."""
        newest = newest_opset()
        if not OLDEST_OPSET <= options.opset <= newest:
            raise ZooError(
                f"opset {options.opset} cannot be written; give one from {OLDEST_OPSET} to {newest}."
            )

    def layout(self, options: ExportOptions) -> str | None:
        """Return the layout asked for, in fp32; onnxruntime blocks the maps of no other type."""
        return options.layout if options.dtype == FP32 else PLAIN

    def export(self, model: nn.Module, path: Path, options: ExportOptions) -> None:
        """Write ``model`` to ``path``, optimised and passed by the ONNX checker."""
        import onnx

        proto = to_proto(model, options, self.layout(options))
        written = {entry.domain: entry.version for entry in proto.opset_import}.get("")
        if written != options.opset:
            raise ZooError(f"the model cannot be converted to opset {options.opset}; opset {written} works.")
        _forget_sources(proto)
        onnx.checker.check_model(proto, full_check=True)
        onnx.save(proto, path)

    def quantize(self, path: Path, options: ExportOptions, images: np.ndarray) -> int:
        """Have onnxruntime's quantizer rewrite the file; see :mod:`export.quantize`.

        Raises:
            ZooError: nothing in it can run in int8.
        """
        from export.quantize import quantize

        return quantize(path, INPUT, images, options.batch)

    def annotate(self, path: Path, metadata: dict[str, str]) -> None:
        """Store ``metadata`` as the model's ``metadata_props``."""
        import onnx

        proto = onnx.load(path)
        onnx.helper.set_model_props(proto, metadata)
        onnx.checker.check_model(proto)
        onnx.save(proto, path)

    def metadata(self, path: Path) -> dict[str, str]:
        """Return the model's ``metadata_props``."""
        import onnx
        from google.protobuf.message import DecodeError

        try:
            proto = onnx.load(path)
        except DecodeError as error:
            raise ZooError(f"onnx cannot load {path}: {first_line(error)}") from error
        return {entry.key: entry.value for entry in proto.metadata_props}

    def load(self, path: Path, provider: str = "cpu", threads: int | None = None) -> Predict:
        """Return a session on exactly ``provider`` as a function of arrays."""
        session = _onnxruntime.session(path, provider, _onnxruntime.session_options(threads))

        def predict(images: np.ndarray) -> np.ndarray:
            return session.run(None, {INPUT: images})[0]

        return predict


def export(
    model: nn.Module | str,
    path: str | Path,
    *,
    opset: int = OLDEST_OPSET,
    lowering: str = "auto",
    batch: int | None = None,
    input_size: tuple[int, int, int] | None = None,
    images: np.ndarray | None = None,
    class_names: Sequence[str] | None = None,
    metadata: dict[str, str] | None = None,
    dtype: str = FP32,
    preprocess: bool = False,
    layout: str = BLOCKED,
) -> Certificate:
    """Write ``model`` as ONNX and certify it; the model itself is left as it is.

    Args:
        model: a module with one input (N, C, H, W) and one output (N, classes), or the name of one of the
            zoo's models, which comes with its pretrained weights.
        path: the file to write; its certificate goes beside it, as ``<file name>.certificate.json``.
        opset: ONNX operator set.
        lowering: how dynamic convolutions are computed, one of ``zoo.layers.LOWERINGS``, ``auto``, or
            ``tune`` for those that are measured to be the fastest on this CPU; the times go beside the file,
            as ``<file name>.tuning.json``.
        batch: None for a dynamic batch axis, or the one batch size of the artifact.
        input_size: (channels, height, width); None takes it from the model's ``pretrained_cfg``.
        images: real images to certify with too, (N, C, H, W), float32, normalised as the model wants them.
        class_names: names of the outputs; None takes them from the model's ``pretrained_cfg``.
        metadata: further entries for the artifact's metadata; these win over the ones written by default.
        dtype: ``fp32``; ``fp16`` for half precision between inputs and outputs that stay float32
            (:mod:`export.half`); or ``int8`` for convolutions with constant weights and the classifier in
            integers: eight bits of what flows through them, seven of their weights (:mod:`export.quantize`
            says why). Both are certified after the file has passed in fp32, ``int8`` calibrated on every
            second of ``images`` and certified on the others; its certificate's ``agreement`` is what it
            costs, ``int8_share`` in the file's metadata how much of the work it is.
        preprocess: take pixels (batch, height, width, channels), uint8, as decoders write them, and return
            ``probabilities``, not ``logits``: the normalisation and a softmax become part of the artifact.
        layout: ``blocked`` for a graph that onnxruntime is fast with on a CPU (:mod:`export.summed`,
            :mod:`export.blocked`), in fp32 alone; ``plain`` for CUDA and for others that read ONNX, which
            the rules for maps in blocks would cost operators.

    Returns:
        The certificate, passed.

    Raises:
        ZooError: an argument is wrong, the model cannot be expressed in ONNX, or nothing in it runs in int8.
        CertificateError: the artifact computes something else than the model; no file is written, and what
            stood at ``path`` stays.
    """
    options = ExportOptions(lowering, batch, input_size, opset, dtype, preprocess, layout)
    return _flow.export(OnnxRuntime(), model, path, options, images, class_names, metadata)


def to_proto(model: nn.Module, options: ExportOptions, layout: str | None) -> Any:
    """Return ``model`` as an optimised ``onnx.ModelProto`` whose nodes say where they come from.

    Args:
        model: lowered, on the CPU and in evaluation mode.
        options: with the input size filled in.
        layout: as :meth:`Runtime.layout` returns it.

    Raises:
        ZooError: torch cannot express the model in ONNX.
    """
    axes = {0: torch.export.Dim("batch")} if options.batch is None else None
    try:
        program = torch.onnx.export(
            model,
            (options.example(),),
            dynamo=True,
            dynamic_shapes=(axes,),
            input_names=[INPUT],
            output_names=[PROBABILITIES if options.preprocess else LOGITS],
            opset_version=options.opset,
            optimize=False,
            verbose=False,
        )
    except torch.onnx.errors.OnnxExporterError as error:
        raise ZooError(f"torch.onnx cannot express the model: {_innermost(error)}") from error
    assert program is not None
    _optimise(program)
    if layout == BLOCKED:
        from export.blocked import keep_blocked
        from export.summed import fold_batch_norms

        fold_batch_norms(program.model)
        keep_blocked(program.model)
    return program.model_proto


def newest_opset() -> int:
    """Return the newest opset that the installed packages can write."""
    import onnx

    return min(NEWEST_OPSET, onnx.defs.onnx_opset_version())


def _optimise(program: torch.onnx.ONNXProgram) -> None:
    """Run torch's own optimisation after clearing away what it is slow at.

    Its pattern matching tries every rule on every node, and nine in ten nodes of a fresh export are constants
    or dead: without this, the same graph takes five times as long.
    """
    import onnxscript.optimizer
    from onnx_ir.passes.common import LiftConstantsToInitializersPass

    onnxscript.optimizer.inline(program.model)
    # Of any size: what is left to the runtime it folds as it loads, and then holds both forms in memory.
    most = 2**31
    onnxscript.optimizer.fold_constants_ir(program.model, input_size_limit=most, output_size_limit=most)
    onnxscript.optimizer.remove_unused_nodes(program.model)
    LiftConstantsToInitializersPass(lift_all_constants=True, size_limit=0)(program.model)
    program.optimize()


def _forget_sources(proto: Any) -> None:
    """Drop the stack traces torch leaves on every node: they double small files and name local folders."""
    nodes = [*proto.graph.node, *(node for function in proto.functions for node in function.node)]
    for item in (*nodes, *proto.graph.value_info, *proto.graph.input, *proto.graph.output):
        item.ClearField("metadata_props")
        item.ClearField("doc_string")


def _innermost(error: BaseException) -> str:
    """Return the first line of what caused ``error`` in the first place."""
    while error.__cause__ is not None:
        error = error.__cause__
    return first_line(error)


def main(argv: Sequence[str] | None = None, runtime: Runtime | None = None) -> int:
    """Run the command for a format that is ONNX; return its exit code."""
    runtime = runtime or OnnxRuntime()
    parser = _cli.parser(runtime)
    parser.add_argument(
        "--opset", type=int, default=OLDEST_OPSET, help=f"ONNX operator set (default: {OLDEST_OPSET})"
    )
    has_layouts = runtime.layout(ExportOptions()) is not None
    if has_layouts:
        parser.add_argument(
            "--layout",
            default=BLOCKED,
            help=f"{BLOCKED}: for onnxruntime on a CPU (default; in {FP32} alone); {PLAIN}: for CUDA and for "
            "others that read ONNX",
        )
    args = parser.parse_args(argv)
    extra = {"layout": args.layout} if has_layouts else {}
    return _cli.main(runtime, args, opset=args.opset, **extra)


if __name__ == "__main__":
    raise SystemExit(run(main))
