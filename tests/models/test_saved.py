"""Networks saved before a change of format answer as they did."""

import json

import pytest
import safetensors.torch
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import nn

from convlite.errors import InputError
from convlite.kinds import Separable
from convlite.models import create
from convlite.models.saved import load, save
from convlite.models.surgery import replace_
from convlite.nn import SeparableConv2d


@given(terms=st.integers(1, 3), seed=st.integers(0, 99), code=st.booleans())
@settings(deadline=None, max_examples=10)
def test_interleaved_terms_of_format_1_are_put_into_blocks(tmp_path_factory, terms, seed, code):
    torch.manual_seed(seed)
    folder = tmp_path_factory.mktemp("saved")
    kind = Separable(order="pointwise_first", multiplier=terms)
    original = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 3))
    if code:
        net = replace_(original, {"0": kind, "2": kind}).eval()
        again = nn.Sequential(nn.Conv2d(3, 5, 3, padding=1), nn.ReLU(), nn.Conv2d(5, 2, 3))
    else:
        net, again = create("resnet20", conv=kind, num_classes=3).eval(), None
    save(net, folder)
    weights = safetensors.torch.load_file(folder / "model.safetensors")
    for path, each in net.named_modules():
        if isinstance(each, SeparableConv2d):
            name = f"{path}.pointwise.weight"
            blocks = weights[name].unflatten(0, (terms, each.out_channels))
            weights[name] = blocks.transpose(0, 1).flatten(0, 1).contiguous()
    safetensors.torch.save_file(weights, folder / "model.safetensors")
    config = json.loads((folder / "config.json").read_text())
    (folder / "config.json").write_text(json.dumps(config | {"format": 1}))
    loaded = load(folder, model=again)
    for name, tensor in net.state_dict().items():
        assert torch.equal(loaded.state_dict()[name], tensor)


def test_a_format_of_the_future_is_refused(tmp_path):
    save(create("resnet20"), tmp_path)
    config = json.loads((tmp_path / "config.json").read_text())
    (tmp_path / "config.json").write_text(json.dumps(config | {"format": 3}))
    with pytest.raises(InputError, match="of format 1 or 2"):
        load(tmp_path)
