"""What ``python -m export.benchmark`` takes."""

import argparse
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from export.base import FP32, INT8, TUNE
from export.benchmark.clocks import CLOCKS
from export.benchmark.engine import FileEngine
from export.benchmark.engines import ENGINES
from export.benchmark.formats import Exported
from export.benchmark.measure import LEAST_ROUNDS
from export.benchmark.subjects import TIMM
from zoo.errors import ZooError

RESULTS, CSV, TABLE, PICTURE = "results.json", "results.csv", "table.md", "accuracy_latency.png"
"""The files of a folder of results."""

_NOT_OF_A_BREAKDOWN = (
    "models", "devices", "dtypes", "seconds", "quick", "no_peers", "no_memory", "certify",
    "cuda_graphs", "against", "seed", "fixed_batch", "passes", "data",
)  # fmt: skip

_PASSES = 3

_OF_RENDERING = ("render", "output", "against")

_QUICK = {"runtimes": ["onnx"], "batch": [1, 8], "rounds": 20, "seconds": 8.0, "devices": ["cpu"]}
_USUAL = {"runtimes": None, "batch": [1, 8], "rounds": 40, "seconds": 60.0, "devices": ["cpu", "cuda"]}


def parse(argv: Sequence[str] | None = None) -> argparse.Namespace:
    """Return the arguments, with the defaults of a quick or of a usual run for what was not given.

    Raises:
        ZooError: an option does not go with another one, or would do nothing beside it.
    """
    parser = _parser()
    args = parser.parse_args(argv)
    given = [name for name, value in vars(args).items() if value != parser.get_default(name)]
    if args.breakdown and (useless := [name for name in given if name in _NOT_OF_A_BREAKDOWN]):
        option = _option(useless[0])
        raise ZooError(f"--breakdown, on the CPU, has no use for {option}; leave it out.")
    if args.breakdown:
        args.runtimes = args.runtimes or [next(iter(CLOCKS))]
        if "all" in args.runtimes:
            args.runtimes = list(CLOCKS)
        if unable := [name for name in args.runtimes if name not in CLOCKS]:
            able = " and ".join(CLOCKS)
            raise ZooError(f"--breakdown knows the clocks of {able}, not of {unable[0]}; leave it out.")
    if args.breakdown and TIMM in args.lowerings:
        raise ZooError(
            f"--breakdown does not know the parts of {TIMM}'s layer; leave the lowering {TIMM} out."
        )
    if args.render and (useless := [name for name in given if name not in _OF_RENDERING]):
        raise ZooError(f"--render measures nothing and has no use for {_option(useless[0])}; leave it out.")
    if args.seed < 0:
        raise ZooError(f"--seed is {args.seed}; give a whole number from 0.")
    for name in ("no_peers", "no_memory"):
        if args.quick and name in given:
            raise ZooError(f"--quick has no use for {_option(name)}, which it implies; leave one out.")
    if args.certify and TUNE in args.lowerings:
        cure = f"python -m export.onnx --lowering {TUNE} certifies a tuned artifact"
        raise ZooError(f"--certify does not go with the lowering {TUNE}; leave one out: {cure}.")
    if args.certify and INT8 in args.dtypes:
        cure = f"python -m export.onnx --dtype {INT8} --data DIR certifies one on real images"
        raise ZooError(f"--certify does not go with {INT8}; leave one out: {cure}.")
    if args.data and INT8 not in args.dtypes:
        raise ZooError(f"--data is for the ranges of {INT8} alone; add --dtypes {INT8}, or leave it out.")
    for name, value in (_QUICK if args.quick else _USUAL).items():
        if getattr(args, name) is None:
            setattr(args, name, value)
    if args.passes is None:
        args.passes = 1 if args.quick else max(1, min(_PASSES, args.rounds // LEAST_ROUNDS))
    if args.cuda_graphs and "cuda" not in args.devices:
        raise ZooError("--cuda-graphs is for CUDA; name it with --devices cuda, or leave the option out.")
    if args.runtimes is None:
        args.runtimes = [name for name, engine in ENGINES.items() if not engine.slow]
    elif "all" in args.runtimes:
        args.runtimes = list(ENGINES)
    _check_runtimes(args)
    return args


def _check_runtimes(args: argparse.Namespace) -> None:
    """Refuse options that none of the runtimes has a use for."""
    engines = {name: ENGINES[name] for name in args.runtimes if name in ENGINES}
    if len(engines) < len(set(args.runtimes)):
        return  # a name that nothing has; the plan says what there is
    what = ", ".join(engines)
    if args.certify and not any(isinstance(engine, Exported) for engine in engines.values()):
        able = ", ".join(name for name, engine in ENGINES.items() if isinstance(engine, Exported))
        raise ZooError(f"--certify does nothing for {what}; add one of {able}, or leave the option out.")
    if args.fixed_batch and not any(isinstance(engine, FileEngine) for engine in engines.values()):
        raise ZooError(f"--fixed-batch does nothing for {what}, of no artifacts; leave the option out.")
    if args.cuda_graphs and not any("cuda" in engine.devices for engine in engines.values()):
        raise ZooError(f"--cuda-graphs does nothing for {what}, not run on CUDA here; leave the option out.")


def _option(name: str) -> str:
    return f"--{name.replace('_', '-')}"


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="python -m export.benchmark",
        description="What dynamic-kernel models cost where they will run, next to their static twins.",
        epilog="Exit codes: 0, 1 a candidate computed something else than its model, 2 bad input.",
    )
    add = parser.add_argument
    words: dict[str, Any] = {"nargs": "+", "metavar": "NAME"}
    numbers: dict[str, Any] = {"nargs": "+", "type": int, "metavar": "N"}
    add("--models", "--model", default=[], **words, help='as "*_dpk" (default: those with trained weights)')
    add("--runtimes", **words, help=f"of {', '.join(ENGINES)}, or all (default: all that prepare quickly)")
    add("--devices", **words, help="cpu, cuda, or what else a runtime has (default: cpu cuda)")
    add("--dtypes", default=[FP32], **words, help="fp32, fp16, bf16, int8 (default: fp32)")
    add(
        "--data",
        type=Path,
        metavar="DIR",
        help="CIFAR-10 parquet folder, which int8 needs of trained weights",
    )
    add("--lowerings", default=["auto"], **words, help="auto, tune, names of lowerings, or all")
    add("--batch", **numbers, help="batch sizes (default: 1 8)")
    add("--fixed-batch", action="store_true", help="artifacts for one batch size each (default: for any)")
    add("--threads", default=[1], **numbers, help="threads of an operator (default: 1)")
    add("--rounds", type=int, help="rounds of each batch size, at most (default: 40)")
    add("--seconds", type=float, help="after which a batch size begins no further round (default: 60)")
    add(
        "--passes",
        type=int,
        help=f"through all batch sizes, with a part of the rounds (default: up to {_PASSES})",
    )
    add("--seed", type=int, default=0, help="of the order within rounds (default: 0)")
    add("--quick", action="store_true", help="onnx on the CPU, batch 1 and 8, few rounds, no peers or memory")
    add("--no-peers", action="store_true", help="leave out what people run today")
    add("--no-memory", action="store_true", help="leave out peak memory")
    add("--no-pretrained", action="store_true", help="random weights; the time is the same")
    add(
        "--certify",
        action="store_true",
        help="the whole parity certificate for artifacts of export's formats",
    )
    add("--cuda-graphs", action="store_true", help="replay recorded graphs on CUDA, where a runtime can")
    add("--output", type=Path, metavar="DIR", help=f"folder for {RESULTS}, {CSV}, {TABLE}, {PICTURE}")
    add("--json", type=Path, metavar="FILE", help=f"write the {RESULTS} alone, to this file")
    add("--against", type=Path, metavar="FILE", help=f"compare the taxes with an earlier {RESULTS}")
    other = parser.add_mutually_exclusive_group()
    other.add_argument(
        "--render", type=Path, metavar="FILE", help=f"the tables of a {RESULTS} anew, to the --output"
    )
    clocks = ", ".join(CLOCKS)
    other.add_argument("--breakdown", **words, help=f"where the time goes, layer by layer, in {clocks}")
    return parser
