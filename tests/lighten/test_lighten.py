"""Lightening: promises kept, the given network untouched, awkward ones survived."""

import copy
import json
import math

import pytest
import torch
import torch.nn.functional as F
from nets import Awkward, Standardised, outputs, pictures, plain, unit
from torch import nn

import convlite as cl
from convlite.errors import InputError, RunError
from convlite.lighten import Left, decompose, distil
from convlite.lighten.answers import Answers
from convlite.lighten.distil import blocks_of
from convlite.lighten.observe import observe
from convlite.lighten.record import Log
from convlite.lighten.survey import survey


@pytest.fixture(scope="module")
def images():
    return pictures()


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(1)
    return plain()


@pytest.fixture(scope="module")
def light(net, images):
    return cl.lighten(net, images, cl.Budget(macs=0.5, params=0.6))


def plain_family():
    torch.manual_seed(6)
    return cl.create("xception_small", num_classes=4, conv=cl.kinds.Normal(), depth=1, width=0.125).eval()


def test_promised_cost_is_the_cost(net, light):
    table, dense = cl.analyse(light.model, (3, 12, 12)), cl.analyse(net, (3, 12, 12))
    assert (light.plan.after.macs, light.plan.after.params) == (table.macs, table.params)
    assert (light.plan.before.macs, light.plan.before.params) == (dense.macs, dense.params)
    assert light.record.after == light.plan.after
    assert light.plan.after.macs <= 0.5 * light.plan.before.macs
    assert light.plan.after.params <= 0.6 * light.plan.before.params


def test_promised_error_is_the_error_of_the_layer(net, light, images):
    """Each layer's predicted error, measured on the real inputs of the original's layer."""
    found = survey(net, (3, 12, 12))
    seen, _ = observe(net, {path: layer.conv for path, layer in found.layers.items()}, images)
    modules = dict(net.named_modules())
    for step in light.plan.steps:
        conv, at = modules[step.path], seen[step.path]
        moments = at.sums.second[0] / at.sums.rows
        if at.free:  # the bias, or the norm that follows, makes up for the mean
            mean = at.sums.x[0] / at.sums.rows
            moments = moments - torch.outer(mean, mean)
        error = decompose(conv, step.kind, moments)[1]
        if getattr(step.kind, "slices", 1) > 1 and error < step.layer_error:
            continue  # a plan takes fewer rounds to fit it
        # not the same images as the plan's, nor its weights on outputs: near, not equal
        assert error == pytest.approx(step.layer_error, rel=0.5, abs=0.02)


def test_closed_form_error_is_exact(images):
    """One layer, no other: the promised error is the output's error on the images the plan was made with."""
    torch.manual_seed(2)
    one = nn.Conv2d(3, 16, 3, padding=1, bias=False)
    found = survey(one, (3, 12, 12))
    seen = observe(one, {"": found.layers[""].conv}, images)[0][""]
    kind = cl.kinds.Separable(multiplier=1)
    module, error = decompose(one, kind, seen.sums.second[0] / seen.sums.rows)
    with torch.no_grad():
        made = (module(images) - one(images)).square().sum() / one(images).square().sum()
    assert error == pytest.approx(float(made), rel=1e-3)


def test_each_stage_is_recorded_and_refitting_helps(light):
    errors = {stage.name: stage.error for stage in light.record.stages}
    assert list(errors) == ["original", "closed form", "refit", "batch norms"]
    assert errors["original"] == 0
    assert errors["closed form"] >= errors["refit"] >= errors["batch norms"]


def test_given_network_is_left_exactly_as_it_was(images):
    net = plain().train()
    net[0][1].register_forward_hook(lambda *_: None)
    state, modes = copy.deepcopy(net.state_dict()), [m.training for m in net.modules()]
    hooks = [len(m._forward_hooks) for m in net.modules()]
    grads = [p.requires_grad for p in net.parameters()]
    cl.lighten(net, images, cl.Budget(macs=0.6), distil=1)
    assert all(torch.equal(state[name], value) for name, value in net.state_dict().items())
    assert modes == [m.training for m in net.modules()]
    assert hooks == [len(m._forward_hooks) for m in net.modules()]
    assert grads == [p.requires_grad for p in net.parameters()]


def test_same_seed_same_result(net, images):
    runs = [cl.lighten(net, images, cl.Budget(macs=0.5), distil=1, seed=3) for _ in range(2)]
    assert runs[0].plan == runs[1].plan
    assert torch.equal(outputs(runs[0].model, images), outputs(runs[1].model, images))


