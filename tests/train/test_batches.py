"""Batches: every image once an epoch, in an order that the seed and the epoch decide."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.data import Images
from convlite.train import Recipe
from convlite.train.augment import augment
from convlite.train.batches import batches, steps_in
from convlite.train.seeds import generator

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


@given(st.integers(0, 4), st.booleans(), st.integers(0, 2**31))
@settings(deadline=None, max_examples=40)
def test_augment_is_the_plain_loop(shift, flip, seed):
    torch.manual_seed(seed)
    pixels = torch.randint(0, 256, (6, 2, 7, 9), dtype=torch.uint8)
    moved = augment(pixels, shift, flip, generator(seed))
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
    places = augment(pixels, 2, False, generator(0)).squeeze(1).nonzero()[:, 1:]
    assert len(places) == 400
    assert {tuple(place) for place in places.tolist()} == {(r, c) for r in range(2, 7) for c in range(2, 7)}


def test_half_of_the_images_are_mirrored():
    pixels = torch.arange(8, dtype=torch.uint8).expand(1000, 1, 8, 8)
    mirrored = augment(pixels, 0, True, generator(1))[:, 0, 0, 0] == 7
    assert 0.44 < mirrored.float().mean() < 0.56
