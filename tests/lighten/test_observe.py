"""What layers do and what the network answers, seen in one run."""

from functools import partial

import pytest
import torch
from nets import Awkward

import convlite as cl
from convlite.lighten.answers import answers
from convlite.lighten.observe import observe
from convlite.lighten.survey import survey


@pytest.mark.parametrize("first", [40, 64, 100])
@pytest.mark.parametrize("make", [Awkward, partial(cl.create, "resnet20")])
def test_one_run_sees_what_two_would(make, first):
    """What layers do on the first images, and what the network answers to all; batches don't end where those do."""
    torch.manual_seed(0)
    net, images = make().eval(), torch.randn(150, 3, 12, 12)
    convs = {path: layer.conv for path, layer in survey(net, (3, 12, 12)).layers.items()}
    (seen, known), (alone, some) = observe(net, convs, images, first=first), observe(net, convs, images[:first])
    assert len(some.images) == first and len(known.images) == 150
    for out, expected in zip(known.outputs, answers(net, images).outputs):
        assert torch.equal(out, expected)
    for path, at in seen.items():
        torch.testing.assert_close(at.wanted, alone[path].wanted)
        torch.testing.assert_close(at.sums.second, alone[path].sums.second, rtol=1e-5, atol=1e-3)
        assert at.sums.rows == alone[path].sums.rows
