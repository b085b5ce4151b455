"""What docs/families.md says of the layers and of how their kernels move."""

import json
from pathlib import Path

import pytest

from export.report import families
from zoo.layers import FAMILIES, FCGeneratedConv2d, KernelWeightedConv2d


def cells(table: str, *first: str) -> list[str]:
    """Return the cells right of ``first`` in the one row of a Markdown table that begins with them."""
    rows = [[cell.strip() for cell in line.strip("|").split("|")] for line in table.splitlines()]
    (found,) = [row[len(first) :] for row in rows if row[: len(first)] == list(first)]
    return found


def test_a_new_family_appears_in_every_table(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    class Wide(KernelWeightedConv2d):
        sizes = {"vector_dim": 5}  # noqa: RUF012  as a family is written

    monkeypatch.setitem(FAMILIES, "wide", Wide)
    assert cells(families.families(tmp_path), "`wide`") == ["`Wide`", "mixing", "`vector_dim=5`"]
    narrow, wide = (cells(families.parameters(tmp_path), name) for name in ("`kw`", "`wide`"))
    # A vector is longer by one, for each of 64 x 64 kernels and in the reduction of 64 channels and its bias.
    difference = [int(cell.split()[0].replace(",", "")) for cell in (wide[0], narrow[0])]
    assert difference[0] - difference[1] == 64 * 64 + 64 + 1
    assert "`wide`" in families.multiplies(tmp_path)


def test_multiplies_are_set_against_the_static_twin(tmp_path: Path) -> None:
    table = families.multiplies(tmp_path)
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


def test_what_folds_is_a_static_convolution_in_the_end(tmp_path: Path) -> None:
    parameters, multiplies = families.parameters(tmp_path), families.multiplies(tmp_path)
    assert cells(parameters, "`convex`, folded") == cells(parameters, "`static`")
    folded = cells(multiplies, "`convex`", "`fold`")
    assert [cell.strip("*") for cell in folded] == cells(multiplies, "`static`", "")


def test_moves_of_kernels_are_in_percent(tmp_path: Path) -> None:
    layer = {"median": [0, 0.3, 0.02, 0.3, 0], "disc": [0, 0.01, 0.005, 0.01, 0], "other_image": 0.5}
    (tmp_path / "docs/images").mkdir(parents=True)
    layers = {"a.b": layer, "a.c": layer | {"other_image": 0.3}}
    record = {"model": "m_kw", "angles": [0, 45, 90, 135, 360], "layers": layers}
    (tmp_path / "docs/images/m_kw.json").write_text(json.dumps(record))
    moves = cells(families.turning(tmp_path), "`m_kw`", "`a.b`")
    assert moves == ["50.00 %", "30.00 %", "2.00 %", "1.00 %"]
    assert families.turning(tmp_path).endswith(" than through any angle in 1 of 2 layers.")
