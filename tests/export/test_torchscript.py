import ctypes
import gc
import resource
import sys
from pathlib import Path

import pytest
import torch
from torch import nn

import export.torchscript
from export.base import ExportOptions, runtime


def test_the_trace_is_frozen_and_needs_no_code_of_this_project(small, tmp_path):
    export.torchscript.export(small("fgk"), tmp_path / "net.pt", input_size=(3, 12, 10))
    module = torch.jit.load(str(tmp_path / "net.pt"))
    assert not list(module.parameters())
    assert "zoo" not in module.code


@pytest.mark.skipif(sys.platform != "linux", reason="reads the resident memory as Linux tells it")
def test_exported_models_are_let_go(tmp_path):
    """torch.jit.freeze keeps what it traced itself until the process ends."""
    kept = []
    for _ in range(6):
        model = nn.Sequential(nn.Flatten(), nn.Linear(3 * 32 * 32, 2048, bias=False)).eval()
        runtime("torchscript").export(model, tmp_path / "model.pt", ExportOptions(input_size=(3, 32, 32)))
        size = 4 * model[1].weight.numel()  # 25 MB
        del model
        gc.collect()
        ctypes.CDLL(None).malloc_trim(0)
        kept.append(int(Path("/proc/self/statm").read_text().split()[1]) * resource.getpagesize())
    assert kept[-1] - kept[1] < 2 * size, "four more exports"
