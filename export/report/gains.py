"""Points of top-1 that one model gains over another."""

from export.benchmark.statistics import Interval, mean_interval
from zoo.training.answers import Answers

FIGURES = {"clean": "top1", "augmented": "top1_augmented"}
"""By which images: where a record has the top-1."""


def paired_gains(mine: Answers, its: Answers) -> tuple[Interval, Interval]:
    """Return the points that a model gains over another on clean and on warped images.

    An image's gain under the warps is its mean over the draws that both models have seen.

    Args:
        mine: the model's answers.
        its: the other's, of the same images.
    """
    rows = min(len(mine.right), len(its.right))
    gain = 100 * (mine.right[:rows].double() - its.right[:rows].double()).numpy()
    return mean_interval(gain[0]), mean_interval(gain[1:].mean(axis=0))


def in_points(gained: Interval) -> str:
    """Return points gained and how far the images at hand leave them open."""
    return f"{gained.value:+.1f} [{gained.low:+.1f}, {gained.high:+.1f}]"
