"""Evaluation counts what a plain loop counts, and leaves the network as it was."""

import copy
import io
import json
from dataclasses import replace

import pytest
import torch
from PIL import Image

from convlite.data import Data, Files, Images
from convlite.errors import InputError
from convlite.preprocess import Preprocess
from convlite.train import evaluate


@pytest.mark.parametrize("batch_size", [1, 7, 50, 256])
def test_every_figure_is_that_of_a_plain_loop(net, tiny, batch_size):
    score = evaluate(net, tiny.test, tiny, batch_size=batch_size)
    with torch.no_grad():
        logits = copy.deepcopy(net).eval()(tiny.normalise(tiny.test.pixels)).double()
    labels, right = tiny.test.labels.tolist(), 0
    by_class = {c: [] for c in range(3)}
    loss = 0.0
    for row, label in zip(logits, labels):
        hit = max(range(3), key=lambda c: float(row[c])) == label
        right += hit
        by_class[label].append(hit)
        loss -= float(row.log_softmax(0)[label])
    assert (score.correct, score.count) == (right, 50)
    assert score.top1 == right / 50 and score.top5 == 1.0  # of three classes, five hold all
    assert score.per_class == tuple(sum(hits) / len(hits) for hits in by_class.values())
    assert abs(score.loss - loss / 50) < 1e-5
    answers = [max(range(3), key=lambda c, row=row: float(row[c])) for row in logits]
    pairs = list(zip(labels, answers))
    assert score.confusion == tuple(tuple(pairs.count((a, b)) for b in range(3)) for a in range(3))
    error = 0.0
    sure = [float(row.softmax(0).max()) for row in logits]
    for i in range(15):
        inside = [j for j, p in enumerate(sure) if i / 15 < p <= (i + 1) / 15]
        error += abs(sum(sure[j] for j in inside) - sum(answers[j] == labels[j] for j in inside)) / 50
    assert score.calibration_error == pytest.approx(error, abs=1e-5)
    plain = json.loads(json.dumps(score.to_dict()))
    assert plain["correct"] == right and "confusion" not in plain


def test_sure_and_right_is_calibrated_sure_and_wrong_is_not(tiny):
    class Sure(torch.nn.Module):
        def forward(self, x):
            return 100 * torch.eye(3)[answers[: len(x)]]

    for wrong, expected in ((0, 0.0), (25, 0.5), (50, 1.0)):
        answers = tiny.test.labels.clone()
        answers[:wrong] = (answers[:wrong] + 1) % 3
        score = evaluate(Sure(), tiny.test, tiny)
        assert (score.calibration_error, score.top1) == pytest.approx((expected, 1 - expected))


def test_of_very_many_classes_no_pairs_are_counted():
    class Middle(torch.nn.Module):
        def forward(self, x):
            return torch.eye(1500)[700].expand(len(x), 1500)

    images = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 700, 700, 1499]))
    data = Data(images, images, tuple(map(str, range(1500))), Preprocess((2, 2), (0.0,), (1.0,)), "made")
    score = evaluate(Middle(), images, data)
    assert score.confusion is None and score.top1 == 0.5
    assert (score.per_class[0], score.per_class[700], score.per_class[5]) == (0.0, 1.0, None)


def test_top5_and_a_class_without_images():
    class Fixed(torch.nn.Module):
        def forward(self, x):
            return -torch.arange(8.0).expand(len(x), 8)  # class 0 first, then 1, 2, ...

    images = Images(torch.zeros(4, 1, 2, 2, dtype=torch.uint8), torch.tensor([0, 4, 5, 7]))
    data = Data(images, images, tuple("abcdefgh"), Preprocess((1, 1), (0.0,), (1.0,)), "made")
    score = evaluate(Fixed(), images, data)
    assert (score.top1, score.top5) == (0.25, 0.5)
    assert score.per_class == (1.0, None, None, None, 0.0, 0.0, None, 0.0)


def test_files_are_measured_as_memory_is_and_broken_ones_left_out(net, tiny):
    content = []
    for pixels in tiny.test.pixels:
        stream = io.BytesIO()
        Image.fromarray(pixels.permute(1, 2, 0).numpy()).save(stream, "png")
        content.append(stream.getvalue())
    names = [str(i) for i in range(len(content))]
    files = Files(content, names, tiny.test.labels, tiny.preprocess)
    assert evaluate(net, files, tiny, batch_size=7) == evaluate(net, tiny.test, tiny, batch_size=7)
    content[3] = content[40] = b""
    rest = tiny.test[torch.tensor([i for i in range(50) if i not in (3, 40)])]
    found = evaluate(net, replace(files, skip=True), tiny)
    assert found.count == 48 and found.correct == evaluate(net, rest, tiny).correct
    with pytest.raises(InputError, match="None of the 2 images"):
        evaluate(net, replace(files[torch.tensor([3, 40])], skip=True), tiny)


def test_the_network_is_left_as_it_was_also_after_a_failure(net, tiny):
    net.train()
    net[1].eval()  # a frozen norm
    before = {name: value.clone() for name, value in net.state_dict().items()}
    modes = [module.training for module in net.modules()]
    evaluate(net, tiny.test, tiny)
    wrong = Images(tiny.test.pixels[:, :1], tiny.test.labels)
    with pytest.raises(RuntimeError):
        evaluate(net, wrong, tiny)
    assert [module.training for module in net.modules()] == modes
    assert all(torch.equal(value, before[name]) for name, value in net.state_dict().items())


def test_the_layout_in_memory_changes_no_figure(net, tiny):
    plain = evaluate(net, tiny.test, tiny)
    assert evaluate(net.to(memory_format=torch.channels_last), tiny.test, tiny) == plain


def test_networks_and_images_that_do_not_fit(net, tiny):
    with pytest.raises(InputError, match=r"of 3x12x12 with \(1, 8, 5, 5\), but expected was 3 classes"):
        evaluate(net[:6], tiny.test, tiny)
    net[0] = torch.nn.Conv2d(1, 8, 3)
    with pytest.raises(InputError, match="can't take images of 3x12x12"):
        evaluate(net, tiny.test, tiny)
    with pytest.raises(InputError, match="no images"):
        evaluate(net, tiny.test[:0], tiny)
