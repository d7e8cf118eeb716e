"""Parameters and multiply-accumulates, to the unit, of every network whose figures are published or counted."""

import peers
import pytest

from convlite.kinds import Normal
from convlite.models import names

pytestmark = pytest.mark.usefixtures("fill_once")

PUBLISHED = {  # trainable parameters, multiply-accumulates of convolutions and linear layers
    "resnet18": (11_689_512, 1_814_073_344),
    "resnet34": (21_797_672, 3_663_761_408),
    "resnet50": (25_557_032, 4_089_184_256),
    "resnet101": (44_549_160, 7_801_405_440),
    "resnet152": (60_192_808, 11_513_626_624),
    "resnext50_32x4d": (25_028_904, 4_230_479_872),
    "resnet20": (269_722, 40_551_040),
    "resnet32": (464_154, 68_862_592),
    "resnet44": (658_586, 97_174_144),
    "resnet56": (853_018, 125_485_696),
    "vgg11": (132_863_336, 7_609_090_048),
    "vgg13": (133_047_848, 11_308_466_176),
    "vgg16": (138_357_544, 15_470_264_320),
    "vgg19": (143_667_240, 19_632_062_464),
    "vgg11_bn": (132_868_840, 7_609_090_048),
    "vgg13_bn": (133_053_736, 11_308_466_176),
    "vgg16_bn": (138_365_992, 15_470_264_320),
    "vgg19_bn": (143_678_248, 19_632_062_464),
    "xception": (22_855_952, 8_357_403_496),
    "xception41": (26_969_560, 9_204_134_312),
    "xception65": (39_916_312, 13_852_682_216),
    "xception71": (42_338_736, 17_946_553_928),
    "xception41p": (26_907_752, 9_204_134_312),
    "xception65p": (39_819_560, 13_852_682_216),
    "mobilenet_v1": (4_231_976, 568_740_352),
    "mobilenet_v2": (3_504_872, 300_774_272),
    "mobilenet_v3_small": (2_542_856, 56_510_400),
    "mobilenet_v3_large": (5_483_032, 216_589_760),
    "inception_v1": (6_998_552, 1_582_671_872),
    "inception_v1_bn": (7_005_832, 1_582_671_872),
    "googlenet": (6_624_904, 1_498_376_192),
    "inception_v2": (11_295_240, 2_032_600_064),
    "inception_v2_paper": (11_194_984, 2_018_851_840),
    "inception_v4": (42_679_816, 12_253_974_624),
    "inception_resnet_v2": (55_843_464, 13_155_794_016),
    "inception_v3": (23_834_568, 5_713_216_096),
    "shufflenet_v1_g3": (1_865_728, 137_460_672),
    "shufflenet_v1_g8": (2_434_768, 138_365_952),
    "shufflenet_v2_x0_5": (1_366_792, 40_476_448),
    "shufflenet_v2_x1_0": (2_278_604, 144_907_992),
}
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
