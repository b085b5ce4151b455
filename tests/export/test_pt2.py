import io
import json
import operator
import subprocess
import sys
import zipfile

import numpy as np
import pytest
import torch
from torch import nn

import export.pt2
from export.base import ExportOptions, runtime
from export.benchmark.inductor import SETTINGS
from export.benchmark.networks import no_compiler
from export.parity import prepared, reference
from zoo.errors import ZooError
from zoo.layers import FAMILIES

SIZE = (3, 12, 10)
SIZED = ExportOptions(input_size=SIZE)


@pytest.fixture(scope="module")
def model(small):
    return small("kw")


@pytest.fixture(scope="module")
def path(model, tmp_path_factory):
    """Return the model's program, certified."""
    path = tmp_path_factory.mktemp("pt2") / "net.pt2"
    export.pt2.export(model, path, input_size=SIZE, metadata={"owner": "us"})
    return path


@pytest.mark.parametrize("family", FAMILIES)
def test_the_program_is_of_torchs_operators_for_any_batch(family, small, tmp_path):
    runtime("pt2").export(prepared(small(family), "auto"), tmp_path / "net.pt2", SIZED)
    program = torch.export.load(tmp_path / "net.pt2")
    called = {node.target for node in program.graph.nodes if node.op == "call_function"}
    arithmetic = {operator.getitem, operator.add, operator.mul, operator.floordiv}
    assert {getattr(target, "namespace", "other") for target in called - arithmetic} == {"aten"}
    (batch,) = program.range_constraints.values()
    assert (batch.lower <= 1, batch.upper > 2**30) == (True, True)


def test_the_file_names_no_source_file(path):
    with zipfile.ZipFile(path) as archive:
        assert not [name for name in archive.namelist() if b".py" in archive.read(name)]


def test_it_runs_and_says_what_it_is_without_this_project(path, model, tmp_path):
    """In a process that cannot import it."""
    images = np.random.default_rng(0).standard_normal((3, *SIZE), dtype=np.float32)
    np.save(tmp_path / "images.npy", images)
    code = (
        "import sys, json, numpy, torch; sys.modules['zoo'] = sys.modules['export'] = None;"
        "known = {'metadata.json': ''};"
        f"model = torch.export.load({str(path)!r}, extra_files=known).module();"
        "assert json.loads(known['metadata.json'])['owner'] == 'us';"
        "images = torch.from_numpy(numpy.load('images.npy'));"
        "numpy.save('logits.npy', model(images).detach().numpy())"
    )
    subprocess.run([sys.executable, "-c", code], check=True, cwd=tmp_path)
    want = reference(model)(images)
    assert np.abs(np.load(tmp_path / "logits.npy") - want).max() <= 1e-4 * np.abs(want).max()


def test_a_note_leaves_the_rest_byte_for_byte(path, tmp_path):
    copy = tmp_path / "copy"
    copy.write_bytes(path.read_bytes())
    runtime("pt2").annotate(copy, {"owner": "us"})
    assert runtime("pt2").metadata(copy) == {"owner": "us"}

    def parts(path):
        with zipfile.ZipFile(path) as archive:
            # the first folder is the archive's name
            found = {name.partition("/")[2]: archive.read(name) for name in archive.namelist()}
        assert found.pop("extra/metadata.json")
        return {name: content for name, content in found.items() if not name.startswith(".data/")}

    assert parts(copy) == parts(path)


def test_an_archive_of_another_kind_is_one_sentence(tmp_path):
    from torch.export.pt2_archive import PT2ArchiveWriter

    content = io.BytesIO()
    with PT2ArchiveWriter(content) as writer:
        writer.write_string("data/aotinductor/model/note", "a compiled library")
    (tmp_path / "library.pt2").write_bytes(content.getvalue())
    with pytest.raises(ZooError, match=r"cannot load \S*library\.pt2: it is a PT2 archive without a program"):
        runtime("pt2").load(tmp_path / "library.pt2")


def test_a_damaged_program_is_one_sentence(path, tmp_path):
    with zipfile.ZipFile(path) as archive:
        (model,) = [name for name in archive.namelist() if "/models/" in name]
        content = archive.read(model)
    whole, damaged = path.read_bytes(), tmp_path / "damaged.pt2"
    assert whole.count(content[:200]) == 1, "stored as it is"
    damaged.write_bytes(whole.replace(content[:200], b"?" * 200))
    with pytest.raises(ZooError, match=r"torch cannot load \S*damaged\.pt2: [^\n]*$"):
        runtime("pt2").load(damaged)


def test_half_an_archive_is_one_sentence(path, tmp_path):
    """Whatever is asked of it."""
    content = path.read_bytes()
    half = tmp_path / "half.pt2"
    half.write_bytes(content[: len(content) // 2])
    format = runtime("pt2")
    for ask in (format.load, format.metadata, lambda path: format.annotate(path, {})):
        with pytest.raises(ZooError, match=r"cannot load \S*half\.pt2: [^\n]*$"):
            ask(half)
    assert half.read_bytes() == content[: len(content) // 2]


def test_a_name_without_a_suffix_is_loaded_in_silence(path, tmp_path, caplog):
    (tmp_path / "net").write_bytes(path.read_bytes())
    with caplog.at_level("WARNING"):
        assert runtime("pt2").load(tmp_path / "net")(np.zeros((2, *SIZE), np.float32)).shape == (2, 7)
    assert not caplog.records


def test_a_model_that_torch_cannot_capture_is_one_sentence(tmp_path):
    class Awkward(nn.Module):
        def forward(self, x):
            return x.mean((2, 3)) if x.sum().item() > 0 else x.amax((2, 3))

    with pytest.raises(ZooError, match=r"torch\.export cannot express the model: [^\n]*$"):
        export.pt2.export(Awkward(), tmp_path / "net.pt2", input_size=SIZE)
    assert not any(tmp_path.iterdir())


def test_the_docstring_compiles_as_the_benchmark_does():
    assert f"inductor_configs={json.dumps(SETTINGS)}".replace("true", "True").replace("false", "False") in (
        export.pt2.__doc__ or ""
    )


@pytest.mark.slow
def test_aotinductor_compiles_it_for_any_batch(path, tmp_path):
    if reason := no_compiler():
        pytest.skip(reason)
    library = str(tmp_path / "net.aoti.pt2")
    program = torch.export.load(path)
    torch._inductor.aoti_compile_and_package(program, package_path=library, inductor_configs=SETTINGS)
    compiled = torch._inductor.aoti_load_package(library)
    for batch in (1, 2, 5):
        images = np.random.default_rng(batch).standard_normal((batch, *SIZE), dtype=np.float32)
        found = compiled(torch.from_numpy(images)).numpy()
        assert np.allclose(found, runtime("pt2").load(path)(images), rtol=1e-4, atol=1e-5)
