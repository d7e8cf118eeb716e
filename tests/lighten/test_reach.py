"""Which networks and layers are lightened: grouped, linear, shared, awkward; and what is left alone, with why."""

import pytest
import torch
import torch.nn.functional as F
from nets import Awkward, modern, outputs, pictures, unit
from torch import nn

import convlite as cl
from convlite.errors import InputError


@pytest.fixture(scope="module")
def images():
    return pictures()


def test_awkward_network_is_lightened_and_says_what_it_left(images):
    torch.manual_seed(4)
    net = Awkward().eval()
    light = cl.lighten(net, images, cl.Budget(macs=0.9), distil=1)
    table = cl.analyse(light.model, (3, 12, 12))
    assert (light.plan.after.macs, light.plan.after.params) == (table.macs, table.params)
    replaced = {step.path for step in light.plan.steps}
    assert replaced
    left = {one.path: one.reason for one in light.plan.left}
    assert "functional" in left[""]
    assert "read by" in left["borrowed"]
    assert "parametrised" in left["normed"]
    assert "ConvTranspose2d" in left["transposed"]
    assert "never ran" in left["unused"]
    assert not replaced & set(left)
    assert {name for name, m in net.named_modules() if isinstance(m, nn.modules.conv._ConvNd)} <= replaced | set(
        left
    )
    shapes = [{name: out.shape for name, out in outputs(m, images[:2]).items()} for m in (net, light.model)]
    assert shapes[0] == shapes[1]
    assert light.record.stages[-1].error < 1


def test_grouped_convolutions_and_linear_layers_are_lightened(tmp_path, images):
    torch.manual_seed(6)
    net = modern()
    light = cl.lighten(net, images, cl.Budget(macs=0.25), distil=1)
    table = cl.analyse(light.model, (3, 12, 12))
    assert (light.plan.after.macs, light.plan.after.params) == (table.macs, table.params)
    types = {type(net.get_submodule(step.path)) for step in light.plan.steps}
    groups = {getattr(net.get_submodule(step.path), "groups", None) for step in light.plan.steps}
    assert types == {nn.Conv2d, nn.Linear}
    assert groups & {16, 24} and 4 in groups  # depthwise, and grouped by 4
    errors = {stage.name: stage.error for stage in light.record.stages}
    assert errors["refit"] < errors["closed form"] < 0.5
    cl.save(light.model, tmp_path)
    assert torch.equal(outputs(cl.load(tmp_path, model=net), images), outputs(light.model, images))
    again = cl.apply(net, light.plan)
    assert {n: t.shape for n, t in again.state_dict().items()} == {
        n: t.shape for n, t in light.model.state_dict().items()
    }


def test_a_head_that_runs_on_maps_of_several_sizes_is_lightened(images):
    """As in detectors, whose heads all levels of a pyramid share."""

    class Pyramid(nn.Module):
        def __init__(self):
            super().__init__()
            self.stem, self.head = nn.Conv2d(3, 16, 3, padding=1), nn.Conv2d(16, 16, 3, padding=1)

        def forward(self, x):
            x = F.relu(self.stem(x))
            return [self.head(level) for level in (x, F.avg_pool2d(x, 2), F.avg_pool2d(x, 3)[:, :, :3])]

    torch.manual_seed(8)
    net = Pyramid().eval()
    light = cl.lighten(net, images, cl.Budget(macs=0.4))
    step = next(step for step in light.plan.steps if step.path == "head")
    assert step.before.macs == 16 * 16 * 9 * (144 + 36 + 12)
    assert light.plan.after.macs == cl.analyse(light.model, (3, 12, 12)).macs
    assert light.record.stages[-1].error < 0.3


@pytest.mark.parametrize("first", [True, False])
def test_rows_of_a_linear_layer_may_come_in_any_order(images, first):
    """Sequences with the batch first, or second as in older transformers."""

    class Sequences(nn.Module):
        def __init__(self):
            super().__init__()
            self.wide, self.narrow = nn.Linear(3, 32), nn.Linear(32, 24)

        def forward(self, x):
            x = x.flatten(2).movedim(1, 2) if first else x.flatten(2).movedim(2, 0)  # (N, L, 3) or (L, N, 3)
            y = self.narrow(F.relu(self.wide(x)))
            return y.mean(1 if first else 0)

    torch.manual_seed(7)
    light = cl.lighten(Sequences().eval(), images, cl.Budget(macs=0.7))
    assert [step.path for step in light.plan.steps] == ["narrow"]
    assert light.record.stages[-1].error < 0.1


def test_a_convolution_used_twice_costs_twice_and_is_one_module(images):
    torch.manual_seed(5)
    shared = nn.Conv2d(16, 16, 3, padding=1)
    net = nn.Sequential(unit(3, 16), shared, nn.ReLU(), shared).eval()
    light = cl.lighten(net, images, cl.Budget(macs=0.5))
    step = next(step for step in light.plan.steps if step.path == "1")
    assert step.before.macs == 2 * 16 * 16 * 9 * 144
    assert step.before.params == 16 * 16 * 9 + 16
    assert light.model[1] is light.model[3]
    assert light.plan.after.macs == cl.analyse(light.model, (3, 12, 12)).macs


class Beside(nn.Module):
    """Linear layers that run on a table of its own, whatever the images (Liu et al., arXiv 2111.09883)."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.wide, self.narrow = nn.Conv2d(3, 16, 3), nn.Linear(4, 64), nn.Linear(64, 16)
        self.grid = nn.Buffer(torch.randn(9, 4))

    def forward(self, x):
        return self.conv(x).mean((2, 3)) + self.narrow(F.relu(self.wide(self.grid))).mean(0)


class Encoder(nn.Module):
    """Reads the weights of its linear layers without running them."""

    def __init__(self) -> None:
        super().__init__()
        self.conv = nn.Conv2d(3, 32, 3, padding=1)
        self.encoder = nn.TransformerEncoderLayer(32, 4, 64, dropout=0.0, batch_first=True)

    def forward(self, x):
        return self.encoder(self.conv(x).flatten(2).transpose(1, 2)).mean(1)


class Curious(nn.Module):
    """Asks a layer for more than its output."""

    def __init__(self) -> None:
        super().__init__()
        self.conv, self.linear = nn.Conv2d(3, 32, 3), nn.Linear(32, 32)

    def forward(self, x):
        return self.linear(self.conv(x).mean((2, 3)).to(self.linear.weight.dtype))


@pytest.mark.parametrize(
    ("make", "path", "said"),
    [(Beside, "narrow", "image by image"), (Encoder, "encoder.linear1", "reads its weight by itself")],
)
def test_what_cannot_be_followed_is_left_alone(images, make, path, said):
    torch.manual_seed(9)
    light = cl.lighten(make().eval(), images, cl.Budget(macs=0.97))
    assert said in {one.path: one.reason for one in light.plan.left}[path]
    assert [step.path for step in light.plan.steps] == ["conv"]


def test_a_forward_that_needs_its_own_layers_is_told_and_a_hook_keeps_them(images):
    torch.manual_seed(9)
    net, budget = Curious().eval(), cl.Budget(params=0.4)
    with pytest.raises(InputError, match=r"Curious does not run with other layers.*has no attribute 'weight'"):
        cl.lighten(net, images, budget)
    net.linear.register_forward_hook(lambda *_: None)
    assert cl.lighten(net, images, cl.Budget(macs=0.5)).plan.steps
