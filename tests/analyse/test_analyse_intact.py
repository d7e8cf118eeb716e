"""Whatever happens, the given model is left exactly as it was."""

import copy

import pytest
import torch
from torch import nn
from toys import Constants, toys

from convlite.analyse import analyse
from convlite.errors import InputError


def photograph(net):
    """Everything there is to see of a model: identities, contents of containers, tensors bit by bit, order."""
    seen = []
    for path, module in net.named_modules(remove_duplicate=False):
        seen.append((path, id(module), type(module)))
        for name, value in vars(module).items():
            seen.append((path, name, id(value)))
            if isinstance(value, dict):
                seen.append([(key, id(item)) for key, item in value.items()])
            if isinstance(value, (list, set)):
                seen.append([id(item) for item in value])
    tensors = [*net.parameters(), *net.buffers()]
    tensors += [v for m in net.modules() for v in vars(m).values() if isinstance(v, torch.Tensor)]
    seen += [(id(t), t._version, t.requires_grad, t.grad, t.is_meta) for t in tensors]
    return seen, [t.detach().clone() for t in tensors]


def assert_same(before, after):
    assert before[0] == after[0]
    assert all(torch.equal(a, b) for a, b in zip(before[1], after[1]))


@pytest.mark.filterwarnings("ignore:Using padding='same'")
@pytest.mark.parametrize("name", list(toys()))
@pytest.mark.parametrize("training", [True, False])
def test_after_a_count(name, training):
    toy = toys()[name]
    toy.net.train(training)
    before, random = photograph(toy.net), torch.get_rng_state()
    analyse(toy.net, toy.input)
    assert_same(before, photograph(toy.net))
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()


class Careless(nn.Module):
    """Does to itself what a forward should not, then fails if told to."""

    def __init__(self, fail=None):
        super().__init__()
        self.conv, self.norm = nn.Conv2d(3, 3, 3), nn.BatchNorm2d(3)
        self.attribute, self.history, self.settings = torch.ones(2), [1], {"nested": {"list": [1]}, "set": {1}}
        self.cache = None
        self.fail = fail

    def forward(self, x):
        self.cache = self.conv(x)
        self.attribute.mul_(3)
        self.attribute[0] = 7
        self.history.append(self.cache)
        self.settings["nested"]["list"].append(x)
        self.settings["set"].add(2)
        self.settings["new"] = x
        self.norm.running_mean.fill_(9)
        self.norm.weight.data.fill_(5)
        self.norm.bias.requires_grad_(False)
        self.conv.weight.data = x
        self.conv.weight = nn.Parameter(torch.zeros(3, 3, 3, 3))
        self.register_buffer("registered", torch.zeros(1))
        self.added = nn.Linear(2, 2)
        self.register_forward_hook(lambda *_: None)
        self.conv.register_forward_pre_hook(lambda *_: None)
        del self.norm
        self.train()
        self.conv.to("meta")
        torch.randn(3)
        if self.fail:
            raise self.fail
        return x


@pytest.mark.parametrize("fail", [None, ValueError("no"), KeyboardInterrupt(), ZeroDivisionError()])
def test_after_a_careless_forward(fail):
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Careless(fail)).train()
    net[0].eval()
    before, random = photograph(net), torch.get_rng_state()
    if fail is None:
        analyse(net, (3, 8, 8))
    else:
        with pytest.raises(InputError if isinstance(fail, Exception) else KeyboardInterrupt):
            analyse(net, (3, 8, 8))
    assert_same(before, photograph(net))
    assert torch.equal(random, torch.get_rng_state())
    assert torch.is_grad_enabled()
    assert torch.utils._python_dispatch._get_current_dispatch_mode_stack() == []


def test_the_count_after_a_failure_is_the_count_before():
    net = nn.Sequential(nn.Conv2d(3, 3, 1), Careless())
    first = analyse(net, (3, 8, 8))
    net[1].fail = RuntimeError("once")
    with pytest.raises(InputError):
        analyse(net, (3, 8, 8))
    net[1].fail = None
    assert analyse(net, (3, 8, 8)) == first == analyse(net, (3, 8, 8))


def test_nothing_is_left_of_the_model_in_the_table():
    net = Constants()
    table = analyse(net, (3, 8, 8))
    again = copy.deepcopy(table)
    assert again == table
    assert not any(isinstance(value, (nn.Module, torch.Tensor)) for row in table.rows for value in vars_of(row))


def vars_of(row):
    return [getattr(row, name) for name in row.__slots__]


def test_a_model_that_is_being_trained_goes_on():
    torch.manual_seed(0)
    nets = [nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4), nn.Flatten(), nn.Linear(144, 2)) for _ in range(2)]
    nets[1].load_state_dict(nets[0].state_dict())
    x = torch.rand(4, 3, 8, 8)
    for net in nets:
        optimiser = torch.optim.SGD(net.parameters(), 0.1)
        for _ in range(2):
            optimiser.zero_grad()
            loss = net(x).square().mean()
            if net is nets[1]:
                analyse(net, (3, 8, 8))  # between forward and backward
            loss.backward()
            optimiser.step()
    assert all(torch.equal(a, b) for a, b in zip(nets[0].parameters(), nets[1].parameters()))


@pytest.mark.parametrize("wrap", [nn.DataParallel, lambda net: torch.compile(net, backend="eager")])
def test_wrapped_models_are_unwrapped(wrap):
    net = nn.Sequential(nn.Conv2d(3, 4, 3))
    assert analyse(wrap(net), (3, 8, 8)) == analyse(net, (3, 8, 8))


def test_compiled_parts_are_counted_as_plain_ones():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), torch.compile(nn.Conv2d(4, 4, 3), backend="eager"), nn.Conv2d(4, 4, 3))
    net[2].compile(backend="eager")
    before = photograph(net)
    assert analyse(net, (3, 8, 8)).macs == 108 * 36 + 144 * 16 + 144 * 4
    assert_same(before, photograph(net))


class Holder:
    """State that is no module's attribute but an attribute of one."""

    def __init__(self):
        self.calls, self.seen, self.last = 0, [], None


def test_what_a_forward_writes_into_objects_and_tuples_is_undone():
    class Keeps(nn.Module):
        def __init__(self):
            super().__init__()
            self.holder, self.pair, self.holders = Holder(), ([1], {"a": 1}), [Holder()]

        def forward(self, x):
            for holder in (self.holder, self.holders[0]):
                holder.calls += 1
                holder.seen.append(x)
                holder.last = holder.new = x
            self.pair[0].append(x)
            self.pair[1]["b"] = x
            return x

    net = Keeps()
    analyse(net, (3, 8, 8))
    for holder in (net.holder, *net.holders):
        assert vars(holder) == {"calls": 0, "seen": [], "last": None}
    assert net.pair == ([1], {"a": 1})


def test_attributes_of_parameters_are_there_during_the_count():
    class Scaled(nn.Module):
        def __init__(self):
            super().__init__()
            self.weight = nn.Parameter(torch.rand(3, 4))
            self.weight.scale = 2.0

        def forward(self, x):
            return x @ (self.weight * self.weight.scale)

    assert analyse(Scaled(), (3,)).macs == 12


def test_a_module_that_its_parent_dropped_is_still_named():
    class Drops(nn.Module):
        def __init__(self):
            super().__init__()
            self.child = Careless(ValueError("no"))

        def forward(self, x):
            child = self.child
            del self.child
            return child(x)

    net = Drops()
    before = photograph(net)
    with pytest.raises(InputError, match=r"Careless 'child' failed .*\(ValueError: no\)"):
        analyse(net, (3, 8, 8))
    assert_same(before, photograph(net))
