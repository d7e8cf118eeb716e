import json

import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.kinds import Grouped, Separable
from convlite.models import FAMILIES, create, names, options, recreate


def test_names_and_options():
    assert {"xception", "xception_small", "resnet20"} <= set(names()) == set(FAMILIES)
    assert options("resnet20") == {}  # the depth is in the name
    assert options("xception")["residual"] is True


@pytest.mark.parametrize(
    ("name", "arguments", "message"),
    [
        ("exception", {}, "There is no network 'exception'; did you mean xception"),
        ("resnet20", {"residul": 1}, "resnet20 takes no option 'residul'"),
        ("xception", {"residul": 1}, "did you mean residual"),
        ("resnet20", {"depth": 32}, "takes no option 'depth'"),
        ("resnet20", {"num_classes": -1}, "-1 classes"),
        ("resnet20", {"in_channels": 0}, "0 channels"),
        ("resnet20", {"output_stride": 16}, r"one of \[1, 2, 4\] for this network, given 16"),
        ("resnet20", {"dropout": 1.5}, "dropout is a probability from 0 to below 1, given 1.5"),
        ("resnet20", {"drop_path": -1}, "drop_path is a probability"),
        ("xception_small", {"residual": False, "drop_path": 0.1}, "this network has none"),
    ],
)
def test_bad_requests_end_in_one_sentence(name, arguments, message):
    with pytest.raises(InputError, match=message) as caught:
        create(name, **arguments)
    assert "\n" not in str(caught.value)


def test_a_network_knows_how_to_be_made_again():
    net = create("xception_small", conv=Grouped(4), num_classes=7, in_channels=1, hidden=(12,), drop_path=0.2)
    record = json.loads(json.dumps(net._convlite["create"]))
    again = recreate(record)
    again.load_state_dict(net.state_dict())
    x = torch.randn(2, 1, 32, 32)
    torch.testing.assert_close(again.eval()(x), net.eval()(x))
    assert again._convlite == net._convlite and again.kept == net.kept
    with pytest.raises(InputError, match="no network 'xceptoin'"):
        recreate({**record, "name": "xceptoin"})


def test_the_record_follows_the_classifier():
    net = create("resnet20")
    net.reset_classifier(3)
    assert recreate(net._convlite["create"])(torch.randn(2, 3, 32, 32)).shape == (2, 3)


def test_code_between_convolutions_works_but_is_not_written_down():
    net = create("resnet20", conv=Separable(between=lambda: nn.LeakyReLU(0.3)))
    assert not hasattr(net, "_convlite")
    assert any(isinstance(m, nn.LeakyReLU) for m in net.modules())


def test_what_could_not_be_replaced_is_told():
    net = create("resnet20", conv=Grouped(32))
    assert set(net.kept) == {
        path for path, m in net.named_modules() if isinstance(m, nn.Conv2d) and m.groups == 1 and path[:4] != "stem"
    }
    assert net.kept["stage1.block1.branch.unit1.conv"] == "32 groups don't divide 16 channels in and 16 out"
    assert net.stage3.block1.branch.unit1.conv.groups == 32
