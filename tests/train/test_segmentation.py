"""Labelling pixels: losses and scores as a plain loop has them, and pixels of no class count nowhere."""

import numpy as np
import pytest
import torch
import torch.nn.functional as F
from hypothesis import given, settings
from hypothesis import strategies as st
from PIL import Image

from convlite.data import Data, Images, load
from convlite.errors import InputError
from convlite.models import create
from convlite.preprocess import Preprocess
from convlite.train import Recipe, Segmentation, score_masks, train
from convlite.train.segmentation import dice_loss

IGNORE = 9


def squares(count, seed):
    """16×16 noise with a bright square; its pixels are class 1, the others 0, the first row no class."""
    source = torch.Generator().manual_seed(seed)
    pixels = torch.randint(0, 80, (count, 3, 16, 16), generator=source, dtype=torch.uint8)
    masks = torch.zeros(count, 16, 16, dtype=torch.uint8)
    for i, (y, x) in enumerate(torch.randint(1, 10, (count, 2), generator=source).tolist()):
        pixels[i, :, y : y + 6, x : x + 6] = 230
        masks[i, y : y + 6, x : x + 6] = 1
    masks[:, 0] = IGNORE
    return Images(pixels, masks)


@pytest.fixture(scope="module")
def data():
    how = Preprocess((16, 16), (0.3,) * 3, (0.3,) * 3)
    return Data(squares(32, 0), squares(8, 1), ("ground", "square"), how, "squares", ignore=IGNORE)


@given(st.integers(0, 99), st.integers(2, 4), st.floats(0, 0.5))
@settings(deadline=None, max_examples=30)
def test_losses_are_those_of_the_pixels_that_count(seed, classes, smoothing):
    torch.manual_seed(seed)
    logits = torch.randn(2, classes, 5, 6, dtype=torch.float64)
    labels = torch.randint(0, classes, (2, 5, 6))
    labels[torch.rand(2, 5, 6) < 0.3] = IGNORE
    known = labels != IGNORE
    task = Segmentation(IGNORE, dice=0.5)
    flat, wanted = logits.movedim(1, -1)[known], labels[known]
    entropy = F.cross_entropy(flat, wanted, label_smoothing=smoothing)
    scores = []
    for each in wanted.unique():
        truth, share = (wanted == each).double(), flat.softmax(1)[:, each]
        scores.append(2 * (truth * share).sum() / (truth + share).sum())
    expected = entropy + 0.5 * (1 - torch.stack(scores).mean())
    torch.testing.assert_close(task.loss(logits, logits, labels.to(torch.uint8), smoothing), expected)
    assert task.judged(labels) == len(wanted)
    assert task.right(logits, labels) == (flat.argmax(1) == wanted).sum()


def test_no_pixel_of_any_class_gives_no_gradient():
    logits = torch.randn(1, 3, 4, 4, requires_grad=True)
    labels = torch.full((1, 4, 4), IGNORE)
    loss = Segmentation(IGNORE, dice=1.0).loss(logits, logits, labels, 0.0)
    loss.backward()
    assert loss == 0 and not logits.grad.any()
    assert dice_loss(logits, labels, IGNORE) == 0


class Fixed(torch.nn.Module):
    """Answers by the brightness of each pixel."""

    def forward(self, x):
        return torch.stack([-x.mean(1), x.mean(1) - 1.0], 1)


@pytest.mark.parametrize("batch_size", [1, 3, 8])
def test_scores_are_those_of_a_plain_loop(data, batch_size):
    found = score_masks(Fixed(), data.test, data, batch_size=batch_size)
    answer = Fixed()(data.normalise(data.test.pixels)).argmax(1)
    known = data.test.labels != IGNORE
    expected = []
    for each in range(2):
        given, truth = (answer == each) & known, (data.test.labels == each) & known
        expected.append(float((given & truth).sum() / (given | truth).sum()))
    assert found.per_class == pytest.approx(expected) and found.miou == pytest.approx(sum(expected) / 2)
    assert found.pixels == int(known.sum())
    assert found.accuracy == pytest.approx(float((answer == data.test.labels)[known].float().mean()))


@pytest.mark.parametrize(
    ("taken", "part"), [((24, 32), (0, 36, 0, 48)), ((20, 20), (0, 36, 6, 42)), ((72, 96), (0, 36, 0, 48))]
)
def test_masks_in_files_are_scored_as_they_stand(tmp_path, taken, part):
    """Of 36×48 pixels, whatever the network takes: its answers are scaled, the masks are not."""
    source = np.random.default_rng(0)
    every = []
    for side in ("train", "test"):
        for name in ("images", "masks"):
            (tmp_path / side / name).mkdir(parents=True)
        for i in range(3):
            image = source.integers(0, 256, (36, 48, 3), dtype=np.uint8)
            mask = source.choice([0, 1, IGNORE], (36, 48)).astype(np.uint8)
            Image.fromarray(image).save(tmp_path / side / "images" / f"{i}.png")
            Image.fromarray(mask).save(tmp_path / side / "masks" / f"{i}.png")
            every.append(mask)
    data = load(tmp_path, classes=2, ignore=IGNORE, size=taken)
    found = score_masks(Fixed(), data.test, data, batch_size=2)
    top, bottom, left, right = part
    masks = torch.from_numpy(np.stack(every[3:]))[:, top:bottom, left:right]
    pixels = next(data.test.parts([torch.arange(3)])).pixels
    scores = Fixed()(data.normalise(pixels))
    answer = F.interpolate(scores, masks.shape[1:], mode="bilinear", align_corners=False).argmax(1)
    known = masks != IGNORE
    assert found.pixels == int(known.sum())
    assert found.accuracy == pytest.approx(float((answer == masks)[known].float().mean()))
    assert next(data.test.parts([torch.arange(3)])).labels.shape[1:] == taken  # to learn from, as ever


def test_deeplab_learns_to_find_squares(data):
    torch.manual_seed(0)
    net = create("xception_small", depth=1, width=0.5, head="deeplabv3plus", num_classes=2)
    before = score_masks(net, data.test, data).miou
    train(net, data, Recipe(epochs=16, batch_size=8, rate=0.05, shift=0), task=Segmentation(IGNORE), progress=False)
    assert before < 0.5 < 0.65 < score_masks(net, data.test, data).miou


def test_what_is_refused(data):
    with pytest.raises(InputError, match=r"needs? \(1, 2, 16, 16\)"):
        train(create("xception_small", num_classes=2), data, task=Segmentation(IGNORE), progress=False)
    plain = Data(data.train, data.test, data.classes, data.preprocess, "plain")
    with pytest.raises(InputError, match="needs masks"):
        train(Fixed(), plain, task=Segmentation(IGNORE), progress=False)
    with pytest.raises(InputError, match="needs masks"):
        score_masks(Fixed(), plain.test, plain)