def test_apply_rebuilds_the_structure_from_json(net, light, images):
    plan = cl.Plan.from_json(light.plan.to_json())
    assert plan == light.plan
    again = cl.apply(net, plan)
    assert not torch.equal(outputs(again, images), outputs(light.model, images))
    again.load_state_dict(light.model.state_dict())
    assert torch.equal(outputs(again, images), outputs(light.model, images))


def test_saved_and_loaded_it_answers_the_same(tmp_path, images):
    net = plain_family()
    light = cl.lighten(net, images[:40], cl.Budget(macs=0.3))
    cl.save(light.model, tmp_path / "light", about={"classes": list("abcd")})
    assert torch.equal(outputs(cl.load(tmp_path / "light"), images), outputs(light.model, images))
    config = json.loads((tmp_path / "light" / "config.json").read_text())
    assert config["about"] == {"classes": ["a", "b", "c", "d"]}
    assert set(config["replaced"]) == {step.path for step in light.plan.steps}


def test_somebody_elses_network_is_saved_too(tmp_path, net, light, images):
    cl.save(light.model, tmp_path)
    with pytest.raises(InputError, match="give the original"):
        cl.load(tmp_path)
    assert torch.equal(outputs(cl.load(tmp_path, model=net), images), outputs(light.model, images))


def test_weights_of_another_network_are_refused_by_name(tmp_path, net, light):
    cl.save(light.model, tmp_path / "light")
    cl.save(net, tmp_path / "dense")
    (tmp_path / "dense" / "model.safetensors").replace(tmp_path / "light" / "model.safetensors")
    with pytest.raises(InputError, match=r"tensors are lacking \(0\.0\.reduce\.weight.*are unknown \(0\.0\.weight"):
        cl.load(tmp_path / "light", model=net)


def test_tied_weights_are_saved_once_and_loaded(tmp_path):
    tied = nn.Sequential(nn.Conv2d(3, 3, 3), nn.Conv2d(3, 3, 3))
    tied[1].weight = tied[0].weight
    cl.save(tied, tmp_path)
    again = cl.load(tmp_path, model=tied)
    assert again[0].weight is again[1].weight
    assert torch.equal(again[0].weight, tied[0].weight)


def test_a_light_network_is_lightened_again(tmp_path, images):
    net = plain_family()
    once = cl.lighten(net, images[:40], cl.Budget(macs=0.6))
    twice = cl.lighten(once.model, images[:40], cl.Budget(macs=0.9))
    assert twice.plan.after.macs <= 0.9 * once.plan.after.macs
    cl.save(twice.model, tmp_path)
    assert torch.equal(outputs(cl.load(tmp_path), images), outputs(twice.model, images))


def test_whole_budget_changes_nothing(net, images):
    light = cl.lighten(net, images, cl.Budget(macs=1.0))
    assert light.plan.steps == ()
    assert light.plan.after == light.plan.before
    assert torch.equal(outputs(light.model, images), outputs(net, images))


def test_iterables_of_batches_will_do(net, images):
    pairs = [(batch, torch.zeros(len(batch))) for batch in images.split(32)]
    plans = [cl.lighten(net, given, cl.Budget(macs=0.5)).plan for given in (images, images.split(16), pairs)]
    assert plans[0] == plans[1] == plans[2]


def test_constant_images_and_dead_layers_are_no_trouble(net):
    light = cl.lighten(net, torch.ones(8, 3, 12, 12), cl.Budget(macs=0.5))
    assert outputs(light.model, torch.randn(2, 3, 12, 12)).isfinite().all()
    assert light.record.stages[-1].error < 1e-6  # of equal answers: relative to their power


@pytest.mark.parametrize(
    "given",
    [{}, {"macs": 0}, {"macs": 1.5}, {"params": -0.1}, {"macs": float("nan")}, {"macs": True}, {"macs": "half"}],
)
def test_budgets_outside_0_to_1_are_refused(given):
    with pytest.raises(InputError, match=r"\(0, 1\]"):
        cl.Budget(**given)


def test_an_unreachable_budget_says_the_least(net, images):
    with pytest.raises(InputError, match=r"least that any plan reaches is 0\.\d+ of the macs"):
        cl.lighten(net, images, cl.Budget(macs=0.001))


