"""What goes to the Hub: weights that timm loads again, and a card that says what the manifest says."""

import re
import shutil

import numpy as np
import pytest
import timm
import torch
from PIL import Image
from safetensors.torch import load_file
from timm.models import _hub

import zoo
from zoo import hub
from zoo.cli import run
from zoo.pretrained import CIFAR10_CLASSES, images_seen, read_manifest, trained_on, weights_dir
from zoo.training.invariance import STEPS

NAME, TWIN = "mobilenetv3_small_100_condconv", "mobilenetv3_small_100_static"


def logits(model):
    images = torch.randn(2, 3, 32, 32, generator=torch.Generator().manual_seed(0))
    with torch.no_grad():
        return model.eval()(images)


def test_a_saved_model_is_loaded_by_timm(tmp_path, capsys):
    assert run(hub.main, ["save", NAME, str(tmp_path / "saved")]) == 0
    again = timm.create_model(f"local-dir:{tmp_path / 'saved'}", pretrained=True)
    assert torch.equal(logits(again), logits(zoo.create_model(NAME, pretrained=True)))
    assert not list((tmp_path / "saved").glob("*.bin")), "pickles are never written"
    saved = load_file(tmp_path / "saved" / "model.safetensors")
    stored = load_file(weights_dir() / f"{NAME}.safetensors")
    assert saved.keys() == stored.keys()
    assert all(saved[key].dtype == stored[key].dtype for key in stored)
    assert all(torch.equal(saved[key], stored[key]) for key in stored)
    assert (tmp_path / "saved" / "model.safetensors").stat().st_size < 1.01 * read_manifest()[NAME]["bytes"]
    assert next(again.parameters()).dtype is torch.float32
    assert "wrote" in capsys.readouterr().out


@pytest.mark.parametrize("name", sorted(read_manifest()))
def test_the_card_names_the_recipe_that_the_weights_are_from(name):
    """Those of mobilenetv3_small_100 are: another such could be made by one command."""
    made = hub.card(name)["details"].get("To make another like it")
    ours = f"`python -m zoo.train --recipe cpu --model {name}`"
    assert made == (ours if name.startswith("mobilenetv3_small_100") else None)


@pytest.mark.parametrize("name", sorted(read_manifest()))
def test_the_card_has_the_manifests_figures(name, capsys):
    assert run(hub.main, ["card", name]) == 0
    text = capsys.readouterr().out
    entry = read_manifest()[name]
    assert f"{entry['figures']['top1']:.2f} % of 10,000 test images" in text
    assert f"{entry['figures']['top1_augmented']:.2f} %" in text
    assert entry["command"] in text
    assert "license: apache-2.0" in text
    assert f"python -m export.onnx --model {name}" in text
    seen = f"{images_seen(entry):,}"
    assert f"**Images seen in training:** {seen}, {entry['images_seen']:,} of them by the last run" in text
    several = "started_from" in entry and entry["started_from"] is not None
    assert ("runs one after the other, the last with seed" in text) == several
    assert (
        f"seed {entry['seed']}, on {trained_on(entry)}, {seen} images in all; "
        "how to train was chosen while watching the accuracy on these same test images"
    ) in text


