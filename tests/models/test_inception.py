import pytest
import torch
from torch import nn

from convlite.errors import InputError
from convlite.models import create


@pytest.mark.parametrize(("name", "size", "heads"), [("googlenet", 64, 2), ("inception_v3", 96, 1)])
def test_auxiliary_heads_answer_in_training_only(name, size, heads):
    net = create(name, aux=True, num_classes=5)
    x = torch.randn(2, 3, size, size)
    logits = net(x)
    assert isinstance(logits, tuple) and [y.shape for y in logits] == [(2, 5)] * (1 + heads)
    sum(y.sum() for y in logits).backward()
    assert all(p.grad is not None for p in net.aux.parameters())
    assert net.eval()(x).shape == (2, 5)
    net.train().reset_classifier(3)
    assert net(x).shape == (2, 3)
    assert "aux" not in net._convlite["create"]["arguments"]


def test_the_naive_module_passes_on_every_channel_that_it_reads():
    with torch.device("meta"):
        naive, reduced = create("inception_v1_naive"), create("inception_v1_bn")
        x = torch.empty(2, 192, 14, 14)
        assert naive.stage1.a(x).shape == (2, 64 + 128 + 32 + 192, 14, 14)
        assert reduced.stage1.a(x).shape == (2, 64 + 128 + 32 + 32, 14, 14)


def test_the_paper_normalises_responses_and_has_biases():
    with torch.device("meta"):
        paper, normed = create("inception_v1"), create("inception_v1_bn")
    assert sum(isinstance(m, nn.LocalResponseNorm) for m in paper.modules()) == 2
    assert all(m.bias is not None for m in paper.modules() if isinstance(m, nn.Conv2d))
    assert all(m.bias is None for m in normed.modules() if isinstance(m, nn.Conv2d))


def test_blocks_that_cannot_be():
    with pytest.raises(InputError, match=r"at least 1, given \(1, 0, 1\)"):
        create("inception_v4", blocks=(1, 0, 1))
