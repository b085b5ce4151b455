"""What runtimes clock of their own calls, by operator: a row of :data:`CLOCKS` for each that does."""

import json
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np

from export.benchmark import sessions
from export.benchmark.attribution import Ran
from export.onnx import INPUT
from export.openvino import compiled


class Clocked(NamedTuple):
    """One operator of one call.

    Attributes:
        name: of its node in the graph that ran.
        op: its type, as the runtime calls it.
        onnx_op: the type of the ONNX operator that it is most of.
        seconds: that it took.
    """

    name: str
    op: str
    onnx_op: str
    seconds: float


@dataclass(frozen=True)
class Call:
    """One call, or the mean of some.

    Attributes:
        seconds: of the whole.
        operators: that ran in it.
        count: how many calls it is the mean of.
    """

    seconds: float
    operators: tuple[Clocked, ...]
    count: int = 1


class Clock(ABC):
    """A runtime that clocks its operators on the CPU.

    Args:
        path: an ONNX file, marked by :func:`export.benchmark.attribution.mark`.
        threads: that an operator may use.
        folder: for what the runtime writes.
    """

    @abstractmethod
    def __init__(self, path: Path, threads: int, folder: Path): ...

    @abstractmethod
    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for images, clocked."""

    @abstractmethod
    def stop(self, count: int) -> list[Call]:
        """Return the last ``count`` calls, or their mean; nothing runs afterwards."""

    @abstractmethod
    def ran(self) -> list[Ran]:
        """Return the nodes of the graph that ran."""


class OnnxRuntimeClock(Clock):
    """onnxruntime's profile, a file of events."""

    def __init__(self, path: Path, threads: int, folder: Path):
        self._optimised = folder / "optimised.onnx"
        self._session = sessions.open_session(
            path, threads=threads, profile=folder / "profile", optimised=self._optimised
        )

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for images, clocked."""
        return sessions.run(self._session, images)

    def stop(self, count: int) -> list[Call]:
        """Return the last ``count`` calls; nothing runs afterwards."""
        return calls(json.loads(Path(self._session.end_profiling()).read_text(encoding="utf-8")))[-count:]

    def ran(self) -> list[Ran]:
        """Return the nodes of the graph that ran."""
        import onnx

        nodes = onnx.load(self._optimised).graph.node
        return [Ran(node.name, tuple(node.input), tuple(node.output)) for node in nodes]


class OpenVinoClock(Clock):
    """OpenVINO's performance counters: the mean of all calls so far, cut to whole microseconds.

    What operators lose by that, half a microsecond each on average, counts as time between them.
    """

    def __init__(self, path: Path, threads: int, folder: Path):
        self._network = compiled(path, threads, clocked=True)
        self._request = self._network.create_infer_request()
        self._seconds: list[float] = []
        self._sums: list[dict[tuple[str, str], float]] = [{}]

    def run(self, images: np.ndarray) -> np.ndarray:
        """Return the outputs for images, clocked."""
        found = self._request.infer({INPUT: images}, share_inputs=True)[0].copy()
        self._seconds.append(self._request.latency / 1e3)
        self._sums.append(
            {
                (each.node_name, each.node_type): each.real_time.total_seconds() * len(self._seconds)
                for each in self._request.profiling_info
            }
        )
        return found

    def stop(self, count: int) -> list[Call]:
        """Return the mean of the last ``count`` calls; nothing runs afterwards."""
        before, after = self._sums[-count - 1], self._sums[-1]
        taken = {key: (total - before.get(key, 0.0)) / count for key, total in after.items()}
        operators = [
            Clocked(name, op, _ONNX.get(op, op), seconds)
            for (name, op), seconds in taken.items()
            if seconds > 0
        ]
        return [Call(sum(self._seconds[-count:]) / count, tuple(operators), count)]

    def ran(self) -> list[Ran]:
        """Return the nodes of the graph that ran; what one was made of stands for its outputs."""
        found = []
        for node in self._network.get_runtime_model().get_ops():
            made_of = str(node.get_rt_info()["originalLayersNames"].value)
            found.append(Ran(node.get_friendly_name(), (), tuple(filter(None, made_of.split(",")))))
        return found


CLOCKS: dict[str, Callable[[Path, int, Path], Clock]] = {
    "onnx": OnnxRuntimeClock,
    "openvino": OpenVinoClock,
}
"""By the name of the runtime."""

_ONNX = {"Convolution": "Conv", "GroupConvolution": "Conv", "Reorder": "ReorderInput"}


def calls(events: Iterable[dict]) -> list[Call]:
    """Return the calls in the events of an onnxruntime profile, the first call first."""
    events = list(events)
    runs = sorted((event for event in events if event["name"] == "model_run"), key=lambda run: run["ts"])
    nodes = [event for event in events if event["cat"] == "Node" and event["name"].endswith("_kernel_time")]
    found = []
    for run in runs:
        inside = (node for node in nodes if run["ts"] <= node["ts"] < run["ts"] + run["dur"])
        found.append(Call(run["dur"] / 1e6, tuple(_clocked(node) for node in inside)))
    return found


def _clocked(event: dict[str, Any]) -> Clocked:
    op = event["args"]["op_name"]
    name = event["name"].removesuffix("_kernel_time")
    return Clocked(name, op, op.removeprefix("Fused"), event["dur"] / 1e6)
