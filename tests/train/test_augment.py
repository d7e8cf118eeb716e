"""Random changes: each is what a plain loop, Pillow or arithmetic says it is."""

import math
from dataclasses import replace

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image, ImageEnhance, ImageOps

from convlite.data import Data, Images
from convlite.preprocess import Preprocess
from convlite.train import Recipe, augmentation
from convlite.train.augment import (
    Draw,
    _moved_by_copies,
    _moved_by_gather,
    change,
    draw_moves,
    erase,
    mix,
    move,
    random_part,
    rectangle,
)
from convlite.train.colour import LUMA, jitter, recolour
from convlite.train.randaugment import CHANGES, randaugment
from convlite.train.seeds import generator

CPU = torch.device("cpu")


def some(count=4, channels=3, height=24, width=20, seed=0):
    source = torch.Generator().manual_seed(seed)
    coarse = torch.rand((count, channels, 5, 5), generator=source) * 255
    return F.interpolate(coarse, (height, width), mode="bicubic").clamp(0, 255).round().to(torch.uint8)


def draw(count, seed=0, step=0):
    return Draw(count, slice(None), seed, 0, step, CPU)


# --- shift and flip


@given(st.integers(0, 4), st.booleans(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_moves_are_the_plain_loop(shift, flip, seed):
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (6, 2, 7, 9), dtype=torch.uint8)
    moved = move(pixels, draw_moves(6, shift, flip, generator(seed)), shift)
    moves = torch.randint(-shift, shift + 1, (2, 6), generator=(source := generator(seed)))
    mirrored = torch.rand(6, generator=source) < 0.5
    for i in range(6):
        image = torch.zeros(2, 7 + 2 * shift, 9 + 2 * shift, dtype=torch.uint8)
        image[:, shift : shift + 7, shift : shift + 9] = pixels[i]
        if flip and mirrored[i]:
            image = image.flip(2)
        top, left = (shift + moves[:, i]).tolist()
        assert torch.equal(moved[i], image[:, top : top + 7, left : left + 9])
    assert moved.is_contiguous(memory_format=torch.channels_last)


def test_moves_reach_every_place_and_no_further():
    pixels = torch.zeros(400, 1, 9, 9, dtype=torch.uint8)
    pixels[:, :, 4, 4] = 1
    places = move(pixels, draw_moves(400, 2, False, generator(0)), 2).squeeze(1).nonzero()[:, 1:]
    assert len(places) == 400
    assert {tuple(place) for place in places.tolist()} == {(r, c) for r in range(2, 7) for c in range(2, 7)}


def test_half_of_the_images_are_mirrored():
    pixels = torch.arange(8, dtype=torch.uint8).expand(1000, 1, 8, 8)
    mirrored = move(pixels, draw_moves(1000, 0, True, generator(1)), 0)[:, 0, 0, 0] == 7
    assert 0.44 < mirrored.float().mean() < 0.56


@given(st.integers(0, 6), st.booleans(), st.integers(0, 99), st.sampled_from([torch.uint8, torch.float32]))
@settings(deadline=None, max_examples=40)
def test_both_ways_to_move_do_the_same(shift, flip, seed, dtype):
    pixels = some(5, 3, 5, 7, seed).to(dtype)
    moves = draw_moves(5, shift, flip, generator(seed))
    ways = [way(pixels, moves, shift, 9) for way in (_moved_by_copies, _moved_by_gather)]
    assert torch.equal(*ways)


# --- parts


@given(st.integers(1, 400), st.integers(1, 400), st.floats(0.05, 0.99), st.integers(0, 10**6))
@settings(deadline=None, max_examples=200)
def test_a_random_part_lies_inside_and_is_large_enough(height, width, least, index):
    top, left, h, w = random_part(least, 0, 0)(index)(height, width)
    assert 0 <= top <= height - h and 0 <= left <= width - w and h >= 1 and w >= 1
    if min(height, width) > 50 and 0.8 < height / width < 1.25:
        assert h * w >= 0.9 * least * height * width
        assert 0.7 < h / w < 1.43
    assert random_part(least, 0, 0)(index)(height, width) == (top, left, h, w)


def test_random_parts_are_as_large_on_average_as_their_range_says():
    boxes = [random_part(0.08, 0, 1)(i)(300, 300) for i in range(2000)]
    share = np.mean([h * w / 90000 for _, _, h, w in boxes])
    assert 0.48 < share < 0.56  # large ones of odd aspect don't fit and are drawn again
    assert 70 < np.mean([top for top, *_ in boxes]) / np.mean([300 - h for _, _, h, _ in boxes]) * 150 < 80


# --- colour


def test_no_change_of_colour_is_none():
    pixels = some()
    one, zero = torch.ones(4), torch.zeros(4)
    assert torch.equal(recolour(pixels, one, one, one, zero), pixels)
    assert (recolour(pixels, one, one, one, one).int() - pixels).abs().max() <= 1  # a full turn
    assert torch.equal(jitter(pixels, 0.0, 0.0, torch.rand(4, 4)), pixels)
    assert torch.equal(jitter(pixels[:, :1], 0.0, 0.5, torch.rand(4, 4)), pixels[:, :1])  # grey has no hue


@given(st.floats(0.2, 1.8), st.integers(0, 2), st.integers(0, 50))
@settings(deadline=None, max_examples=60)
def test_brightness_contrast_and_saturation_are_those_of_pillow(factor, which, seed):
    pixels = some(1, seed=seed)
    factors = [torch.full((1,), factor if i == which else 1.0) for i in range(3)]
    found = recolour(pixels, *factors, torch.zeros(1))[0].permute(1, 2, 0).int()
    change = (ImageEnhance.Brightness, ImageEnhance.Contrast, ImageEnhance.Color)[which]
    expected = np.array(change(Image.fromarray(pixels[0].permute(1, 2, 0).numpy())).enhance(factor)).astype(int)
    assert np.abs(found.numpy() - expected).max() <= 2


def test_a_hue_turns_at_equal_brightness():
    pixels = (some(8).float() / 4 + 96).round().to(torch.uint8)  # far from black and white: nothing is clamped
    turned = recolour(pixels, *(torch.ones(8),) * 3, torch.linspace(-0.5, 0.5, 8))
    luma = torch.tensor(LUMA)[:, None, None]
    assert ((turned.float() - pixels.float()) * luma).sum(1).abs().max() < 1
    assert (turned.int() - pixels.int()).abs().max() > 5


# --- RandAugment


@pytest.mark.parametrize("magnitude", [0, 7, 15, 30])
def test_operations_are_those_of_pillow(magnitude):
    pixels = some(3, height=300, width=300)  # large: Pillow equalizes in whole pixels
    strength = torch.full((3,), magnitude / 30)
    lost = round(4 * magnitude / 30)
    peers = {
        1: ImageOps.autocontrast,
        2: ImageOps.equalize,
        4: lambda image: ImageOps.solarize(image, 256 * (1 - magnitude / 30)),
        6: lambda image: ImageOps.posterize(image, 8 - lost),
        9: lambda image: ImageEnhance.Sharpness(image).enhance(1 + 0.9 * magnitude / 30),
    }
    for number, peer in peers.items():
        found = CHANGES[number](pixels, strength)
        for mine, image in zip(found, pixels, strict=True):
            theirs = np.array(peer(Image.fromarray(image.permute(1, 2, 0).numpy()))).astype(int)
            assert np.abs(mine.permute(1, 2, 0).numpy().astype(int) - theirs).max() <= (3 if number == 2 else 1)


def test_the_geometry_of_the_operations():
    spot = torch.zeros(1, 1, 41, 41, dtype=torch.uint8)
    spot[0, 0, 20, 20] = 255
    spot[0, 0, 10, 20] = 200
    one = torch.ones(1)
    for number in (3, 10, 11, 12, 13):
        assert torch.equal(CHANGES[number](spot, 0 * one), spot)
    turned = CHANGES[3](spot.repeat(2, 1, 1, 1), torch.tensor([1.0, -1.0]))
    assert turned[:, 0, 20, 20].min() == 255 and torch.equal(turned[0], turned[1].flip(2))
    angle = math.radians(30)
    row, column = round(20 - 10 * math.cos(angle)), round(10 * math.sin(angle))
    assert (
        turned[0, 0, row - 1 : row + 2, 20 - column - 1 : 20 - column + 2].sum()
        + turned[0, 0, row - 1 : row + 2, 20 + column - 1 : 20 + column + 2].sum()
        > 150
    )
    for number, axis in ((12, 3), (13, 2)):  # 0.45 of 41 pixels
        there = CHANGES[number](spot, one)[0, 0].nonzero()
        assert there[-1, axis - 2] in (1, 2) and there[-1, 3 - axis] == 20


def test_every_picture_has_operations_of_its_own():
    pixels = some(1).expand(200, -1, -1, -1)
    changed = randaugment(pixels, 15, draw(200).uniform("x", 2, 3))
    assert len(torch.unique(changed.flatten(1), dim=0)) > 100
    assert torch.equal(pixels[0], some(1)[0])
    alone = torch.cat([randaugment(pixels[:1], 15, row[None]) for row in draw(200).uniform("x", 2, 3)])
    assert torch.equal(alone, changed)


@pytest.mark.parametrize("channels", [1, 3])
@pytest.mark.parametrize("size", [(1, 1), (2, 5), (8, 8)])
def test_all_operations_take_all_pictures(channels, size):
    pixels = some(3, channels, *size)
    for operation in CHANGES:
        found = operation(pixels, torch.tensor([1.0, -1.0, 0.3]))
        assert found.shape == pixels.shape and found.dtype == torch.uint8


# --- erasing and mixing


def test_rectangles_have_their_share():
    sides = torch.linspace(0.1, 1, 50)
    box = rectangle(sides, sides.flip(0), torch.rand(50, 2, generator=generator(0)), 60, 40)
    for i in range(50):
        rows, columns = box[i].any(1), box[i].any(0)
        assert box[i].sum() == rows.sum() * columns.sum()
        assert rows.sum() == round(float(sides[i]) * 60) and columns.sum() == round(float(sides.flip(0)[i]) * 40)


def test_erasing_takes_a_rectangle_of_some():
    pixels = some(400)
    erased = erase(pixels, 0.25, draw(400).uniform("erase", 5))
    changed = (erased != pixels).any(1)
    assert 0.18 < changed.flatten(1).any(1).float().mean() < 0.32
    i = int(changed.flatten(1).any(1).nonzero()[0])
    mean = pixels[i].float().mean((1, 2)).round()
    assert (erased[i][:, changed[i]] == mean[:, None]).all()


@pytest.mark.parametrize(("mixup", "cutmix"), [(0.4, 0.0), (0.0, 1.0), (0.4, 1.0)])
@pytest.mark.parametrize("count", [1, 8, 9])
def test_labels_are_mixed_as_the_pixels_are(mixup, cutmix, count):
    """Of one colour each, so that the mean of a picture says how much of each neighbour is in it."""
    levels = torch.arange(count) * 25
    pixels = levels[:, None, None, None].expand(-1, 1, 30, 30).to(torch.uint8)
    mixed, shares = mix(pixels, torch.arange(count), Recipe(mixup=mixup, cutmix=cutmix), draw(count), count)
    assert mixed.dtype == torch.uint8 and shares.shape == (count, count)
    torch.testing.assert_close(shares.sum(1), torch.ones(count))
    torch.testing.assert_close(mixed.float().mean((1, 2, 3)), shares @ levels.float(), atol=0.51, rtol=0)
    if count > 1:
        assert ((shares > 0).sum(1) == 2).float().mean() > 0.5
        assert (mixed.flatten(1).amin(1) != mixed.flatten(1).amax(1)).any() == bool(cutmix)
    else:
        assert torch.equal(mixed, pixels)


# --- of normalised pictures


def data_of(pixels):
    images = Images(pixels, torch.zeros(len(pixels), dtype=torch.int64))
    how = Preprocess(tuple(pixels.shape[2:]), (0.4, 0.5, 0.6), (0.2, 0.25, 0.3))
    return Data(images, images, ("one", "two"), how, "made")


@given(st.integers(0, 3), st.booleans(), st.integers(0, 2), st.floats(0, 1), st.integers(0, 99))
@settings(deadline=None, max_examples=30)
def test_normalised_pictures_change_as_in_training(shift, flip, operations, erased, seed):
    pixels = some(5, 3, 9, 8, seed)
    data = data_of(pixels)
    recipe = Recipe(shift=shift, flip=flip, randaugment=operations, erase=erased, colour=0.3, mixup=0.4)
    changed = augmentation(recipe, data)(data.normalise(pixels), generator(seed))
    drawn = Draw(5, slice(None), int(torch.randint(2**62, (), generator=generator(seed))), 0, 0, CPU)
    wanted, _ = change(pixels, data.train.labels, replace(recipe, mixup=0.0), drawn, 2, 0)
    assert torch.equal(changed, data.normalise(wanted))
    assert changed.is_contiguous(memory_format=torch.channels_last)


def test_each_call_changes_normalised_pictures_anew():
    pixels = some(8)
    data, source = data_of(pixels), generator(0)
    images = data.normalise(pixels)
    moved = augmentation(Recipe(shift=3), data)
    assert not torch.equal(moved(images, source), moved(images, source))
    same = augmentation(Recipe(shift=0), data)(images, source)
    assert torch.equal(same, images)
