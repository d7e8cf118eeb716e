"""Batches: every image once an epoch, in an order and with changes that the seed and the epoch decide."""

import io
import itertools

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlite.data import Files, Images
from convlite.errors import InputError
from convlite.preprocess import Preprocess
from convlite.train import Recipe
from convlite.train.batches import batches, share, steps_in

CPU = torch.device("cpu")


def numbered(count):
    pixels = torch.arange(count, dtype=torch.uint8)[:, None, None, None].expand(count, 1, 4, 4).clone()
    return Images(pixels, torch.arange(count))


def seen(count, recipe, seed, epoch):
    parts = list(batches(numbered(count), recipe, seed, epoch, CPU))
    for pixels, labels in parts:
        assert torch.equal(pixels[:, 0, 0, 0].long(), labels)  # a picture keeps its label
    return [labels.tolist() for _, labels in parts]


@given(st.integers(1, 200), st.integers(1, 70), st.integers(0, 2**40), st.integers(1, 90))
@settings(deadline=None, max_examples=50)
def test_an_epoch_holds_every_image_once(count, batch_size, seed, epoch):
    recipe = Recipe(batch_size=batch_size, shift=0)
    parts = seen(count, recipe, seed, epoch)
    assert sorted(label for part in parts for label in part) == list(range(count))
    assert len(parts) == steps_in(count, recipe)
    sizes = {len(part) for part in parts}
    assert max(sizes) <= batch_size and max(sizes) - min(sizes) <= 1
    assert parts == seen(count, recipe, seed, epoch)


def test_seeds_and_epochs_have_orders_of_their_own():
    recipe = Recipe(batch_size=50, shift=0)
    orders = [str(seen(50, recipe, seed, epoch)) for seed in range(3) for epoch in range(3)]
    assert len(set(orders)) == 9


EVERYTHING = Recipe(
    batch_size=8, shift=2, flip=True, crop=0.3, colour=0.4, hue=0.1, randaugment=2, erase=0.5, mixup=0.4, cutmix=1.0
)
RECIPES = [
    Recipe(batch_size=8, shift=0),
    Recipe(batch_size=8, shift=3, flip=True),
    Recipe(batch_size=8, crop=0.2),
    Recipe(batch_size=8, mixup=0.2),
    EVERYTHING,
]


def colourful(count):
    pixels = torch.randint(0, 256, (count, 3, 12, 10), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    return Images(pixels, torch.arange(count) % 5)


def encoded(count):
    """The same as files."""
    content = []
    for pixels in colourful(count).pixels:
        stream = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "png")
        content.append(stream.getvalue())
    how = Preprocess((12, 10), (0.0,) * 3, (1.0,) * 3)
    return Files(content, [str(i) for i in range(count)], torch.arange(count) % 5, how)


def same(found, expected):
    found, expected = list(found), list(expected)
    assert len(found) == len(expected)
    for (pixels, labels), (other, others) in zip(found, expected, strict=True):
        assert torch.equal(pixels, other) and torch.equal(labels, others)
        assert pixels.dtype == torch.uint8


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("start", [1, 4, 5])
def test_going_on_at_a_step_gives_the_rest_of_the_epoch(recipe, start):
    images = colourful(37)
    whole = list(batches(images, recipe, 3, 2, CPU))
    same(batches(images, recipe, 3, 2, CPU, start_step=start), whole[start:])


@pytest.mark.parametrize("recipe", RECIPES)
@pytest.mark.parametrize("count", [2, 3, 4])
def test_processes_together_have_the_batches_of_one(recipe, count):
    images = colourful(37)
    sides = [batches(images, recipe, 3, 2, CPU, process_index=i, num_processes=count) for i in range(count)]
    together = [map(torch.cat, zip(*step, strict=True)) for step in zip(*sides, strict=True)]
    same(together, batches(images, recipe, 3, 2, CPU))


