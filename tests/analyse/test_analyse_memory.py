"""Peak live memory, against hand-derived lifetimes and against what torch's allocator saw in a real run."""

import peers
import pytest
import torch
import torch.nn.functional as F
from torch import nn

import convlite as cl
from convlite.analyse import peak_memory
from convlite.errors import InputError


def allocated(run):
    """The most bytes that torch's allocator had given out during `run`, beyond what there was before."""
    with torch.profiler.profile(activities=[torch.profiler.ProfilerActivity.CPU], profile_memory=True) as profile:
        run()
    now = most = 0
    for event in profile.profiler.kineto_results.events():
        if event.name() == "[memory]":
            now += event.nbytes()
            most = max(most, now)
    return most


def test_a_chain_has_two_tensors_alive_at_once():
    net = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(), nn.Conv2d(8, 2, 1))
    found = peak_memory(net, (3, 10, 10))
    image, middle, out = (4 * c * 100 for c in (3, 8, 2))
    assert found.input == image
    assert (
        found.inference.bytes == image + 2 * middle
    )  # the ReLU's input and output; the given image lives throughout
    assert found.inference.path == "1"
    assert found.weights == found.gradients == 4 * (32 + 18)
    assert (
        found.kept == middle + out
    )  # the convolutions' results but what ReLU made of the first; the image is counted
    assert found.training.bytes > found.inference.bytes


def test_a_strided_convolution_holds_its_input_in_blocks():
    depthwise = nn.Conv2d(32, 32, 3, stride=2, padding=1, groups=32, bias=False)
    image, out, weight = 4 * 2 * 32 * 64 * 64, 4 * 2 * 32 * 32 * 32, 4 * 32 * 9
    found = peak_memory(depthwise, torch.rand(2, 32, 64, 64), training=False)
    assert found.inference.bytes == image + out + weight + image  # later the output in blocks, a quarter of that


def test_in_place_takes_no_memory_and_branches_do():
    class Branches(nn.Module):
        def __init__(self, count):
            super().__init__()
            self.count = count

        def forward(self, x):
            return torch.cat([x * i for i in range(self.count)], 1)

    relu = nn.Sequential(nn.Conv2d(3, 8, 1), nn.ReLU(inplace=True))
    assert peak_memory(relu, (3, 10, 10), training=False).inference.bytes == 4 * 11 * 100
    for count in (2, 5):
        found = peak_memory(Branches(count), (3, 10, 10), training=False)
        assert found.inference.bytes == 4 * 300 * (1 + 2 * count)
        assert found.training is None and found.kept == found.gradients == 0


def test_attention_does_not_hold_its_scores():
    mask = torch.ones(512, 512, dtype=torch.bool).tril()

    class Attention(nn.Module):
        def __init__(self, call):
            super().__init__()
            self.call = call

        def forward(self, x):
            return self.call(x)

    x = torch.rand(1, 2, 512, 16)
    for call in (
        lambda x: F.scaled_dot_product_attention(x, x, x),
        lambda x: F.scaled_dot_product_attention(query=x, key=x, value=x),
        lambda x: F.scaled_dot_product_attention(x, x, x, scale=0.5),
        lambda x: F.scaled_dot_product_attention(x, x, x, None, 0.0, True),
    ):
        assert peak_memory(Attention(call), x, training=False).inference.bytes < 3 * x.nbytes
    scores = 4 * 2 * 512 * 512  # which a mask of truth values in, or none at all, does not change
    masked = peak_memory(Attention(lambda x: F.scaled_dot_product_attention(x, x, x, mask)), x, training=False)
    assert masked.inference.bytes < scores + 3 * x.nbytes


@pytest.mark.parametrize(
    ("make", "shape"),
    [
        (lambda: cl.create("resnet20"), (4, 3, 32, 32)),
        (lambda: cl.create("xception_small"), (4, 3, 32, 32)),
        (lambda: peers.timm("mobilenetv3_small_100"), (2, 3, 64, 64)),
    ],
    ids=["resnet20", "xception_small", "mobilenetv3"],
)
def test_within_a_tenth_of_a_real_run(make, shape):
    net, x = make(), torch.rand(shape)
    found = peak_memory(net, x)
    net.eval()
    with torch.no_grad():
        inference = allocated(lambda: net(x)) + x.nbytes
    net.train()
    training = allocated(lambda: net(x).sum().backward()) + x.nbytes
    assert found.inference.bytes == pytest.approx(inference, rel=0.1)
    assert found.training.bytes == pytest.approx(training, rel=0.1)


def test_the_model_is_left_as_it_was():
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.BatchNorm2d(4)).eval()
    state = {name: tensor.clone() for name, tensor in net.state_dict().items()}
    peak_memory(net, torch.rand(2, 3, 8, 8))
    assert not net.training and not net[0].training
    assert all(p.grad is None and not p.is_meta for p in net.parameters())
    assert all(torch.equal(state[name], tensor) for name, tensor in net.state_dict().items())


def test_what_can_not_train_on_one_image_says_so():
    net = nn.Sequential(nn.AdaptiveAvgPool2d(1), nn.BatchNorm2d(3))
    with pytest.raises(InputError, match=r"BatchNorm2d '1' failed .* more than 1 value per channel"):
        peak_memory(net, (3, 8, 8))
    assert peak_memory(net, torch.rand(2, 3, 8, 8)).training.bytes > 0


def test_a_backward_that_fails_says_so():
    class NoWayBack(torch.autograd.Function):
        @staticmethod
        def forward(ctx, x):
            return x * 1

        @staticmethod
        def backward(ctx, grad):
            raise ValueError("no way back")

    class Net(nn.Module):
        def forward(self, x):
            return NoWayBack.apply(x)

    net = nn.Sequential(nn.Linear(3, 3), Net())
    with pytest.raises(InputError, match=r"backward of Sequential itself failed .*\(ValueError: no way back\)"):
        peak_memory(net, (3,))
