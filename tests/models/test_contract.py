"""What every family promises. A new one is added to `CASES`, and has to pass all of this."""

from dataclasses import dataclass, field
from typing import Any

import peers
import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.kinds import (
    Asymmetric,
    Bottleneck,
    Depthwise,
    Grouped,
    Kind,
    Normal,
    Permuted,
    Pointwise,
    Separable,
    Shuffled,
    Stacked,
)
from convlite.models import Backbone, create
from convlite.models.saved import load, save

pytestmark = pytest.mark.usefixtures("fill_once")

KINDS: list[Kind] = [
    Grouped(4), Separable(), Normal(), Depthwise(), Pointwise(), Separable("pointwise_first", "ReLU", 2),
    Asymmetric(), Asymmetric(3), Stacked(), Bottleneck(), Bottleneck(8, 8, slices=8), Shuffled(4), Permuted(4),
]  # fmt: skip


@dataclass(frozen=True)
class Case:
    """A small member of a family, and a small image for it."""

    name: str
    size: int
    options: dict[str, Any] = field(default_factory=dict)
    heavy: bool = False  # takes long, so it is spared what hangs on the contract more than on the family

    def make(self, **more: Any) -> Backbone:
        torch.manual_seed(0)
        return create(self.name, **self.options, **more)

    def images(self, channels: int = 3, size: int | None = None) -> torch.Tensor:
        return torch.randn(2, channels, size or self.size, size or self.size)


CASES = [
    Case("xception", 71, {"width": 0.1, "depth": 1}),
    Case("xception_small", 32, {"depth": 1}),
    Case("xception41", 33, {"middle": 1, "width": 0.1}),
    Case("xception41p", 33, {"middle": 1, "width": 0.1}, heavy=True),
    Case("vgg11", 32, {"hidden": (32,), "width": 0.25}),
    Case("resnet20", 32),
    Case("resnet18", 64, {"width": 0.25}),
    Case("resnext50_32x4d", 64, {"width": 0.25}, heavy=True),
    Case("inception_v1", 33),
    Case("googlenet", 33),
    Case("inception_v2", 64, heavy=True),
    Case("inception_v3", 75, heavy=True),
    Case("inception_v4", 75, {"blocks": (1, 1, 1)}, heavy=True),
    Case("inception_resnet_v2", 75, {"blocks": (1, 1, 1)}, heavy=True),
    Case("mobilenet_v1", 64, {"width": 0.25}),
    Case("mobilenet_v2", 64, {"width": 0.5}),
    Case("mobilenet_v3_small", 64, {"width": 0.5}),
    Case("shufflenet_v1_g3", 64, heavy=True),
    Case("shufflenet_v2_x0_5", 64),
]
COMPILED = ("xception_small", "inception_v1", "mobilenet_v3_small", "shufflenet_v2_x0_5")  # seconds each
cases = pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
light = pytest.mark.parametrize("case", [case for case in CASES if not case.heavy], ids=lambda case: case.name)


@cases
def test_logits_and_pooled_features(case):
    net = case.make(num_classes=7).eval()
    assert net(case.images()).shape == (2, 7)
    assert net(case.images(size=case.size + 13)).shape == (2, 7)
    net.reset_classifier(0)
    assert net(case.images()).shape == (2, net.num_features)
    net.reset_classifier(5)
    assert net(case.images()).shape == (2, 5)


@cases
@pytest.mark.parametrize("channels", [1, 4])
def test_input_channels(case, channels):
    net = case.make(in_channels=channels).eval()
    net(case.images(channels))
    with pytest.raises(InputError, match=rf"shape \(N, {channels}, H, W\), given \(2, 3, {case.size}"):
        net(case.images(3))


@cases
def test_the_smallest_image(case):
    net = case.make().eval()
    net(case.images(size=net.smallest))
    if net.smallest > 1:
        with pytest.raises(InputError, match=f"takes {net.smallest}×{net.smallest} or more"):
            net(case.images(size=net.smallest - 1))
        net.smallest -= 1  # and this is no more cautious than need be
        with pytest.raises(RuntimeError):
            net(case.images(size=net.smallest))


@cases
def test_feature_maps_are_as_described(case):
    with torch.device("meta"), torch.no_grad():
        net = peers.without_norms(case.make(features_only=True).eval())
        maps = net(torch.empty(2, 3, 2048, 2048))
    assert net.strides == sorted(net.strides) and len(maps) == len(net.strides)
    for found, channels, stride in zip(maps, net.channels, net.strides):
        assert found.shape[1] == channels
        assert abs(found.shape[2] * stride / 2048 - 1) < 0.06
    assert not list(net.head.parameters())
    with pytest.raises(InputError, match="no classifier"):
        net.reset_classifier(3)


