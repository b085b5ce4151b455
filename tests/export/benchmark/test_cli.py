import json

import pytest
import torch

from export.benchmark.arguments import parse
from export.benchmark.ceilings import ceilings
from export.benchmark.cli import main
from export.benchmark.clocks import CLOCKS
from export.benchmark.engines import ENGINES
from export.benchmark.subjects import Subjects
from zoo.cli import run
from zoo.errors import ZooError

QUICK = (
    "--model benchnet_kw --quick --runtimes torchscript --batch 1 --rounds 5 --seconds 0.1 --no-pretrained"
)


def results(folder):
    files = (path for path in folder.iterdir() if path.is_file() and path.suffix != ".png")
    return {path.name: path.read_text() for path in files}


def test_quick_measures_onnx_alone_unless_told_otherwise():
    quick, usual = parse(["--quick"]), parse([])
    assert (quick.runtimes, quick.batch, quick.devices) == (["onnx"], [1, 8], ["cpu"])
    assert quick.rounds < usual.rounds
    assert quick.seconds * len(quick.batch) < 30
    assert parse(["--quick", "--batch", "2", "--rounds", "7"]).batch == [2]
    assert "eager" in usual.runtimes
    assert not any(ENGINES[name].slow for name in usual.runtimes)
    assert parse(["--runtimes", "all"]).runtimes == list(ENGINES)


@pytest.mark.parametrize(
    ("words", "passes"),
    [([], 3), (["--rounds", "14"], 2), (["--rounds", "3"], 1), (["--quick"], 1), (["--passes", "2"], 2)],
)
def test_rounds_are_spread_over_as_many_passes_as_they_suffice_for(words, passes):
    assert parse(words).passes == passes


def test_a_run_from_the_command_line(tmp_path, capsys):
    folder, alone = tmp_path / "out", tmp_path / "alone.json"
    assert main([*QUICK.split(), "--output", str(folder), "--json", str(alone)]) == 0
    printed = capsys.readouterr().out
    assert "2 candidates, static twins included" in printed
    assert "benchnet_kw" in printed
    assert "no accuracy_latency.png: none of the models has a top-1" in printed
    written = results(folder)
    assert written.keys() == {"results.json", "results.csv", "table.md"}
    assert alone.read_text() == written["results.json"]
    command = json.loads(written["results.json"])["command"]
    assert command.startswith(f"python -m export.benchmark {QUICK} --output ")
    assert command.endswith(f".../{tmp_path.name}/alone.json")  # no folder of this machine
    assert str(tmp_path) not in command
    assert {row["model"] for row in json.loads(written["results.json"])["results"]} == {
        "benchnet_static",
        "benchnet_kw",
    }

    # The tables alone, and no file where none was asked for.
    before = results(tmp_path)
    assert main(["--render", str(alone)]) == 0
    assert "benchnet_kw" in capsys.readouterr().out
    assert results(tmp_path) == before

    # The same files again, from the JSON alone, and nothing has moved since.
    again = tmp_path / "again"
    assert main(["--render", str(alone), "--output", str(again), "--against", str(alone)]) == 0
    assert results(again) == written
    assert "0 of 1 moved beyond the noise" in capsys.readouterr().out


def test_a_breakdown_from_the_command_line(tmp_path, capsys):
    argv = f"--breakdown benchnet_dpk --batch 1 2 --rounds 5 --no-pretrained --output {tmp_path} "
    argv += f"--json {tmp_path}/parts.json"
    assert main(argv.split()) == 0
    printed = capsys.readouterr().out
    for words in (
        "benchnet_dpk, onnx, batch 1",
        "benchnet_dpk, onnx, batch 2",
        "benchnet_static",
    ):
        assert words in printed
    assert (tmp_path / "breakdown.txt").read_text().count("kind") == 4
    command = json.loads((tmp_path / "parts.json").read_text())["command"]
    assert command.startswith("python -m export.benchmark --breakdown benchnet_dpk --batch 1 2 ")
    assert str(tmp_path) not in command


def test_all_runtimes_of_a_breakdown_are_those_with_clocks():
    args = parse(["--breakdown", "benchnet_dpk", "--runtimes", "all"])
    assert args.runtimes == list(CLOCKS)


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--breakdown benchnet_kw --runtimes eager", "knows the clocks of onnx and openvino, not of eager"),
        ("--breakdown benchnet_kw --model benchnet_kw", "has no use for --models; leave it out"),
        ("--breakdown benchnet_kw --no-memory", "has no use for --no-memory; leave it out"),
        ("--render some.json --batch 3", "--render measures nothing and has no use for --batch"),
        ("--render some.json --json other.json", "has no use for --json; leave it out"),
        ("--model benchnet_kw --cuda-graphs --devices cpu", "--cuda-graphs is for CUDA; name it with"),
        ("--model benchnet_kw --certify --lowerings tune", "--certify does not go with the lowering tune"),
        ("--model benchnet_kw --certify --dtypes int8", "--certify does not go with int8"),
        (
            "--model benchnet_kw --certify --runtimes eager aoti",
            "--certify does nothing for eager, aoti; add",
        ),
        ("--model benchnet_kw --quick --no-memory", "--quick has no use for --no-memory, which it implies"),
        ("--model benchnet_kw --quick --no-peers", "--quick has no use for --no-peers, which it implies"),
        ("--model benchnet_kw --fixed-batch --runtimes eager", "--fixed-batch does nothing for eager, of no"),
        ("--breakdown benchnet_kw --fixed-batch", "has no use for --fixed-batch"),
        ("--model benchnet_kw --cuda-graphs --runtimes aoti openvino", "does nothing for aoti, openvino"),
        ("--breakdown benchnet_condconv --lowerings auto timm", "leave the lowering timm out"),
        ("--model benchnet_kw --data somewhere", "--data is for the ranges of int8 alone; add --dtypes int8"),
        ("--model resnet18_fgk --quick --dtypes int8", "int8 of resnet18_static's trained weights needs"),
    ],
)
def test_options_that_would_do_nothing_are_refused(words, said, capsys):
    assert run(main, words.split()) == 2
    assert said in capsys.readouterr().err


