"""The README and docs/ say what the manifest, the layers and the figures of the pictures say."""

import json
import shutil
from pathlib import Path

import pytest

from export import report
from zoo.errors import ZooError
from zoo.layers import FAMILIES, FCGeneratedConv2d, KernelWeightedConv2d
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


def cells(table: str, *first: str) -> list[str]:
    """Return the cells right of ``first`` in the one row of a Markdown table that begins with them."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [row[len(first) :] for row in rows if row[: len(first)] == list(first)]
    return found


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


def test_a_new_family_appears_in_every_table(checkout: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(KernelWeightedConv2d):
        sizes = {"vector_dim": 5}  # noqa: RUF012  as a family is written

    monkeypatch.setitem(FAMILIES, "wide", Wide)
    assert cells(report.family_table(checkout), "`wide`") == ["`Wide`", "mixing", "`vector_dim=5`"]
    narrow, wide = (cells(report.parameter_table(checkout), name) for name in ("`kw`", "`wide`"))
    # A vector is longer by one, for each of 64 x 64 kernels and in the reduction of 64 channels and its bias.
    difference = [int(cell.split()[0].replace(",", "")) for cell in (wide[0], narrow[0])]
    assert difference[0] - difference[1] == 64 * 64 + 64 + 1
    assert "`wide`" in report.multiply_table(checkout)


def test_multiplies_are_set_against_the_static_twin() -> None:
    table = report.multiply_table(report.CHECKOUT)
    static = 32 * 32 * 64 * 64 * 9
    assert cells(table, "`static`", "")[0] == f"{static:,} (1.00x)"
    generated = 64 * 4 + 4 * 4 * 9
    contract = generated + 32 * 32 * (64 * 4 * 9 + 64 * 64 * 4)
    assert FCGeneratedConv2d.sizes == {"embedding_dim": 4, "hidden_dim": "embedding_dim"}
    assert cells(table, "`fgk`", "`contract`")[0] == f"{contract:,} ({contract / static:.2f}x)"
    scaled = 64 * 4 + 64 * 64 * 4 * 4 + 32 * 32 * (64 * 4 * 9 + 64 * 64 * 4)
    # Bold, because auto chooses it.
    assert cells(table, "`fgk`", "`scaled`")[0] == f"**{scaled:,} ({scaled / static:.2f}x)**"
    unfold = generated + 64 * 64 * 4 * 9 + static
    dense = cells(table, "`fgk`", "`grouped`, `unfold`, `gather`, `single`")
    assert dense[0] == f"{unfold:,} ({unfold / static:.2f}x)"


def test_what_folds_is_a_static_convolution_in_the_end() -> None:
    parameters, multiplies = report.parameter_table(report.CHECKOUT), report.multiply_table(report.CHECKOUT)
    assert cells(parameters, "`convex`, folded") == cells(parameters, "`static`")
    folded = cells(multiplies, "`convex`", "`fold`")
    assert [cell.strip("*") for cell in folded] == cells(multiplies, "`static`", "")


def test_moves_of_kernels_are_in_percent(tmp_path: Path) -> None:
    layer = {"median": [0, 0.3, 0.02, 0.3, 0], "disc": [0, 0.01, 0.005, 0.01, 0], "other_image": 0.5}
    (tmp_path / "docs/images").mkdir(parents=True)
    record = {"model": "m_kw", "angles": [0, 45, 90, 135, 360], "layers": {"a.b": layer}}
    (tmp_path / "docs/images/m_kw.json").write_text(json.dumps(record))
    moves = cells(report.turning_table(tmp_path), "`m_kw`", "`a.b`")
    assert moves == ["50.00 %", "30.00 %", "2.00 %", "1.00 %"]


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