@cases
def test_dilation_gives_the_same_pixels_and_those_between(case):
    def make(**more):
        net = case.make(features_only=True, **more).eval()
        for pool in (m for m in net.modules() if isinstance(m, nn.AdaptiveAvgPool2d)):
            # a gate that averages its map sees more pixels of a finer one; let it see the first of both
            pool.forward = lambda x: x[:, :, :1, :1]
        return net

    net = make()
    least = net.strides[-3]  # the last two strides become dilation
    dense = make(output_stride=least)
    assert dense.strides == [min(s, least) for s in net.strides]
    x = case.images(size=case.size + 2)
    with torch.no_grad():
        for coarse, fine, s in zip(net(x), dense(x), net.strides):
            step = max(1, s // least)
            scale = float(coarse.abs().max())
            torch.testing.assert_close(fine[:, :, ::step, ::step], coarse, rtol=1e-3, atol=1e-4 * scale)


@pytest.mark.parametrize(
    ("case", "kind"),
    [(case, kind) for case in CASES for kind in KINDS],
    ids=lambda value: value.name if isinstance(value, Case) else str(value),
)
def test_every_kind_trains_a_step_and_is_saved(case, kind, tmp_path):
    net, x = case.make(conv=kind, num_classes=3), case.images()
    paths = dict(net.named_modules())
    assert all(path in paths for path in net.kept)
    optimiser = torch.optim.SGD(net.parameters(), lr=1e-3)
    nn.functional.cross_entropy(net(x), torch.tensor([0, 2])).backward()
    for name, parameter in net.named_parameters():
        assert parameter.grad is not None and parameter.grad.isfinite().all(), name
    # Norms over the two pixels that a small image leaves make huge gradients.
    nn.utils.clip_grad_norm_(net.parameters(), 1.0)
    optimiser.step()
    again = load(save(net.eval(), tmp_path))
    with torch.no_grad():
        logits = net(x)
        assert logits.isfinite().all() and torch.equal(again(x), logits)


@cases
def test_freezing(case):
    net = case.make()
    paths = [path for path, _ in net.steps()]
    until = paths[len(paths) // 2]
    net.freeze(until)
    net.train()
    before = {name: value.clone() for name, value in net.state_dict().items()}
    net(case.images()).sum().backward()
    for path, step in net.steps():
        frozen = paths.index(path) <= paths.index(until)
        assert all((p.grad is None) == frozen for p in step.parameters())
        same = [
            torch.equal(before[f"{path}.{name}"], value)
            for name, value in step.state_dict().items()
            if name.endswith("running_var")
        ]
        assert all(same) if frozen else not any(same)
    net.freeze(None)
    assert all(p.requires_grad for p in net.parameters())
    assert all(m.training for m in net.modules())
    with pytest.raises(InputError, match="no flow or step 'nowhere'"):
        net.freeze("nowhere")


def gradient(net: nn.Module, images: torch.Tensor) -> torch.Tensor:
    net(images).square().mean().backward()
    return torch.cat([p.grad.flatten() for p in net.parameters()])


@light
def test_checkpointing_changes_nothing(case):
    plain = gradient(case.make(dropout=0.0), case.images())
    torch.testing.assert_close(gradient(case.make(dropout=0.0, checkpointing=True), case.images()), plain)


@light
def test_channels_last_changes_nothing(case):
    plain = gradient(case.make().eval(), case.images())
    net = case.make().eval().to(memory_format=torch.channels_last)
    turned = gradient(net, case.images().contiguous(memory_format=torch.channels_last))
    assert (turned - plain).norm() < 1e-2 * plain.norm()


@cases
def test_saving_and_loading(case, tmp_path):
    with torch.device("meta"):
        strides = case.make().strides
    net, x = case.make(num_classes=3, output_stride=strides[-2]).eval(), case.images()
    again = load(save(net, tmp_path / "saved"))
    torch.testing.assert_close(again(x), net(x))


@light
def test_autocast(case):
    with torch.autocast("cpu", torch.bfloat16), torch.no_grad():
        logits = case.make().eval()(case.images())
    assert logits.dtype == torch.bfloat16 and logits.isfinite().all()


@pytest.mark.parametrize("case", [case for case in CASES if case.name in COMPILED], ids=lambda case: case.name)
def test_compiles_whole(case):
    net, x = case.make().eval(), case.images()
    torch._dynamo.reset()
    with torch.no_grad():
        torch.testing.assert_close(torch.compile(net, backend="eager", fullgraph=True)(x), net(x))


@cases
def test_exports_for_any_batch(case):
    net, x = case.make().eval(), case.images()
    exported = torch.export.export(net, (x,), dynamic_shapes=({0: torch.export.Dim.DYNAMIC},)).module()
    with torch.no_grad():
        torch.testing.assert_close(exported(x), net(x))
        assert exported(x.repeat(3, 1, 1, 1)[:5]).shape[0] == 5
