"""The built wheel works away from the checkout."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

ROOT = Path(__file__).parent.parent


@pytest.mark.slow
def test_an_installed_wheel_has_its_weights(tmp_path: Path) -> None:
    pip = [
        sys.executable,
        "-m",
        "pip",
        "install",
        "-q",
        "--no-deps",
        "--target",
        str(tmp_path / "site"),
        str(ROOT),
    ]
    subprocess.run(pip, check=True)
    code = "import timm, zoo; print(zoo.__file__); timm.create_model('resnet18_dpk', pretrained=True)"
    environment = {**os.environ, "PYTHONPATH": str(tmp_path / "site")}
    environment.pop("ZOO_WEIGHTS", None)
    run = subprocess.run(
        [sys.executable, "-c", code],
        cwd=tmp_path,
        env=environment,
        capture_output=True,
        text=True,
        check=True,
    )
    assert run.stdout.startswith(str(tmp_path / "site"))
