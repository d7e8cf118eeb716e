"""Which images are fitted, and which are set aside."""

import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from convlite.kinds import Conv
from convlite.lighten.images import CALIBRATION, PIXELS, split
from convlite.lighten.patches import ROWS_PER_COLUMN, images_for


@settings(max_examples=40, deadline=None)
@given(
    count=st.integers(2, 9000),
    size=st.sampled_from([1, 32, 64]),
    seed=st.integers(0, 9),
    enough=st.integers(1, 9000),
)
def test_as_many_are_fitted_as_it_takes_and_others_are_set_aside(count, size, seed, enough):
    order, *parts = split(torch.zeros(1).expand(count, 1, size, size), seed, enough)
    assert sorted(order.tolist()) == list(range(count))
    of = [set(order[part].tolist()) for part in parts]
    assert of[1] <= of[0]
    if count < 10:
        assert of[0] == of[2] == set(range(count))
        return
    assert of[0] | of[2] == set(range(count)) and not of[0] & of[2]
    assert len(of[2]) == min(count // 5, CALIBRATION // 4)
    least = min(len(of[0]), CALIBRATION)
    assert least <= len(of[1]) <= max(least, enough)
    assert len(of[1]) * size**2 <= max(PIXELS, CALIBRATION * size**2)


@settings(max_examples=40, deadline=None)
@given(c=st.integers(1, 64), k=st.sampled_from([1, 3]), sizes=st.lists(st.integers(1, 40), min_size=1, max_size=4))
def test_small_maps_need_more_images(c, k, sizes):
    layers = [Conv(c=c, m=8, k=(k, k), h=size, w=size, padding=(k // 2, k // 2)) for size in sizes]
    images = images_for(layers)
    assert images * min(sizes) ** 2 >= ROWS_PER_COLUMN * c * k * k > (images - 1) * min(sizes) ** 2
    assert images_for([]) == 1
