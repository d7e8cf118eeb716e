"""Labels for every pixel: the network's own where it sees all of a picture, and none left out where it doesn't."""

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image
from torch import nn

from convlite.data.pictures import read
from convlite.preprocess import HALF, Preprocess
from convlite.runtime import predict, predictor
from convlite.runtime.segment import label, look

HOW = Preprocess((12, 16), *HALF)


class Colours(nn.Module):
    """Scores of the classes red, green, blue: how much of each colour there is."""

    def forward(self, x):
        return 50 * x


def noise(path, height, width, seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    Image.fromarray(pixels).save(path)
    return path


def test_a_picture_of_the_networks_size_gets_the_networks_labels(tmp_path):
    torch.manual_seed(0)
    net = nn.Conv2d(3, 5, 3, padding=1)
    file = noise(tmp_path / "a.png", *HOW.size)
    (one,) = predict(predictor(net, HOW, "abcde"), [file], top=9)
    with torch.no_grad():
        expected = net(HOW.normalise(read(file, HOW)[None])).argmax(1)[0].numpy()
    assert (one.labels.mask == expected).all() and (one.labels.picture == np.asarray(Image.open(file))).all()
    counts = {name: (expected == i).mean() for i, name in enumerate("abcde")}
    assert dict(one.classes) == {name: pytest.approx(share) for name, share in counts.items() if share}
    assert [share for _, share in one.classes] == sorted(dict(one.classes).values(), reverse=True)
    assert one.to_dict()["classes"][0] == {"name": one.classes[0][0], "share": one.classes[0][1]}


@settings(deadline=None, max_examples=40)
@given(st.integers(1, 70), st.integers(1, 70), st.sampled_from([1.0, 0.875, 0.5]))
def test_windows_cover_all_of_a_picture_and_nothing_else(tmp_path_factory, height, width, crop):
    how = Preprocess(HOW.size, *HALF, crop)
    file = noise(tmp_path_factory.mktemp("noise") / "a.png", height, width)
    seen = look(file, how)
    if isinstance(seen, str):
        assert "too long and narrow" in seen and max(height / width, width / height) > 40 * crop**2
        return
    covered = np.zeros(seen.size, int)
    for (y, x), window in zip(seen.corners, seen.windows, strict=True):
        assert window.shape == (3, *how.size) and min(y, x) >= 0
        covered[y : y + how.size[0], x : x + how.size[1]] += 1
    assert covered.shape == seen.size and covered.min() >= 1
    for axis in (0, 1):  # no more of them than needed
        assert len({c[axis] for c in seen.corners}) == -(-seen.size[axis] // how.size[axis])
    mask = label(seen, lambda pixels: np.zeros((len(pixels), 4, *how.size), np.float32))
    assert mask.shape == (height, width)


@pytest.mark.parametrize(("height", "width"), [(24, 96), (96, 24), (48, 64)])
def test_labels_lie_where_their_pixels_do(tmp_path, height, width):
    """A picture of three stripes, of any form, with a network that only names the colours."""
    pixels = np.zeros((height, width, 3), np.uint8)
    stripe = np.arange(width) * 3 // width
    pixels[:, np.arange(width), stripe] = 255
    Image.fromarray(pixels).save(tmp_path / "a.png")
    (one,) = predict(predictor(Colours(), HOW, ("red", "green", "blue")), [tmp_path / "a.png"])
    right = one.labels.mask == stripe
    assert right.mean() > 0.9
    edges = np.abs(np.diff(stripe, prepend=0)) + np.abs(np.diff(stripe, append=2))
    far = np.convolve(edges, np.ones(9), "same") == 0
    assert right[:, far].all()


def test_what_can_t_be_read_is_said(tmp_path):
    noise(tmp_path / "a.png", 9, 9)
    (tmp_path / "b.png").write_bytes((tmp_path / "a.png").read_bytes()[:50])
    noise(tmp_path / "strip.png", 2, 900)
    names = ["a.png", "b.png", "strip.png", "none.png"]
    found = list(predict(predictor(Colours(), HOW), [tmp_path / name for name in names]))
    assert [one.why_not is None for one in found] == [True, False, False, False]
    assert "narrow" in found[2].why_not and "No such file" in found[3].why_not
