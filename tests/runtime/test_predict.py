"""Prediction on files: what evaluation would have said, and a reason where a file can't be read."""

import pytest
import torch
from PIL import Image

from convlite import data
from convlite.errors import InputError
from convlite.preprocess import Preprocess
from convlite.runtime import find_files, predict, predictor

PREPROCESS = Preprocess((8, 8), (0.4, 0.5, 0.6), (0.2, 0.3, 0.4))
CLASSES = ("red", "green", "blue")


@pytest.fixture
def net():
    torch.manual_seed(0)
    return torch.nn.Sequential(
        torch.nn.Conv2d(3, 3, 3), torch.nn.BatchNorm2d(3), torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten()
    )


@pytest.fixture
def files(tmp_path):
    for i, name in enumerate(["a.png", "b.jpg", "sub/c.PNG"]):
        (tmp_path / name).parent.mkdir(exist_ok=True)
        Image.effect_noise((8 + i, 9), 90).convert("RGB").save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("no image")
    (tmp_path / "cut.png").write_bytes((tmp_path / "a.png").read_bytes()[:60])
    return tmp_path


@pytest.mark.parametrize("batch_size", [1, 2, 32])
def test_a_prediction_is_what_the_network_says_of_the_same_pixels(net, files, batch_size):
    names = [files / "a.png", files / "cut.png", files / "b.jpg", files / "notes.txt", files / "sub" / "c.PNG"]
    found = list(predict(predictor(net, PREPROCESS, CLASSES), names, top=2, batch_size=batch_size))
    assert [p.file for p in found] == list(map(str, names))
    assert [p.why_not is None for p in found] == [True, False, True, False, True]
    assert "no image" in found[3].why_not and found[3].classes == ()
    assert net.training  # as it was
    net.eval()
    for prediction in (found[0], found[2], found[4]):
        pixels = data.pictures.read(prediction.file, PREPROCESS)[None]
        floats = (pixels.double() / 255 - torch.tensor([0.4, 0.5, 0.6])[:, None, None]) / torch.tensor(
            [0.2, 0.3, 0.4]
        )[:, None, None]
        expected = net(floats.float()).softmax(1)[0]
        best = expected.argsort(descending=True)[:2].tolist()
        assert [name for name, _ in prediction.classes] == [CLASSES[i] for i in best]
        for (_, share), i in zip(prediction.classes, best):
            assert abs(share - expected[i].item()) < 1e-5
    assert found[0].to_dict()["why_not"] is None


def test_all_classes_are_named_where_there_are_fewer_than_asked_for(net, files):
    (only,) = predict(predictor(net, PREPROCESS, CLASSES), [files / "a.png"], top=9)
    assert len(only.classes) == 3 and abs(sum(share for _, share in only.classes) - 1) < 1e-5


def test_classes_without_names_have_numbers(net, files):
    (only,) = predict(predictor(net, PREPROCESS), [files / "a.png"], top=9)
    assert {name for name, _ in only.classes} == {"class 0", "class 1", "class 2"}


def test_folders_and_patterns_stand_for_their_images(files):
    every = [files / "a.png", files / "b.jpg", files / "cut.png", files / "sub" / "c.PNG"]
    assert find_files([files]) == every
    assert find_files([f"{files}/*.png"]) == [files / "a.png", files / "cut.png"]
    assert find_files([f"{files}/**/*.PNG", str(files / "notes.txt")]) == [every[3], files / "notes.txt"]


def test_what_is_refused_at_once(net, files):
    (files / "empty").mkdir()
    for paths, says in {
        ("nothing.png",): "no file 'nothing.png'",
        (files / "empty",): "has no images",
        (f"{files}/*.gif",): "no file",
        (): "no files to predict",
    }.items():
        with pytest.raises(InputError, match=says):
            find_files(paths)
    found = predictor(net, PREPROCESS, CLASSES)
    with pytest.raises(InputError, match="1 or more, not 0"):
        predict(found, [files], top=0)
    with pytest.raises(InputError, match="num_classes=2"):
        predictor(net, PREPROCESS, CLASSES[:2])
    with pytest.raises(InputError, match="can't take images of 1x8x8"):
        predictor(net, Preprocess((8, 8), (0.5,), (0.5,)))
    with pytest.raises(InputError, match="does not say how it takes pictures"):
        predictor(net)
    with pytest.raises(InputError, match=r"answers an image with \(1, 3, 6, 6\)"):
        predictor(net[0], PREPROCESS, CLASSES)
