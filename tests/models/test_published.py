"""Parameters and multiply-accumulates, to the unit, of every network whose figures are published or counted."""

import peers
import pytest
from published import PUBLISHED

from convlite.kinds import Normal
from convlite.models import names

pytestmark = pytest.mark.usefixtures("fill_once")

OURS = {"xception_small", "inception_v1_naive"}  # no figures are published


@pytest.mark.parametrize("name", PUBLISHED)
def test_exact_counts(name):
    assert peers.count(name) == PUBLISHED[name]


def test_every_network_is_held_to_its_figures():
    assert set(names()) == set(PUBLISHED) | OURS


@pytest.mark.parametrize(
    ("name", "params"), [("inception_v1", 13_378_280), ("googlenet", 13_004_888), ("inception_v3", 27_161_264)]
)
def test_exact_counts_with_auxiliary_heads(name, params):
    assert peers.count(name, aux=True) == (params, PUBLISHED[name][1])  # which do not run in evaluation


def test_the_dense_twin_of_mobilenet_is_the_papers():
    params, macs = peers.count("mobilenet_v1", conv=Normal())
    assert (round(params / 1e6, 1), round(macs / 1e7)) == (29.3, 487)  # table 4: 29.3 and 4866 million
