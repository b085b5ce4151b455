"""Curves along rotation, zoom and shear, and how sure a classifier is."""

import json

import pytest
import torch
from torch import Tensor, nn

from zoo.errors import ZooError
from zoo.training import invariance
from zoo.training.augment import normalise, warp
from zoo.training.data import Split
from zoo.training.evaluate import calibration_error
from zoo.training.invariance import NEUTRAL, STEPS, curves, transformation

from .helpers import make_images


class _Corner(nn.Module):
    """Says class 3 while the upper left pixel is not black, else class 0."""

    def __init__(self) -> None:
        super().__init__()
        self.unused = nn.Parameter(torch.zeros(()))

    def forward(self, x: Tensor) -> Tensor:
        seen = (x[:, :, 0, 0] > -1).any(dim=1)
        return nn.functional.one_hot(torch.where(seen, 3, 0), 10).float()


def test_rotation_by_quarters_turns_pixels() -> None:
    images = make_images(2)
    turned = warp(images, transformation("rotation", 90, 2))
    torch.testing.assert_close(turned, normalise(images).rot90(-1, (2, 3)), rtol=0, atol=1e-4)


def test_a_zoom_of_two_shows_the_middle() -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, 8:24, 8:24] = 255
    inside = slice(1, -1)  # the outermost pixels are mixed with what lies beyond
    assert (warp(image, transformation("scale", 2.0, 1))[:, :, inside, inside] == 1).all()
    assert (warp(image, transformation("scale", 0.5, 1)) == 1).float().mean() < 0.1


def test_shear_moves_rows_and_leaves_the_middle_one() -> None:
    image = torch.zeros(1, 3, 32, 32, dtype=torch.uint8)
    image[:, :, :, 16:] = 255
    edge = (warp(image, transformation("shear", 30, 1))[0, 0] > 0).float().argmax(dim=1)
    assert edge[15:17].tolist() == [16, 16]
    assert abs(int(edge[0]) - int(edge[31])) > 10
    assert edge[0] + edge[31] == pytest.approx(32, abs=2)


def test_curves_say_where_the_corner_is_lost(split: Split) -> None:
    bright = Split(
        torch.full_like(split.images, 200),
        torch.where(torch.arange(64) < 16, 3, 0),
        split.classes,
        split.source,
        split.sha256,
    )
    found = curves(_Corner(), bright, batch_size=30)
    assert found["images"] == 64
    for name, steps in STEPS.items():
        assert list(found["top1"][name]) == [str(step) for step in steps]
    quarters = {step: found["unchanged"]["rotation"][str(step)] for step in (0, 45, 90, 180, 195)}
    assert quarters == {0: 100, 45: 0, 90: 100, 180: 100, 195: 0}
    assert found["top1"]["rotation"]["0"] == 25
    assert found["top1"]["rotation"]["45"] == 75
    assert found["top1"]["scale"] == {str(step): 75.0 if step < 1 else 25.0 for step in STEPS["scale"]}
    assert {name: found["unchanged"][name][str(step)] for name, step in NEUTRAL.items()} == {
        "rotation": 100,
        "scale": 100,
        "shear": 100,
    }


def test_calibration_error_by_hand() -> None:
    sure, unsure = [0.9, 0.1], [0.6, 0.4]
    found = torch.tensor([sure, sure, unsure, unsure])
    # The sure ones are right half the time, a gap of 0.4; the unsure ones always, a gap of 0.4 the other way.
    assert calibration_error(found, torch.tensor([0, 1, 0, 0])) == pytest.approx(0.4)
    assert calibration_error(torch.eye(3), torch.arange(3)) == 0
    # Gaps of opposite sign in one bin cancel, in bins of their own they do not.
    assert calibration_error(found, torch.tensor([0, 1, 0, 0]), bins=1) == pytest.approx(0)


def test_what_was_measured_is_kept_by_model(tmp_path) -> None:
    def publish(**sha256: str) -> None:
        manifest = {name: {"file": name, "sha256": value, "bytes": 1} for name, value in sha256.items()}
        (tmp_path / "manifest.json").write_text(json.dumps(manifest))

    assert invariance.read(tmp_path) == {}
    publish(a="1", b="2")
    invariance.record("b", {"images": 1}, tmp_path)
    invariance.record("a", {"images": 2}, tmp_path)
    invariance.record("b", {"images": 3}, tmp_path)
    found = {"a": {"images": 2, "weights_sha256": "1"}, "b": {"images": 3, "weights_sha256": "2"}}
    assert invariance.read(tmp_path) == found
    publish(a="1", b="other weights")
    assert invariance.read(tmp_path) == {"a": found["a"]}
    (tmp_path / invariance.FILE).write_text("{")
    with pytest.raises(ZooError, match="is not valid JSON"):
        invariance.read(tmp_path)


def test_the_summary_is_the_mean_over_the_steps() -> None:
    top1 = {name: {str(step): 50.0 for step in steps} for name, steps in STEPS.items()}
    unchanged = json.loads(json.dumps(top1))
    unchanged["shear"]["5"] = 50.0 + 12 * 10
    for name, step in (("rotation", "0"), ("scale", "1.0"), ("shear", "0")):
        unchanged[name][step] = 100.0  # by definition, so that it is left out
    top1["scale"]["1.0"] = 50.0 + 11
    found = {"images": 9, "top1": top1, "unchanged": unchanged}
    text = invariance.summary("m", found)
    assert "m: top-1 (unchanged predictions) of 9 images" in text
    assert "rotation 50.0 % (50.0 %), scale 51.0 % (50.0 %), shear 50.0 % (60.0 %)" in text
