import pytest
import torch
from torchvision.transforms import InterpolationMode
from torchvision.transforms.v2 import functional as reference

from zoo.errors import ZooError
from zoo.training.augment import Augmentation, inverse_affine, normalise, quarter_turns, warp

from .helpers import make_images

NONE = Augmentation(hflip=False, vflip=False, crop_padding=0, degrees=0.0, scale=(1.0, 1.0), shear=0.0)


def seeded(seed: int = 0) -> torch.Generator:
    return torch.Generator().manual_seed(seed)


@pytest.mark.parametrize(
    ("degrees", "scale", "shear_x", "shear_y"),
    [(0, 1, 0, 0), (30, 1.1, 10, -15), (-120, 0.85, -20, 5), (180, 1.2, 20, 20)],
)
def test_affine_agrees_with_torchvision(degrees: float, scale: float, shear_x: float, shear_y: float) -> None:
    images = make_images(2)
    values = [torch.full((2,), float(value)) for value in (degrees, scale, shear_x, shear_y)]
    maps = torch.cat([inverse_affine(*values), torch.zeros(2, 2, 1)], dim=2)
    ours = warp(images, maps) / 2 + 0.5
    theirs = reference.affine(
        images.float() / 255,
        angle=degrees,
        translate=[0, 0],
        scale=scale,
        shear=[shear_x, shear_y],
        interpolation=InterpolationMode.BILINEAR,
    )
    # Interior pixels: at the border the two may differ in how they blend with the fill.
    torch.testing.assert_close(ours[..., 4:-4, 4:-4], theirs[..., 4:-4, 4:-4], rtol=0, atol=1e-5)


@pytest.mark.parametrize("size", [None, 16, 24, 32, 48])
def test_no_augmentation_is_normalising(size: int | None) -> None:
    images = make_images(3)
    # Enlarging blends with the black outside in the outermost pixels, where normalising repeats the edge.
    inner = slice(1, -1) if size == 48 else slice(None)
    ours, plain = NONE(images, seeded(), size), normalise(images, size)
    torch.testing.assert_close(ours[..., inner, inner], plain[..., inner, inner], rtol=0, atol=1e-5)


def test_normalise_maps_bytes_to_unit_range() -> None:
    images = torch.tensor([0, 255], dtype=torch.uint8).view(2, 1, 1, 1).expand(2, 3, 32, 32)
    assert normalise(images)[0].unique().tolist() == [-1]
    assert normalise(images, 16)[1].unique().tolist() == [1]


@pytest.mark.parametrize(("flip", "axis"), [("hflip", 3), ("vflip", 2)])
def test_flips_mirror_about_half_of_the_images(flip: str, axis: int) -> None:
    images = make_images(1).expand(64, -1, -1, -1)
    options = {"hflip": False, "vflip": False, flip: True}
    warped = Augmentation(**options, crop_padding=0, degrees=0, scale=(1, 1), shear=0)(images, seeded())
    plain = normalise(images[:1])
    mirrored = torch.isclose(warped, plain.flip(axis), atol=1e-5).all(dim=(1, 2, 3))
    kept = torch.isclose(warped, plain, atol=1e-5).all(dim=(1, 2, 3))
    assert (mirrored ^ kept).all()
    assert 16 < mirrored.sum() < 48


def test_crop_shifts_by_whole_pixels_and_fills_with_black() -> None:
    crop = Augmentation(hflip=False, vflip=False, crop_padding=2, degrees=0.0, scale=(1.0, 1.0), shear=0.0)
    images = make_images(1).expand(50, -1, -1, -1)
    padded = torch.nn.functional.pad(normalise(images[:1]), (2, 2, 2, 2), value=-1)
    windows = {(y, x): padded[..., y : y + 32, x : x + 32] for y in range(5) for x in range(5)}
    seen = set()
    for warped in crop(images, seeded()):
        matches = [at for at, window in windows.items() if torch.allclose(warped, window[0], atol=1e-5)]
        assert len(matches) == 1
        seen.update(matches)
    assert {y for y, _ in seen} == {x for _, x in seen} == set(range(5))


