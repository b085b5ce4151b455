"""Weights: where they are found, how damage is reported, how they are stored."""

import functools
import json
import shutil
import subprocess
import sys
from pathlib import Path

import pytest
import timm
import torch
from safetensors.torch import load_file, save_file

import zoo
from zoo import pretrained
from zoo.errors import ZooError
from zoo.layers import constrain, dynamic_layers, settle
from zoo.pretrained import trained_on
from zoo.training.evaluate import probe

NAME = "resnet10_dpk"
TRAINED = sorted(pretrained.read_manifest())
#: Least clean top-1, in percent, of weights that must be here.
FLOORS = {
    "resnet18_static": 86,
    "resnet18_kw": 86,
    "resnet18_fgk": 86,
    "resnet18_dpk": 77,
    "mobilenetv3_small_100_static": 86,
    "mobilenetv3_small_100_kw": 86,
    "mobilenetv3_small_100_fgk": 85,
    "mobilenetv3_small_100_dpk": 82,
}
#: And of any others.
FLOOR = 80
#: Most that the weights folder may take in a checkout and in the wheel, in bytes.
MOST = 150_000_000


@pytest.fixture
def weights(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A weights folder of our own with one small published model."""
    monkeypatch.setenv("ZOO_WEIGHTS", str(tmp_path))
    pretrained.publish(NAME, timm.create_model(NAME).state_dict(), {"epochs": 1})
    return tmp_path


def load(folder: Path) -> torch.nn.Module:
    overlay = {"file": str(folder / f"{NAME}.safetensors")}
    return timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay).eval()


def test_published_weights_are_fp16_and_load(weights: Path) -> None:
    stored = load_file(weights / f"{NAME}.safetensors")
    floats = {value.dtype for value in stored.values() if value.is_floating_point()}
    assert floats == {torch.float16}
    for key, value in load(weights).state_dict().items():
        torch.testing.assert_close(value, stored[key].to(value.dtype), rtol=0, atol=0)


def test_the_same_weights_are_the_same_file(weights: Path) -> None:
    path = weights / f"{NAME}.safetensors"
    state = load_file(path)
    first = path.read_bytes()
    for _ in range(8):  # an order left to chance would agree now and then
        pretrained.publish(NAME, state, {"epochs": 1})
        assert path.read_bytes() == first


def test_the_manifest_describes_the_file(weights: Path) -> None:
    entry = json.loads((weights / "manifest.json").read_text())[NAME]
    path = weights / entry["file"]
    assert entry["bytes"] == path.stat().st_size
    assert entry["sha256"] == pretrained.file_sha256(path)
    assert entry["epochs"] == 1


def test_new_figures_replace_all_old_ones(weights: Path) -> None:
    pretrained.record_figures(NAME, {"top1_augmented": 60.0, "top1_augmented_std": 0.5})
    pretrained.record_figures(NAME, {"top1_augmented": 40.0})
    assert pretrained.manifest_entry(NAME)["figures"] == {"top1_augmented": 40.0}
    with pytest.raises(ZooError, match="the manifest has no weights of resnet18_nothing"):
        pretrained.record_figures("resnet18_nothing", {})


def test_missing_weights(weights: Path) -> None:
    (weights / f"{NAME}.safetensors").unlink()
    with pytest.raises(
        ZooError, match=rf"the weights of {NAME} are missing: .*{NAME}\.safetensors does not exist"
    ):
        load(weights)


def test_truncated_weights(weights: Path) -> None:
    path = weights / f"{NAME}.safetensors"
    path.write_bytes(path.read_bytes()[:-1000])
    with pytest.raises(ZooError, match=rf"the weights of {NAME} are damaged: .* bytes, not"):
        load(weights)


def test_altered_weights(weights: Path) -> None:
    path = weights / f"{NAME}.safetensors"
    content = bytearray(path.read_bytes())
    content[-1] ^= 1
    path.write_bytes(bytes(content))
    with pytest.raises(ZooError, match=rf"the weights of {NAME} are altered: .* has sha256"):
        load(weights)


def test_no_weights_yet() -> None:
    untrained = next(name for name in zoo.list_models() if name not in TRAINED)
    with pytest.raises(ZooError, match=f"{untrained} has no trained weights yet"):
        zoo.create_model(untrained, pretrained=True)
    with pytest.raises(RuntimeError, match=f"No pretrained weights exist for {untrained}"):
        timm.create_model(untrained, pretrained=True)


def test_a_checkpoint_of_another_model(weights: Path, tmp_path: Path) -> None:
    path = tmp_path / "other.safetensors"
    save_file({"fc.weight": torch.zeros(3)}, path)
    with pytest.raises(ZooError, match=r"does not fit the model: .* tensors differ"):
        zoo.create_model(NAME, checkpoint=path)
    path.write_bytes(b"not safetensors")
    with pytest.raises(ZooError, match="is not a readable safetensors file"):
        zoo.create_model(NAME, checkpoint=path)


@pytest.mark.parametrize("features_only", [False, True])
@pytest.mark.parametrize(
    "arguments", [{"stages": (3,)}, {"where": "all"}, {"stem": "imagenet"}, {"layer_args": {"key_dim": 3}}]
)
def test_arguments_that_make_another_model(weights: Path, arguments: dict, features_only: bool) -> None:
    overlay = {"file": str(weights / f"{NAME}.safetensors")}
    create = functools.partial(
        timm.create_model, NAME, features_only=features_only, pretrained_cfg_overlay=overlay, **arguments
    )
    (name,) = arguments
    with pytest.raises(ZooError, match=rf"the weights of {NAME} do not fit {name}=.*: \S+ differs; leave"):
        create(pretrained=True)
    overlay["file"] = str(weights / "own.safetensors")
    save_file(timm.create_model(NAME, **arguments).state_dict(), overlay["file"])
    assert create(pretrained=True, in_chans=1)(torch.randn(1, 1, 64, 64))[0] is not None


def test_arguments_that_change_nothing(weights: Path) -> None:
    overlay = {"file": str(weights / f"{NAME}.safetensors")}
    arguments = {"stages": range(4), "stem": "cifar", "layer_args": {"bank_size": 4}, "num_classes": 3}
    timm.create_model(NAME, pretrained=True, pretrained_cfg_overlay=overlay, **arguments)


def test_a_failed_publish_leaves_the_old_weights(weights: Path) -> None:
    before = {path.name: path.read_bytes() for path in weights.iterdir()}
    state = timm.create_model(NAME).state_dict()
    state["fc.weight"] = state["fc.weight"] + 1e6
    with pytest.raises(ZooError, match=r"do not fit fp16: fc\.weight"):
        pretrained.publish(NAME, state, {})
    assert {path.name: path.read_bytes() for path in weights.iterdir()} == before


def test_a_broken_manifest(weights: Path) -> None:
    (weights / "manifest.json").write_text("{")
    with pytest.raises(ZooError, match=r"manifest\.json is not valid JSON"):
        pretrained.manifest_entry(NAME)
    (weights / "manifest.json").write_text('{"resnet10_dpk": {}}')
    with pytest.raises(ZooError, match="does not name file, sha256 and bytes of each model"):
        pretrained.manifest_entry(NAME)


def test_a_broken_manifest_is_a_sentence_when_it_matters(weights: Path) -> None:
    (weights / "manifest.json").write_text("{")
    create = "timm.create_model('resnet10_kw'"
    code = f"import timm, zoo; {create}); {create}, pretrained=True)"
    run = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)
    assert run.returncode == 1
    assert "manifest.json is not valid JSON" in run.stderr.splitlines()[-1]


def test_the_checkpoint_of_a_run_loads_its_averaged_weights(tmp_path: Path) -> None:
    state = timm.create_model(NAME).state_dict()
    path = tmp_path / "renamed.safetensors"
    save_file(
        {f"{prefix}.{k}": v + (prefix == "ema") for k, v in state.items() for prefix in ("model", "ema")},
        path,
    )
    loaded = zoo.create_model(NAME, checkpoint=path).state_dict()
    torch.testing.assert_close(loaded["fc.weight"], state["fc.weight"] + 1)


@pytest.mark.parametrize("name", TRAINED)
def test_trained_weights_load_from_any_folder(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(tmp_path)
    model = timm.create_model(name, pretrained=True)
    assert model.pretrained_cfg["label_names"][0] == "airplane"
    figures = pretrained.manifest_entry(name)["figures"]
    # The code still computes what the figures were measured of, another processor's rounding apart.
    found, wanted = torch.tensor(probe(model)), torch.tensor(figures["probe"])
    torch.testing.assert_close(found, wanted, rtol=0, atol=0.01 * float(wanted.abs().max()))
    assert FLOORS.get(name, FLOOR) <= figures["top1"] <= 100
    assert figures["images"] == 10_000
    assert timm.create_model(name, pretrained=True, num_classes=3).get_classifier().out_features == 3
    assert timm.create_model(name, pretrained=True, in_chans=1)(torch.randn(1, 1, 32, 32)).shape == (1, 10)


@pytest.mark.parametrize("name", [name for name in TRAINED if name.endswith("_dpk")])
def test_no_deployed_softmax_of_trained_weights_needs_its_maximum(name: str) -> None:
    layers = dynamic_layers(settle(timm.create_model(name, pretrained=True).eval()))
    assert layers
    assert all(layer.bounded for layer in layers)


def test_what_must_be_trained_is() -> None:
    assert set(FLOORS) <= set(TRAINED)


def test_the_weights_are_small_enough_to_clone() -> None:
    sizes = {path.name: path.stat().st_size for path in pretrained.weights_dir().rglob("*") if path.is_file()}
    assert {pretrained.read_manifest()[name]["file"] for name in TRAINED} <= sizes.keys()
    assert sum(sizes.values()) < MOST


def test_images_seen_are_those_of_all_runs() -> None:
    first = {"images_seen": 100, "started_from": None}
    second = {"images_seen": 10, "started_from": first}
    assert pretrained.images_seen({"images_seen": 5, "started_from": second}) == 115
    assert pretrained.images_seen({"images_seen": 0}) == pretrained.images_seen(None) == 0


def test_the_module_runs_the_commands_of_the_hub() -> None:
    def run(*words: str) -> subprocess.CompletedProcess:
        command = [sys.executable, "-W", "error::RuntimeWarning", "-m", "zoo.pretrained", *words]
        return subprocess.run(command, capture_output=True, text=True, timeout=300)

    card = run("card", TRAINED[0])
    assert (card.returncode, card.stderr) == (0, "")
    assert f"# Model card for {TRAINED[0]}" in card.stdout
    wrong = run("card", "nonsense")
    assert wrong.returncode == 2
    assert wrong.stderr.startswith("error: unknown model 'nonsense'")


def test_weights_dir_of_an_installed_package(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    package = tmp_path / "site" / "zoo"
    package.mkdir(parents=True)
    shutil.copy(pretrained.__file__, package / "pretrained.py")
    monkeypatch.delenv("ZOO_WEIGHTS", raising=False)
    monkeypatch.setattr(pretrained, "__file__", str(package / "pretrained.py"))
    assert pretrained.weights_dir() == tmp_path / "site" / "weights"
    (package / "weights").mkdir()
    assert pretrained.weights_dir() == package / "weights"


@pytest.mark.parametrize("name", [name for name in TRAINED if name.endswith("_dpk")])
def test_training_on_goes_on_from_where_the_weights_are(name: str) -> None:
    """What an update keeps in bounds is within them, or brought there bit by bit."""
    model = zoo.create_model(name, pretrained=True).eval()
    images = torch.randn(16, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.inference_mode():
        before = model(images)
        after = constrain(model)(images)
    assert float((after - before).abs().max() / before.abs().max()) < 0.01


@pytest.mark.parametrize(
    ("devices", "said", "brief"),
    [
        (["CPU Abacus, 1 thread"], "CPU Abacus", "CPU"),
        (
            [None, "CPU Abacus, 2 threads", "CPU Abacus, 1 thread"],
            "unrecorded, then CPU Abacus",
            "unrecorded, then CPU",
        ),
        (
            ["NVIDIA H200, then CPU Abacus, 2 threads"],
            "NVIDIA H200, then CPU Abacus",
            "NVIDIA H200, then CPU",
        ),
        (
            ["CPU Abacus, 1 thread, then 2 x NVIDIA H200", "CPU Sinclair, 1 thread"],
            "CPU Abacus, then 2 x NVIDIA H200, then CPU Sinclair",
            "CPU, then 2 x NVIDIA H200",
        ),
    ],
)
def test_what_weights_were_trained_on_names_each_device_once(devices, said, brief):
    entry = None
    for device in devices:
        entry = {"device": device, "started_from": entry}
    assert trained_on(entry) == said
    assert trained_on(entry, brief=True) == brief
