"""Certified deployment artifacts of dynamic-kernel networks.

``python -m export.onnx --model resnet18_kw``, and ``export.torchscript``, ``export.pt2`` and
``export.openvino`` alike, write a file and hold it against the eager model before it gets its name;
``python -m export`` says what this machine can run. From Python::

    import export.onnx
    certificate = export.onnx.export("resnet18_kw", "resnet18_kw.onnx")

Importing this package imports no framework; a missing one matters only when it is used.
"""

import importlib
from typing import Any

_PUBLIC = {
    "RUNTIMES": "export.base",
    "ExportOptions": "export.base",
    "Runtime": "export.base",
    "runtime": "export.base",
    "Certificate": "export.certificate",
    "CertificateError": "export.certificate",
    "Check": "export.certificate",
    "certify": "export.parity",
    "reference": "export.parity",
}

__all__ = list(_PUBLIC)


def __getattr__(name: str) -> Any:
    if name not in _PUBLIC:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(importlib.import_module(_PUBLIC[name]), name)


def __dir__() -> list[str]:
    return sorted([*globals(), *__all__])
