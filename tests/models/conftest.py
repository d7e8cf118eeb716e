import pytest
import torch
from torch import nn

# The networks here are tiny; threads that wait for each other cost more than they give.
torch.set_num_threads(1)


@pytest.fixture
def fill_once(monkeypatch):
    """`create` fills every weight itself; without torch's own filling before, that takes half the time."""
    for layer in (nn.modules.conv._ConvNd, nn.Linear):
        monkeypatch.setattr(layer, "reset_parameters", lambda self: None)
