"""What the figures depend on beyond the models: the machine, the software, and who else was busy."""

import datetime
import os
import platform
from collections.abc import Mapping
from typing import Any

import torch

import zoo
from export.base import installed
from zoo.machine import commit, cpu_model, usable_cores

FACTS = {
    "date", "cpu", "isa", "cores", "usable_cores", "gpu", "os", "python", "versions", "variables", "commit",
    "load",
}  # fmt: skip
"""What :func:`environment` finds out."""

_PACKAGES = ("torch", "onnxruntime", "onnx", "onnxscript", "openvino", "timm", "numpy")
_VARIABLES = ("OMP_NUM_THREADS", "OMP_WAIT_POLICY", "KMP_AFFINITY", "MKL_NUM_THREADS", "NVIDIA_TF32_OVERRIDE")


def environment() -> dict[str, Any]:
    """Return the facts, without the name of the machine or of anyone's folder.

    What cannot be found out is None.
    """
    return {
        "date": datetime.datetime.now(datetime.UTC).isoformat(timespec="seconds"),
        "cpu": cpu_model(),
        "isa": torch.backends.cpu.get_cpu_capability(),
        "cores": os.cpu_count(),
        "usable_cores": usable_cores(),
        "gpu": torch.cuda.get_device_name() if torch.cuda.is_available() else None,
        "os": platform.platform(),
        "python": platform.python_version(),
        "versions": {"zoo": zoo.__version__, **{name: installed(name) for name in _PACKAGES}},
        "variables": {name: os.environ[name] for name in _VARIABLES if name in os.environ},
        "commit": commit(),
        "load": load_average(),
    }


def on_whole_machine(facts: Mapping[str, Any]) -> bool:
    """Tell whether all of the machine's cores were the run's to use, where the system says so."""
    usable, cores = facts.get("usable_cores"), facts.get("cores")  # early files do not say
    return usable is None or cores is None or usable >= cores


def machine(facts: Mapping[str, Any]) -> str:
    """Return the processor that ``facts`` name and its instructions: makers give several one name."""
    return f"{facts['cpu']} ({facts['isa']})"


def load_average() -> float | None:
    """Return how many processes wanted to run in the last minute, where the system counts them."""
    return round(os.getloadavg()[0], 2) if hasattr(os, "getloadavg") else None
