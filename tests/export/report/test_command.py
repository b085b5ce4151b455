"""The README and docs/ say what the manifest, the layers and the figures of the pictures say."""

import shutil
from pathlib import Path

import pytest

from export.report import command as report
from zoo.errors import ZooError
from zoo.pretrained import read_manifest


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Copy the files with generated tables, and the figures that some are made from."""
    shutil.copytree(report.CHECKOUT / "docs/images", tmp_path / "docs/images")
    for path in (report.CHECKOUT / "docs").glob("*.json"):
        shutil.copy(path, tmp_path / "docs")
    for name in report.TABLES:
        shutil.copy(report.CHECKOUT / name, tmp_path / name)
    return tmp_path


def test_the_tables_are_up_to_date(capsys: pytest.CaptureFixture[str]) -> None:
    assert report.main(["--check"]) == 0, capsys.readouterr().out


def test_a_changed_figure_is_noticed_and_written(checkout: Path, capsys: pytest.CaptureFixture[str]) -> None:
    top1 = f"{read_manifest()['resnet18_kw']['figures']['top1']:.2f} %"
    readme, families = checkout / "README.md", checkout / "docs/families.md"
    whole = {page: page.read_text() for page in (readme, families)}
    families.write_text(whole[families].replace("37,748,736", "1"))
    assert report.main(["--check", "--root", str(checkout)]) == 1
    assert capsys.readouterr().out == "out of date: docs/families.md; run python -m export.report\n"
    readme.write_text(whole[readme].replace(top1, "99.99 %"))
    assert "99.99 %" in readme.read_text()
    assert report.main(["--check", "--root", str(checkout)]) == 1
    stale = "out of date: README.md, docs/families.md; run python -m export.report\n"
    assert capsys.readouterr().out == stale
    assert "99.99 %" in readme.read_text()
    assert report.main(["--root", str(checkout)]) == 0
    assert {page: page.read_text() for page in (readme, families)} == whole


def test_missing_markers_and_files(checkout: Path) -> None:
    with pytest.raises(ZooError, match=r"a\.md has no lines '<!-- models: python -m export\.report -->' and"):
        report.insert("a page", "models", "a table", "a.md")
    (checkout / "README.md").unlink()
    with pytest.raises(ZooError, match=r"there is no .*README\.md; give the folder of a checkout"):
        report.main(["--root", str(checkout)])


def test_an_error_leaves_every_page_as_it_was(checkout: Path) -> None:
    readme, families = checkout / "README.md", checkout / "docs/families.md"
    stale = readme.read_text().replace("11.17 M", "1 M")
    readme.write_text(stale)
    families.write_text("no markers")
    with pytest.raises(ZooError, match=r"docs/families\.md has no lines"):
        report.main(["--root", str(checkout)])
    assert readme.read_text() == stale
