"""The README says what the manifest says."""

from pathlib import Path

import pytest

from zoo import report
from zoo.errors import ZooError
from zoo.pretrained import read_manifest

README = Path(__file__).parent.parent / "README.md"


def test_the_readme_is_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_figure_is_noticed_and_written(tmp_path: Path) -> None:
    copy = tmp_path / "README.md"
    figure = f"{read_manifest()['resnet18_kw']['figures']['top1']:.2f} %"
    copy.write_text(README.read_text().replace(figure, "99.99 %"))
    assert report.main(["--check", "--readme", str(copy)]) == 1
    assert report.main(["--readme", str(copy)]) == 0
    assert copy.read_text() == README.read_text()


def test_images_of_earlier_runs_count() -> None:
    entry = {"images_seen": 5, "started_from": {"images_seen": 10, "started_from": {"images_seen": 100}}}
    assert report.images_seen(entry) == 115


def test_missing_markers_and_files(tmp_path: Path) -> None:
    with pytest.raises(ZooError, match="has no lines"):
        report.insert("a README", "a table")
    with pytest.raises(ZooError, match=r"there is no .*NOTHING\.md"):
        report.main(["--readme", str(tmp_path / "NOTHING.md")])
