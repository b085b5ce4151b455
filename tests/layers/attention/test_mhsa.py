"""BoTNet's self-attention against loops over pixels, and against timm's at one feature size."""

import numpy as np
import pytest
import torch
from timm.layers.bottleneck_attn import BottleneckAttn

from tests.layers.attention.reference import array, images, randomised, softmax
from zoo.errors import ZooError
from zoo.layers.attention import MultiHeadSelfAttention2d


def attended(layer: MultiHeadSelfAttention2d, x: np.ndarray) -> np.ndarray:
    """Compute the formula pixel by pixel."""
    height, width = x.shape[2:]
    heads, dim = layer.heads, layer.height_rel.shape[1]
    qkv = np.einsum("oi,nihw->nohw", array(layer.qkv.weight)[:, :, 0, 0], x)
    q, k, v = qkv.reshape(len(x), 3, heads, dim, height, width).transpose(1, 0, 2, 3, 4, 5)
    rows, columns = array(layer.height_rel), array(layer.width_rel)
    y = np.zeros_like(v)
    for n, head, r, c in np.ndindex(len(x), heads, height, width):
        query = q[n, head, :, r, c]
        logits = np.zeros((height, width))
        for r2, c2 in np.ndindex(height, width):
            key = k[n, head, :, r2, c2] + rows[r2 - r + height - 1] + columns[c2 - c + width - 1]
            logits[r2, c2] = query @ key / dim**0.5
        weights = softmax(logits.ravel(), 0)
        y[n, head, :, r, c] = v[n, head].reshape(dim, -1) @ weights
    return y.reshape(len(x), -1, height, width)


def test_equals_the_loops() -> None:
    layer, x = randomised(MultiHeadSelfAttention2d(3, 8, heads=2, feat_size=(4, 3))), images(2, 3, 4, 3)
    torch.testing.assert_close(layer(x), torch.from_numpy(attended(layer, array(x))))


@pytest.mark.parametrize("stride", [1, 2])
def test_equals_timms_at_one_size(stride: int) -> None:
    theirs = BottleneckAttn(6, 16, feat_size=(6, 4), stride=stride, num_heads=2, scale_pos_embed=True)
    theirs = randomised(theirs)
    ours = MultiHeadSelfAttention2d(6, 16, heads=2, stride=stride, feat_size=(6, 4)).double()
    ours.load_state_dict(
        {name.removeprefix("pos_embed."): value for name, value in theirs.state_dict().items()}
    )
    x = images(3, 6, 6, 4)
    torch.testing.assert_close(ours(x), theirs(x))


def test_a_stride_averages_and_rounds_up() -> None:
    x = images(2, 4, 5, 4)
    plain = randomised(MultiHeadSelfAttention2d(4, 8, heads=2, feat_size=(5, 4)))
    pooled = randomised(MultiHeadSelfAttention2d(4, 8, heads=2, feat_size=(5, 4), stride=2))
    y, z = plain(x), pooled(x)
    assert z.shape == (2, 8, 3, 2)
    torch.testing.assert_close(z[:, :, 0, 0], y[:, :, :2, :2].mean(dim=(2, 3)))
    torch.testing.assert_close(z[:, :, 2, 1], y[:, :, 4, 2:].mean(dim=2))


def test_position_tables_stretch_to_other_sizes() -> None:
    small = randomised(MultiHeadSelfAttention2d(4, 8, heads=2, feat_size=(3, 2)))
    x = images(1, 4, 5, 3)
    large = MultiHeadSelfAttention2d(4, 8, heads=2, feat_size=(5, 3)).double()
    state = small.state_dict()
    # Offsets -2..2 stretched to -4..4, and -1..1 to -2..2, by interpolation between neighbours.
    for name in ("height_rel", "width_rel"):
        table = array(state[name])
        positions = np.linspace(0, len(table) - 1, len(large.state_dict()[name]))
        columns = [np.interp(positions, np.arange(len(table)), column) for column in table.T]
        state[name] = torch.from_numpy(np.stack(columns, axis=1))
    large.load_state_dict(state)
    torch.testing.assert_close(small(x), large(x))


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"heads": 5}, "heads=5 does not divide 12 channels; 1, 2, 3, 4, 6, 12 would do"),
        ({"heads": 0}, "heads must be a whole number of at least 1, not 0"),
        ({"stride": 0}, "stride must be a whole number of at least 1, not 0"),
        ({"feat_size": (0, 4)}, "feat_size must be a whole number of at least 1, not 0"),
    ],
)
def test_bad_arguments_are_named(arguments: dict, message: str) -> None:
    with pytest.raises(ZooError, match=message):
        MultiHeadSelfAttention2d(12, **{"feat_size": (4, 4), **arguments})
