"""The choice of an engine: never one that answers otherwise, measured once, plain torch for little work."""

import copy
import json

import numpy as np
import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.preprocess import HALF, Preprocess
from convlite.runtime import Session, choose, export, predictor
from convlite.runtime.choice import _key, memory

SHAPE = (3, 16, 16)


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    how = Preprocess(SHAPE[1:], *HALF)
    return export(
        net, tmp_path_factory.mktemp("exported") / "net.onnx", SHAPE, preprocess=how, classes="abcde"
    ).path


def scores(net, images):
    """By the module in double precision, evaluated."""
    exact = nn.Sequential(*net).double().eval()
    with torch.no_grad():
        found = exact(torch.from_numpy(images).double()).numpy()
    net.float().train()
    return found


@pytest.mark.parametrize("engine", ["auto", "torch", "torch-channels-last", "onnxruntime"])
def test_every_engine_answers_as_the_module_does(net, engine):
    session = choose(net, SHAPE, engine=engine, threads=1)
    images = np.random.default_rng(0).standard_normal((3, *SHAPE), dtype=np.float32)
    expected = scores(net, images)
    assert np.abs(session(images) - expected).max() < 1e-5 * np.abs(expected).max()
    assert session.name == ("torch-channels-last" if engine == "auto" else engine)
    assert session.threads == 1
    assert net.training  # as it was
    assert not memory().exists(), "for a handful nothing is measured"


def test_much_work_is_measured_once(net, file, home, monkeypatch):
    monkeypatch.setattr("convlite.runtime.choice.WORTH", 0)
    images = np.random.default_rng(0).standard_normal((3, *SHAPE), dtype=np.float32)
    said = []

    def chosen(network):
        session = choose(network, SHAPE, count=1000, batch=4, threads=1, tell=said.append)
        assert np.abs(session(images) - scores(net, images)).max() < 1e-4
        return session.name

    first = chosen(file)
    assert "Measured on 4 images at once" in said[-1] and first in said[-1]
    assert (chosen(file), len(said)) == (first, 1)
    chosen(net)  # the same network as a module may run on other engines
    assert len(said) == 2 and len(json.loads(memory().read_text())) == 2
    memory().write_text("no JSON")
    chosen(file)
    assert len(said) == 3 and len(json.loads(memory().read_text())) == 1


def test_what_is_remembered_is_of_one_network_size_and_number_of_threads(net):
    other = copy.deepcopy(net)
    with torch.no_grad():
        other[0].bias += 0.5
    keys = [_key(*each) for each in ((net, SHAPE, 1), (other, SHAPE, 1), (net, (3, 8, 8), 1), (net, SHAPE, 2))]
    assert len(set(keys)) == 4 and _key(copy.deepcopy(net), SHAPE, 1) == keys[0]


def test_what_answers_otherwise_or_fails_is_not_taken(net, monkeypatch):
    from convlite.runtime import choice as module

    real = module.open_engine

    def odd(network, engine, *args, **kwargs):
        if engine == "openvino":
            raise InputError("it can't express this.")
        session = real(network, engine, *args, **kwargs)
        off = 0.01 if engine == "onnxruntime" else 0
        return Session(session.name, session.precision, session.threads, lambda images: session(images) + off)

    monkeypatch.setattr(module, "WORTH", 0)
    monkeypatch.setattr(module, "open_engine", odd)
    said = []
    chosen = module.choose(net, SHAPE, count=1000, threads=1, tell=said.append).name
    assert chosen in ("torch-channels-last", "convlite")
    assert any("onnxruntime answers differently" in text for text in said)
    assert any("openvino can't run this network: it can't express" in text for text in said)


def test_a_home_that_can_t_be_written_to_is_no_hindrance(net, home, monkeypatch):
    monkeypatch.setattr("convlite.runtime.choice.WORTH", 0)
    home.write_text("")
    monkeypatch.setenv("XDG_CACHE_HOME", str(home))
    assert choose(net, SHAPE, count=1000, threads=1)(np.zeros((1, *SHAPE), np.float32)).shape == (1, 5)


def test_an_exported_file_knows_its_pictures_and_classes(net, file):
    found = predictor(file, threads=1)
    assert (found.how, found.classes, found.labels_pixels) == (Preprocess((16, 16), *HALF), tuple("abcde"), False)
    assert found.session.name == "onnxruntime"
    pixels = torch.randint(0, 256, (3, *SHAPE), dtype=torch.uint8)
    expected = predictor(net, found.how, found.classes).scores(pixels)
    for engine in ("auto", "openvino"):
        np.testing.assert_allclose(predictor(file, engine=engine).scores(pixels), expected, atol=1e-5)
    with pytest.raises(InputError, match="torch reads"):
        predictor(file, engine="torch")