@pytest.mark.parametrize(
    ("given", "said"),
    [
        (torch.zeros(4, 3, 12), "float tensors"),
        (torch.zeros(4, 3, 12, 12, dtype=torch.uint8), "float tensors"),
        (torch.zeros(1, 3, 12, 12), "two images"),
        ([], "two images"),
        ([torch.zeros(2, 3, 12, 12), torch.zeros(2, 3, 13, 12)], "one size"),
        (torch.full((4, 3, 12, 12), float("inf")), "not finite"),
        ("digits", "float tensors"),
        (torch.zeros(4, 1, 12, 12), "It takes"),
        (7, "iterable"),
    ],
)
def test_bad_images_are_refused(net, given, said):
    with pytest.raises(InputError, match=said):
        cl.lighten(net, given, cl.Budget(macs=0.5))


def test_broken_weights_are_refused(images):
    net = plain()
    net[-1].weight.data.fill_(float("nan"))
    with pytest.raises(RunError, match="not finite"):
        cl.lighten(net, images, cl.Budget(macs=0.5))


class Product(nn.Module):
    """Multiplies by a matrix of its own."""

    def __init__(self) -> None:
        super().__init__()
        self.matrix = nn.Parameter(torch.randn(432, 5))

    def forward(self, x):
        return x.flatten(1) @ self.matrix


@pytest.mark.parametrize(
    ("light", "said"),
    [
        (Product(), "no convolutions"),
        (nn.Conv2d(3, 6, 3, groups=3), "no lighter kind pays off"),
        (nn.Conv2d(3, 1, 1), "no lighter kind pays off"),
    ],
)
def test_a_network_without_anything_to_lighten_says_why(light, said, images):
    with pytest.raises(InputError, match=f"nothing to lighten.*{said}"):
        cl.lighten(light, images, cl.Budget(macs=0.9))
    assert cl.lighten(light, images, cl.Budget(macs=1.0)).plan.steps == ()


def test_images_of_another_type_are_refused(net, images):
    with pytest.raises(InputError, match=r"can.t take these torch\.float64 images"):
        cl.lighten(net, images.double(), cl.Budget(macs=0.5))


def test_an_engine_is_checked_before_the_long_part(net):
    with pytest.raises(InputError, match="no engine 'tensorrt'"):
        cl.lighten(net, None, cl.Budget(latency_ms=1, engine="tensorrt"))


@pytest.mark.parametrize("given", [{"batch": True}, {"batch": 0}, {"threads": 0}, {"threads": 2.5}])
def test_counts_of_a_budget_are_whole_numbers(given):
    with pytest.raises(InputError, match="whole number"):
        cl.Budget(latency_ms=1, **given)


@pytest.mark.parametrize("text", ["{", "[]", "{}", '{"steps": [{}], "left": []}', '{"steps": 3}'])
def test_what_is_no_plan_is_refused(text):
    with pytest.raises(InputError):
        cl.Plan.from_json(text)


def test_a_plan_for_another_network_is_refused(light):
    with pytest.raises(InputError, match="Expected an nn"):
        cl.apply(nn.Sequential(nn.ReLU()), light.plan)


def test_left_is_a_value():
    assert Left("a", "b") == Left("a", "b")


def test_blocks_are_the_largest_modules_with_few_replaced_layers():
    stages = [f"stage{i}.block{j}.branch.conv{k}" for i in (1, 2) for j in (1, 2, 3) for k in (1, 2)]
    assert blocks_of(stages) == [f"stage{i}.block{j}" for i in (1, 2) for j in (1, 2, 3)]
    assert blocks_of([f"features.{i}" for i in range(13)]) == [f"features.{i}" for i in range(13)]
    assert blocks_of(["", "a.b", "a.c"]) == ["", "a"]


def test_blocks_that_run_twice_or_give_no_tensor_are_compared_too(images):
    torch.manual_seed(7)
    light = cl.lighten(Awkward().eval(), images, cl.Budget(macs=0.9), distil=2)
    assert light.record.stages[-1].name == "distil" and math.isfinite(light.record.stages[-1].tried)


def standard(layer):
    conv = nn.Conv2d(layer.in_channels, layer.out_channels, layer.kernel_size, layer.stride, layer.padding)
    conv.load_state_dict({"weight": layer.kernel().detach(), "bias": layer.bias.detach()})
    return conv


def own_layers():
    torch.manual_seed(8)
    once, twice = Standardised(12, 16, 3, 2, 1), Standardised(16, 16, 3)
    return nn.Sequential(unit(3, 12), once, nn.ReLU(), twice, nn.ReLU(), twice).eval()


