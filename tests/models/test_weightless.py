"""A network without numbers counts as one with them."""

import pytest
import torch

import convlite
from convlite.models import FAMILIES
from convlite.models.weightless import weightless


@pytest.mark.parametrize("name", ["xception_small", "resnet20", "mobilenet_v2", "shufflenet_v2_x0_5"])
def test_it_is_the_same_network_but_for_its_numbers(name):
    with weightless():
        net = convlite.create(name)
    real = convlite.create(name)
    assert all(t.is_meta for t in net.state_dict().values())
    assert {k: v.shape for k, v in net.state_dict().items()} == {k: v.shape for k, v in real.state_dict().items()}
    assert convlite.analyse(net, FAMILIES[name].input) == convlite.analyse(real, FAMILIES[name].input)


def test_tensors_with_data_are_filled_as_ever():
    with weightless():
        kept = torch.zeros(3, device="cpu")
        kept += 2
        empty = torch.empty(3).normal_()
    assert kept.tolist() == [2, 2, 2]
    assert empty.is_meta
