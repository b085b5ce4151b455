"""Which models are run how: every choice crossed with every other, without what cannot be."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from itertools import product

from export.base import AUTO, FP32, RUNTIMES, TUNE
from export.benchmark.engine import FileEngine
from export.benchmark.engines import ENGINES, refusal
from export.benchmark.subjects import PEERS, TIMM, family_of, twin_of
from export.benchmark.text import threads_of
from zoo.errors import ZooError, nearest
from zoo.layers import FAMILIES, LOWERINGS, common_lowerings
from zoo.models import check_name, create_model, list_models

EVERY = "all"
_ORDER = ("threads", "batch", "runtime", "device", "dtype")


@dataclass(frozen=True)
class Candidate:
    """One row of the table.

    Attributes:
        model: a name of the zoo.
        runtime: a key of ``ENGINES``.
        device: one of the engine's.
        dtype: one of the engine's.
        lowering: ``auto``, ``tune``, one of ``zoo.layers.LOWERINGS``, or ``timm`` for CondConv as timm writes
            it.
        batch: images in one call.
        threads: that an operator may use.
        fixed: whether its artifact is made for this batch size alone, though the lowering needs no such.
        cores: how far its threads' cores were apart, see :mod:`export.benchmark.handoff`; empty where nobody
            knows, and before it was measured.
    """

    model: str
    runtime: str = "onnx"
    device: str = "cpu"
    dtype: str = FP32
    lowering: str = AUTO
    batch: int = 1
    threads: int = 1
    fixed: bool = False
    cores: str = ""

    @property
    def label(self) -> str:
        """The model's name, with the lowering where it is not the model's own choice."""
        return self.model if self.lowering == AUTO else f"{self.model} ({self.lowering})"

    @property
    def where(self) -> str:
        """The runtime, with what is not as usual: the device, the dtype, and whether the batch is fixed."""
        unusual = [word for word in (self.device, self.dtype) if word not in ("cpu", FP32)]
        unusual += ["fixed"] * self.fixed
        return " ".join([self.runtime, *unusual])

    @property
    def how(self) -> str:
        """Everything but the model, as a title."""
        return f"{self.where}, batch {self.batch}, {threads_of(self.threads, self.cores)}"

    @property
    def on(self) -> str:
        """The number of threads, with how far their cores were apart where that is known."""
        return f"{self.threads} {self.cores}".strip()

    @property
    def is_static(self) -> bool:
        """Whether this is a static twin."""
        return self.model == twin_of(self.model)

    @property
    def is_usual(self) -> bool:
        """Whether it is as exports are unless asked for something else, on the CPU."""
        return (self.device, self.dtype, self.lowering, self.fixed) == ("cpu", FP32, AUTO, False)

    @property
    def frozen(self) -> bool:
        """Whether an artifact of it has one batch size only."""
        unable = self.lowering in LOWERINGS and LOWERINGS[self.lowering].batch != "any"
        return self.fixed or unable or self.lowering == TIMM

    @property
    def twin(self) -> "Candidate":
        """The static twin, run alike; it is its own.

        Its artifact has a dynamic batch even where this one's lowering cannot: it is what would be deployed.
        """
        return replace(self, model=twin_of(self.model), lowering=AUTO)


@dataclass(frozen=True)
class Request:
    """What the caller would like to see measured; the fields of :class:`Candidate` in the plural.

    Attributes:
        peers: whether what people run today joins the table, where a model has such a counterpart.
        fixed: whether artifacts are made for one batch size each, where a runtime has artifacts.

    Raises:
        ZooError: a word that nothing is called, or a number below 1.
    """

    models: Sequence[str]
    runtimes: Sequence[str] = ("onnx",)
    devices: Sequence[str] = ("cpu",)
    dtypes: Sequence[str] = (FP32,)
    lowerings: Sequence[str] = (AUTO,)
    batches: Sequence[int] = (1, 8)
    threads: Sequence[int] = (1,)
    peers: bool = True
    fixed: bool = False

    def __post_init__(self) -> None:
        for name in self.models:
            check_name(name)
        _check_words("runtime", self.runtimes, ENGINES)
        _check_words("lowering", self.lowerings, (AUTO, TUNE, *LOWERINGS, TIMM, EVERY))
        _check_words(
            "device", self.devices, {device for engine in ENGINES.values() for device in engine.devices}
        )
        _check_words("dtype", self.dtypes, {dtype for engine in ENGINES.values() for dtype in engine.dtypes})
        for title, numbers in (("batch size", self.batches), ("number of threads", self.threads)):
            if wrong := [number for number in numbers if number < 1]:
                raise ZooError(f"{wrong[0]} is not a {title}; give whole numbers from 1.")


@dataclass(frozen=True)
class Plan:
    """What will be measured, twins included, and why the rest will not."""

    candidates: tuple[Candidate, ...]
    notes: tuple[str, ...]


def plan(request: Request) -> Plan:
    """Return the candidates of a request, each once, a static twin beside every dynamic model.

    Raises:
        ZooError: nothing of it can be measured here.
    """
    ways, notes = _ways(request)
    found: dict[Candidate, None] = {}
    for model in request.models:
        lowerings, lacking = _lowerings(model, request)
        notes += lacking
        for way, threads, batch, lowering in product(ways, request.threads, request.batches, lowerings):
            runtime, device, dtype = way
            fixed = request.fixed and isinstance(ENGINES[runtime], FileEngine)
            candidate = Candidate(model, runtime, device, dtype, lowering, batch, threads, fixed)
            if lowering in LOWERINGS and LOWERINGS[lowering].batch == "one" and batch != 1:
                notes.append(f"lowering {lowering} is right at batch 1 only: skipped at others")
                continue
            if lowering == TUNE and runtime not in RUNTIMES:
                notes.append(f"{runtime} is no format to tune for: lowering {TUNE} skipped")
                continue
            found.update(dict.fromkeys((candidate.twin, candidate)))
    if not found:
        raise ZooError(f"nothing to measure: {'; '.join(dict.fromkeys(notes)) or 'no model was given'}.")
    if absent := [name for name in {each.model for each in found} if name not in list_models()]:
        raise ZooError(f"the static twin {absent[0]} is not registered, so there is nothing to compare with.")
    ordered = sorted(found, key=lambda each: tuple(getattr(each, name) for name in _ORDER))
    return Plan(tuple(ordered), tuple(dict.fromkeys(notes)))


def _ways(request: Request) -> tuple[list[tuple[str, str, str]], list[str]]:
    """Return (runtime, device, dtype) as far as they run here, and the reasons why the others do not."""
    ways: list[tuple[str, str, str]] = []
    refused: dict[tuple[str, str], dict[str, None]] = {}
    for name, device, dtype in product(request.runtimes, request.devices, request.dtypes):
        reason = refusal(name, device, dtype)
        if reason is None:
            ways.append((name, device, dtype))
        else:
            refused.setdefault((device, reason), {})[name] = None
    notes = [
        f"skipped {', '.join(names)} on {device}: {reason}" for (device, reason), names in refused.items()
    ]
    return ways, notes


def _lowerings(model: str, request: Request) -> tuple[list[str], list[str]]:
    """Return the lowerings of a model that are asked for, and notes about those that it lacks."""
    family = family_of(model)
    if family not in FAMILIES:  # static, or an attention module: nothing to choose
        return [AUTO], []
    own = [TUNE, *common_lowerings(create_model(model))]
    if PEERS.get(family) == TIMM:
        own = [*own, TIMM]
    peers = [PEERS[family]] if request.peers and family in PEERS else []
    notes = [
        f"{model} has no lowering {name}: skipped"
        for name in request.lowerings
        if name not in (AUTO, EVERY, *own)
    ]
    return list(dict.fromkeys([*_expanded(request.lowerings, own), *peers])), notes


def _expanded(asked: Iterable[str], own: Sequence[str]) -> Iterator[str]:
    for name in asked:
        if name == EVERY:
            yield from (AUTO, *(each for each in own if each in LOWERINGS))
        elif name == AUTO or name in own:
            yield name


def _check_words(title: str, words: Sequence[str], known: Iterable[str]) -> None:
    known = list(known)
    for word in words:
        if word not in known:
            raise ZooError(f"unknown {title} {word!r}; there are {', '.join(known)}.{nearest(word, known)}")