def test_parameters_stay_in_their_ranges() -> None:
    maps = Augmentation(hflip=False, vflip=False, shear=0.0).draw(2000, 32, seeded())
    scale = maps[:, :, :2].det().rsqrt()  # of the map that was inverted
    angle = torch.rad2deg(torch.atan2(maps[:, 0, 1], maps[:, 0, 0]))
    assert scale.min() >= 0.8 - 1e-4
    assert scale.max() <= 1.2 + 1e-4
    assert angle.min() < -175
    assert angle.max() > 175
    assert set((maps[:, :, 2] * 16).round(decimals=3).flatten().tolist()) == set(range(-4, 5))


@pytest.mark.parametrize("share", [0.3, 1.0])
def test_a_share_of_the_images_stays_upright_and_sharp(share: float) -> None:
    images = make_images(1).expand(1000, -1, -1, -1)
    warped = Augmentation().draw(1000, 32, seeded())
    maps = Augmentation(upright=share).draw(1000, 32, seeded())
    spared = (maps != warped).flatten(1).any(dim=1)
    assert spared.float().mean().item() == pytest.approx(share, abs=0.05)
    linear = maps[spared, :, :2]
    assert torch.equal(linear.abs(), torch.eye(2).expand_as(linear))
    assert (linear[:, 1, 1] == 1).all(), "none is upside down"
    mirrored = (linear[:, 0, 0] == -1).float().mean().item()
    assert mirrored == pytest.approx(0.5, abs=0.05)
    # No pixel is a mixture of others: each is one of the image's, or the black around it.
    values = torch.cat([normalise(images[:1]).flatten(), torch.tensor([-1.0])])
    sharp = warp(images[spared], maps[spared])[:50].flatten(1)
    for one in sharp:
        assert (one.unsqueeze(1) - values).abs().min(dim=1).values.max() < 1e-4


def test_a_share_of_the_images_is_turned_and_sharp() -> None:
    images = make_images(1).expand(1000, -1, -1, -1)
    augmentation = Augmentation(hflip=False, crop_padding=0, upright=0.2, turned=0.6)
    maps = augmentation.draw(1000, 32, seeded())
    sharp = warp(images, maps)
    clean = normalise(images[:1])
    # The warped are none of the four.
    found = [(sharp - clean.rot90(turns, (2, 3))).flatten(1).abs().amax(dim=1) < 1e-4 for turns in range(4)]
    shares = [one.float().mean().item() for one in found]
    assert shares == [pytest.approx(0.2, abs=0.05)] * 4
    assert torch.equal(
        maps[found[0]],
        Augmentation(hflip=False, crop_padding=0, upright=0.2).draw(1000, 32, seeded())[found[0]],
    ), "the share of upright images is another one"


def test_turns_go_the_way_of_the_rotation() -> None:
    turned = quarter_turns(torch.tensor([0, 1, 2, 3]))
    still = torch.zeros(4)
    rotated = inverse_affine(torch.tensor([0.0, 90.0, 180.0, 270.0]), torch.ones(4), still, still)
    torch.testing.assert_close(turned, rotated, atol=1e-6, rtol=0)


@pytest.mark.parametrize("name", ["upright", "turned"])
@pytest.mark.parametrize("share", [-0.1, 1.5, float("nan")])
def test_the_shares_of_unwarped_images_are_checked(name: str, share: float) -> None:
    with pytest.raises(ZooError, match=f"{name} is {share}; it must be from 0 to 1"):
        Augmentation(**{name: share})


def test_the_shares_of_unwarped_images_fit_into_one() -> None:
    with pytest.raises(ZooError, match=r"upright is 0\.7 and turned is 0\.4; together"):
        Augmentation(upright=0.7, turned=0.4)


def test_a_seed_decides_everything() -> None:
    images, augment = make_images(8), Augmentation()
    first = augment(images, seeded(3))
    assert torch.equal(first, augment(images, seeded(3)))
    assert not torch.equal(first, augment(images, seeded(4)))
    assert first.shape == (8, 3, 32, 32)
    assert augment(images, seeded(), 16).shape == (8, 3, 16, 16)


def test_shrinking_is_antialiased() -> None:
    stripes = (torch.arange(32) % 2 * 255).to(torch.uint8).expand(1, 3, 32, 32)
    assert normalise(stripes, 16).abs().max() < 0.3
    assert NONE(stripes, seeded(), 16).abs().max() < 0.3