def test_layers_of_ones_own_are_lightened_as_the_convolutions_they_are(images):
    net = own_layers()
    before = outputs(net, images)
    plain_net = cl.as_convs(net, {Standardised: standard})
    torch.testing.assert_close(outputs(plain_net, images), before, rtol=1e-4, atol=1e-4)
    assert plain_net[3] is plain_net[5]  # one layer in two places stays one
    assert isinstance(net[1], Standardised)
    replaced = {step.path for step in cl.lighten(plain_net, images, cl.Budget(macs=0.5)).plan.steps}
    assert replaced & {"1", "3"}


@pytest.mark.parametrize(
    ("makers", "said"),
    [
        ({nn.Linear: standard}, "is a Linear"),
        ({Standardised: lambda layer: nn.ReLU()}, "gave a ReLU"),
        ({Standardised: lambda layer: nn.Conv2d(12, 16, 3)}, "answers otherwise"),
        ({Standardised: lambda layer: nn.Conv2d(5, 16, 3)}, "can't be compared"),
    ],
)
def test_makers_that_do_something_else_are_refused(makers, said):
    with pytest.raises(InputError, match=said):
        cl.as_convs(own_layers(), makers)


@pytest.mark.parametrize("epochs", [1, 2, 10])
def test_any_number_of_steps_distils(net, images, epochs):
    """Of 96 images 77 are trained on, one step an epoch."""
    stage = cl.lighten(net, images, cl.Budget(macs=0.5), distil=epochs).record.stages[-1]
    assert stage.name == "distil" and math.isfinite(stage.tried)


def test_labels_are_learnt_where_that_is_asked_for_the_more_there_are(net, images, monkeypatch):
    """Also where that takes the answers away from the original's: without labels such a distillation is undone."""
    sure = copy.deepcopy(net)
    sure[-1].weight.data *= 3 / outputs(net, images).std(0).mean()  # as a trained one is
    labels = outputs(sure, images).topk(2).indices[:, 1]  # none of them what it says
    pairs = list(zip(images.split(40), labels.split(40)))

    def distilled(labelled, many):
        monkeypatch.setattr(distil, "MANY", many)
        light = cl.lighten(sure, pairs, cl.Budget(macs=0.5), distil=40, labelled=labelled)
        before, after = light.record.stages[-2:]
        return float(F.cross_entropy(outputs(light.model, images), labels)), before.error, after

    loss, before, after = distilled(True, many=len(images))
    few, _, near = distilled(True, many=10 * len(images))
    without, closest, same = distilled(False, many=len(images))
    assert loss < 0.7 * without and loss < few < without
    assert after.error == after.tried > before == closest >= same.error
    assert after.error > near.error


def test_a_change_that_does_not_help_is_undone_unless_it_need_not(net, images):
    def after(undo, broken=False):
        light, log = copy.deepcopy(net), Log(Answers(images, (outputs(net, images),)), None, lambda text: None)
        log.stage("closed form", light)
        log.stage("change", light, lambda: light[-1].weight.data.mul_(math.nan if broken else 2), undo=undo)
        return log.stages[-1], Answers(images, (outputs(net, images),)).error(light)

    worse, kept = after(undo=False)
    assert worse.error == worse.tried == kept > 0
    undone, back = after(undo=True)
    assert undone.error == back == 0 and undone.tried == kept
    for undo in (False, True):
        undone, back = after(undo, broken=True)
        assert undone.error == back == 0 and math.isnan(undone.tried)


@pytest.mark.parametrize(
    ("labels", "why"),
    [
        (None, "there are images without"),
        (torch.zeros(96), r"int64 tensors \(96,\)"),
        (torch.zeros(95, dtype=torch.int64), r"int64 tensors \(96,\)"),
        (torch.full((96,), 5), "classes 0 to 4, the labels are 5 to 5"),
    ],
)
def test_labels_that_can_not_be_learnt_are_refused(net, images, labels, why):
    given = images if labels is None else [(images, labels)]
    with pytest.raises(InputError, match=why):
        cl.study(net, given, labelled=True)


def test_labels_of_something_else_than_an_image_are_refused(images):
    with pytest.raises(InputError, match=r"gives \(N, classes\)"):
        cl.study(nn.Conv2d(3, 4, 3), [(images, torch.zeros(96, dtype=torch.int64))], labelled=True)
