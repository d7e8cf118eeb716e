"""Weights in the formats of other libraries give their logits here; every tensor goes to its own place."""

import os
import warnings

import peers
import pytest
import safetensors.torch
import torch
from test_parity import PAIRS

from convlite.errors import InputError
from convlite.models import create, load_weights
from convlite.models.saved import save
from convlite.models.weights.layouts import arrange

pytestmark = pytest.mark.usefixtures("fill_once")
SMALL = ("resnet18", "mobilenet_v1", "mobilenet_v2", "mobilenet_v3_small", "shufflenet_v2_x1_0", "googlenet")


def written(state, path):
    """A state dict as its library would write it."""
    if path.suffix == ".safetensors":
        safetensors.torch.save_file(state, path)
    else:
        torch.save(state, path)
    return path


def names(peer, first):
    return [name for name, _ in peers.tensors(peer, first)]


@pytest.mark.parametrize("pair", PAIRS, ids=lambda pair: f"{pair.ours}-{pair.library}")
def test_the_order_of_layers_comes_from_the_names_alone(pair):
    with torch.device("meta"):
        peer = getattr(peers, pair.library)(pair.peer, **pair.peer_options)
    expected = names(peer, pair.first)
    layout, given = arrange(sorted(expected, reverse=True))
    assert pair.library in layout
    assert given == expected


@pytest.mark.parametrize("pair", [pair for pair in PAIRS if pair.ours in SMALL], ids=lambda pair: pair.peer)
@pytest.mark.parametrize("suffix", [".safetensors", ".pth"])
def test_same_logits(pair, suffix, tmp_path):
    torch.manual_seed(0)
    peer = peers.randomise_(getattr(peers, pair.library)(pair.peer, **pair.peer_options))
    ours = create(pair.ours, **pair.options, pretrained=written(peer.state_dict(), tmp_path / f"peer{suffix}"))
    assert not ours.loaded.left_out and not ours.loaded.fresh
    assert peers.difference(ours, peer, 75) < 1e-4