@pytest.mark.parametrize("recipe", RECIPES)
def test_files_give_the_batches_of_memory_with_any_number_of_workers(recipe):
    expected = list(batches(colourful(19), recipe, 1, 1, CPU))
    for workers in (0, 1, 3, None):
        same(batches(encoded(19), recipe, 1, 1, CPU, workers=workers), expected)


def test_seeds_and_epochs_change_every_random_choice():
    images = colourful(8)
    for recipe in RECIPES[1:]:
        found = [next(batches(images, recipe, *at, CPU)) for at in ((0, 0), (0, 1), (1, 0))]
        by_label = [pixels[0][None] for pixels, _ in found]
        assert not any(torch.equal(a, b) for a, b in itertools.combinations(by_label, 2))


@given(st.integers(1, 300), st.integers(1, 9), st.booleans())
@settings(deadline=None)
def test_shares_part_a_batch(count, processes, mixes):
    recipe = Recipe(mixup=0.2 if mixes else 0.0)
    if -(-count // (2 if mixes else 1)) < processes:
        with pytest.raises(InputError, match="batch_size"):
            share(count, recipe, 0, processes)
        return
    parts = [range(count)[share(count, recipe, i, processes)] for i in range(processes)]
    assert [i for part in parts for i in part] == list(range(count))
    sizes = [len(part) for part in parts]
    assert min(sizes) > 0 and max(sizes) - min(sizes) <= (3 if mixes else 1)
    assert not mixes or all(part.start % 2 == 0 for part in parts)


def test_a_broken_file_leaves_batches_whole():
    content = encoded(11)
    broken = [b"" if i in (2, 9) else file for i, file in enumerate(content.files)]
    skipping = Files(broken, content.names, content.targets, content.how, skip=True)
    found = list(batches(skipping, Recipe(batch_size=4), 0, 0, CPU))
    assert [len(labels) for _, labels in found] == [4, 4, 3]
    assert set(skipping.broken) == {"2", "9"}


def test_early_epochs_have_smaller_images_and_masks():
    pixels = torch.arange(32, dtype=torch.uint8).expand(6, 1, 32, 32) * 8  # a ramp, which stays one at any size
    recipe = Recipe(epochs=3, first_size=0.5, shift=0, batch_size=4)
    for epoch, side in ((1, 16), (2, 24), (3, 32)):
        found = list(batches(Images(pixels, pixels[:, 0]), recipe, 0, epoch, CPU))
        assert {tuple(part.shape[1:]) for part, _ in found} == {(1, side, side)}
        assert {tuple(masks.shape[1:]) for _, masks in found} == {(side, side)}
        for part, masks in found:
            assert part.dtype == masks.dtype == torch.uint8
            assert (part[:, 0].int() - masks.int()).abs().max() <= 8  # at most a pixel of the original apart
    (labelled, labels), *_ = batches(Images(pixels, torch.arange(6)), recipe, 0, 1, CPU)
    assert labelled.shape[2:] == (16, 16) and labels.shape == labelled.shape[:1]


def test_masks_move_with_their_images():
    pixels = torch.randint(0, 5, (16, 1, 12, 12), generator=torch.Generator().manual_seed(0)).to(torch.uint8)
    images = Images(pixels, pixels[:, 0])
    for recipe in (Recipe(shift=3, flip=True), Recipe(shift=0, flip=True)):
        for moved, masks in batches(images, recipe, 0, 0, CPU, ignore=0):
            assert torch.equal(moved[:, 0], masks) and masks.dtype == torch.uint8
    blocks = pixels.repeat_interleave(8, 2).repeat_interleave(8, 3)
    for cut, masks in batches(Images(blocks, blocks[:, 0]), Recipe(shift=0, crop=0.2), 0, 0, CPU):
        assert (cut[:, 0] == masks).float().mean() > 0.5  # but for the colours between two blocks
    (_, masks), *_ = batches(images, Recipe(shift=3), 0, 0, CPU, ignore=255)
    assert (masks == 255).any()
    with pytest.raises(InputError, match="Masks can't follow"):
        next(batches(images, Recipe(mixup=0.2), 0, 0, CPU))