def test_the_usage_of_the_card_names_the_class_of_an_image(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    image = np.random.default_rng(0).integers(0, 256, (32, 32, 3), dtype=np.uint8)
    Image.fromarray(image).save("image.png")
    (code,) = re.findall("```python\n(.*?)```", hub.card(NAME)["usage"], re.DOTALL)
    exec(code, {})
    model = zoo.create_model(NAME, pretrained=True).eval()
    pixels = torch.from_numpy(image).permute(2, 0, 1).unsqueeze(0) / 255
    best = model((pixels - 0.5) / 0.5).argmax()
    assert capsys.readouterr().out == f"{CIFAR10_CLASSES[best]}\n"


def test_the_card_says_how_the_model_takes_turned_images(monkeypatch):
    curve = {"rotation": {str(step): 80.0 if step else 100.0 for step in STEPS["rotation"]}}
    found = {"images": 2000, "top1": curve, "unchanged": curve}
    monkeypatch.setattr(hub, "read_evaluation", lambda: {NAME: found})
    said = "80.8 % of the first 2,000 test images; 80.0 % keep their prediction"
    assert hub.card(NAME)["details"]["Top-1, mean over all angles"] == said
    monkeypatch.setattr(hub, "read_evaluation", dict)
    assert "Top-1, mean over all angles" not in hub.card(NAME)["details"]


def test_the_card_says_what_a_model_and_its_twin_have_in_common(monkeypatch):
    like = read_manifest()[NAME]

    def entry(images, start=None):
        return {**like, "images_seen": images, "seconds": 1, "started_from": start}

    first = {"model": TWIN, "images_seen": 1000, "seconds": 9, "started_from": None}
    base = {"model": TWIN, "images_seen": 200, "seconds": 5, "started_from": first}
    # The same run as ``base``, put on record with more words.
    retold = {**base, "recipe": {}, "started_from": {**first, "epochs": 1}}
    other = {"model": NAME, "images_seen": 200, "seconds": 5, "started_from": first}
    manifest = {TWIN: entry(30, base)}
    manifest[TWIN]["figures"] = {**manifest[TWIN]["figures"], "top1": 61.5, "top1_augmented": 45.25}
    monkeypatch.setattr(hub, "read_manifest", lambda: manifest)
    for mine, said in (
        (entry(30, retold), "61.50 % top-1, 45.25 % warped at random, from the same start, 1,200 images in"),
        (entry(7, other), "from the same start, 1,000 images in"),
        (entry(7, {"model": TWIN, **manifest[TWIN]}), "from the same start, 1,230 images in"),
        (entry(30), "from a start of its own"),
    ):
        manifest[NAME] = mine
        assert hub.card(NAME)["details"]["Static twin"].endswith(said)
    assert "Static twin" not in hub.card(TWIN)["details"]
    del manifest[TWIN]
    assert hub.card(NAME)["details"]["Static twin"] == "not trained"


def test_what_is_pushed_is_what_is_saved(tmp_path, monkeypatch):
    class Api:
        """A hub that is a folder."""

        def __init__(self, **_):
            pass

        def create_repo(self, repo_id, private, exist_ok):
            assert private
            return type("Url", (), {"repo_id": repo_id})()

        def file_exists(self, **_):
            return False

        def upload_folder(self, repo_id, folder_path, **_):
            shutil.copytree(folder_path, tmp_path / repo_id)

    monkeypatch.setattr(_hub, "HfApi", Api)
    assert run(hub.main, ["push", NAME, "owner/model", "--private"]) == 0
    hub.save(NAME, tmp_path / "saved")
    for file in (tmp_path / "saved").iterdir():
        pushed = (tmp_path / "owner/model" / file.name).read_bytes()
        assert pushed.replace(b"Model card for model", f"Model card for {NAME}".encode()) == file.read_bytes()


def test_a_refused_push_is_one_sentence(monkeypatch, capsys):
    def refuse(*_, **__):
        raise OSError("401 Unauthorized\nand a page of HTML")

    monkeypatch.setattr(hub, "push_to_hf_hub", refuse)
    assert run(hub.main, ["push", NAME, "owner/model"]) == 2
    assert (
        "cannot push to owner/model: 401 Unauthorized; log in with `hf auth login`.\n"
        in capsys.readouterr().err
    )


@pytest.mark.parametrize("command", [["card"], ["save", "x"], ["push", "o/x"]])
def test_a_model_without_weights_is_refused(command, capsys, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert run(hub.main, [command[0], "resnet50_kw", *command[1:]]) == 2
    assert "resnet50_kw has no trained weights; those that have some are " in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_a_folder_that_cannot_be_made_is_one_sentence(tmp_path, capsys):
    (tmp_path / "file").write_text("")
    assert run(hub.main, ["save", NAME, str(tmp_path / "file" / "inner")]) == 2
    assert "cannot write to " in capsys.readouterr().err