def test_options_that_do_something_for_one_runtime_are_taken():
    assert parse(["--certify", "--runtimes", "eager", "pt2"]).certify
    assert parse(["--certify"]).certify
    assert parse(["--cuda-graphs", "--runtimes", "openvino", "onnx"]).cuda_graphs
    assert parse(["--certify", "--runtimes", "onxn"]).runtimes == ["onxn"]  # for the plan to refuse


def test_the_roofs_of_a_machine_leave_its_threads_alone():
    before = torch.get_num_threads()
    found = ceilings(1, numbers=1 << 20, side=256)
    assert torch.get_num_threads() == before
    assert 1e8 < found["read"] < 1e13
    assert 1e8 < found["product"] < 1e14


def test_a_breakdown_of_a_static_model_alone(capsys):
    argv = "--breakdown benchnet_static --batch 1 2 --rounds 5 --no-pretrained"
    assert main(argv.split()) == 0
    printed = capsys.readouterr().out
    assert "benchnet_static, onnx, batch 1" in printed
    assert "benchnet_static, onnx, batch 2" in printed


def test_one_error_leaves_the_rest_of_a_breakdown(monkeypatch, capsys, tmp_path):
    deployed = Subjects.deployed

    def picky(self, name, *way):
        if name in lacking:
            raise ZooError("no such layer.")
        return deployed(self, name, *way)

    monkeypatch.setattr(Subjects, "deployed", picky)
    lacking = {"benchnet_kw"}
    argv = "--breakdown benchnet_kw benchnet_dpk --batch 1 --rounds 5 --no-pretrained"
    argv += f" --output {tmp_path} --json {tmp_path}/breakdown.json"
    assert run(main, argv.split()) == 0
    assert "skipped benchnet_kw, batch 1: no such layer." in capsys.readouterr().out
    assert "benchnet_dpk, onnx, batch 1" in (tmp_path / "breakdown.txt").read_text()
    profiles = json.loads((tmp_path / "breakdown.json").read_text())["profiles"]
    assert {each["model"] for each in profiles} == {"benchnet_dpk", "benchnet_static"}

    (tmp_path / "breakdown.txt").unlink()
    lacking = {"benchnet_kw", "benchnet_dpk", "benchnet_static"}
    assert run(main, argv.split()) == 2
    error = capsys.readouterr().err
    assert error == "error: nothing could be profiled: skipped benchnet_dpk, batch 1: no such layer.\n"
    assert not (tmp_path / "breakdown.txt").exists()


def test_a_breakdown_says_what_it_does_not_profile(capsys):
    argv = "--breakdown benchnet_kw --lowerings auto experts --batch 1 --rounds 5 --no-pretrained"
    assert main(argv.split()) == 0
    assert "benchnet_kw has no lowering experts: skipped" in capsys.readouterr().out


def test_a_wrong_candidate_is_exit_code_1(monkeypatch, capsys):
    deployed = Subjects.deployed

    def other(self, name, *way):
        model = deployed(self, name, *way)
        if name == "benchnet_kw":
            next(model.parameters()).data *= 1.1
        return model

    monkeypatch.setattr(Subjects, "deployed", other)
    assert run(main, QUICK.split()) == 1
    printed = capsys.readouterr().out
    assert "refused benchnet_kw on torchscript, batch 1: off by" in printed
    assert "twin" in printed
    assert run(main, ["--breakdown", "benchnet_kw", "--batch", "1", "--rounds", "5", "--no-pretrained"]) == 1
    printed = capsys.readouterr().out
    assert "refused benchnet_kw, batch 1: " in printed
    assert "benchnet_static, onnx, batch 1" in printed


@pytest.mark.parametrize(
    ("argv", "words"),
    [
        ("--model benchnet_kv", "no model matches 'benchnet_kv'. Did you mean "),
        ("--model benchnet_kw --runtimes onxn", "unknown runtime 'onxn'"),
        ("--model benchnet_kw --batch 0", "0 is not a batch size"),
        ("--model benchnet_kw --rounds 2", "2 rounds say nothing about noise"),
        ("--model benchnet_kw --seconds 0", "0 seconds are no time"),
        ("--model benchnet_kw --seconds inf", "inf seconds are no time"),
        ("--model benchnet_kw --seed -1", "--seed is -1; give a whole number from 0"),
        ("--model benchnet_kw --json .", "cannot write .: it is a folder; name a file in it"),
        ("--model benchnet_kw --against none.json", "cannot read none.json: No such file"),
        ("--model benchnet_kw --output none/of/these", "cannot write to none/of/these"),
        ("--model benchnet_kw --json none/file.json", "cannot write to none: it is no folder"),
        ("--render none.json", "cannot read none.json"),
        ("--breakdown benchnet_kv", "no model matches 'benchnet_kv'"),
        ("--breakdown benchnet_kw --lowerings unfolded", "unknown lowering 'unfolded'"),
        ("--breakdown benchnet_kw --batch 0", "0 is not a batch size"),
        ("--breakdown benchnet_kw --rounds 0", "0 rounds say nothing"),
    ],
)
def test_bad_input_is_one_sentence(argv, words, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(main, argv.split()) == 2
    error = capsys.readouterr().err
    assert error.startswith(f"error: {words}")
    assert error.count("\n") == 1
