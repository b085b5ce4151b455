"""Train a small dynamic network without batch norm; ``test_processes`` starts this alone and as a pair."""

import sys
import time
from pathlib import Path

import torch
from torch import nn

from zoo.layers import DotProductConv2d, KernelWeightedConv2d
from zoo.training.checkpoint import read_progress
from zoo.training.data import Split
from zoo.training.loop import train
from zoo.training.processes import first_process_first, is_first_process, leave
from zoo.training.recipe import Recipe


def main() -> None:
    run_dir = Path(sys.argv[1])
    download = run_dir / "download"
    with first_process_first():
        if is_first_process():
            time.sleep(1)
            download.touch()
        assert download.exists(), "the first process has left the block"
    torch.manual_seed(0)
    # Batch norm would see each process's share alone, and rightly give other numbers.
    model = nn.Sequential(
        KernelWeightedConv2d(3, 8, 3, stride=4),
        nn.ReLU(),
        DotProductConv2d(8, 8, 3, padding=1),
        nn.ReLU(),
        nn.Flatten(),
        nn.Linear(8 * 16, 10),
    )
    labels = torch.arange(64) % 10
    # The darker, the lower the label: a few updates learn that, whatever a machine rounds like.
    images = torch.randint(32, (64, 3, 32, 32)) + 22 * labels[:, None, None, None]
    data = Split(images.to(torch.uint8), labels, tuple("abcdefghij"), "shades", "")
    recipe = Recipe("none", phases=((16, 4),), batch_size=16, threads=1, clip_grad=0.5, lr=0.01)
    train(recipe, model, data, run_dir)
    assert read_progress(run_dir).finished, "what the first process wrote is there for the others"
    (run_dir / "again").mkdir(exist_ok=True)
    train(recipe, model, data, run_dir / "again")
    leave()


if __name__ == "__main__":
    main()
