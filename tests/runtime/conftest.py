"""What the tests of engines share: a small network, a home of their own, and other packages' warnings let be."""

from pathlib import Path

import peers
import pytest
import torch
from torch import nn

# What the code of torch, ONNX and NNCF does is not ours to put right.
THEIRS = [pytest.mark.filterwarnings(f"ignore::{name}") for name in ("FutureWarning", "DeprecationWarning")]


def pytest_collection_modifyitems(items):
    for item in items:
        if Path(__file__).parent in item.path.parents:
            for mark in THEIRS:
                item.add_marker(mark)


@pytest.fixture(autouse=True)
def home(tmp_path, monkeypatch):
    """Where measured choices and the machine's peaks are remembered."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture(scope="module")
def net():
    """In training mode, as users hand them over: what is measured or exported must take care of that."""
    torch.manual_seed(0)
    layers = (
        nn.Conv2d(3, 8, 3),
        nn.BatchNorm2d(8),
        nn.ReLU(),
        nn.AdaptiveAvgPool2d(1),
        nn.Flatten(),
        nn.Linear(8, 5),
    )
    return peers.randomise_(nn.Sequential(*layers)).train()
