"""Files for ExecuTorch answer as the network does; the engine does what was asked or says why not."""

import copy
import gc
import subprocess
import sys

import numpy as np
import peers
import pytest
import torch
from torch import nn

from convlite import Budget, create
from convlite.errors import InputError
from convlite.lighten.latency import check_engine
from convlite.runtime import bench, export, open_engine, why_not
from convlite.runtime.executorch import opened
from convlite.runtime.optimise import difference

pytestmark = [
    pytest.mark.skipif(why_not("executorch") is not None, reason=str(why_not("executorch"))),
    pytest.mark.filterwarnings("ignore"),  # of its own importing
]
SHAPE = 3, 32, 32


@pytest.fixture(scope="module")
def net():
    torch.manual_seed(0)
    return peers.randomise_(create("xception_small", num_classes=10, width=0.25, depth=1)).eval()


@pytest.fixture(scope="module")
def file(net, tmp_path_factory):
    return export(net, tmp_path_factory.mktemp("pte") / "net.pte", SHAPE, to="executorch")


def test_any_number_of_images_is_answered(net, file):
    assert file.shape == (1, *SHAPE)
    session, exact = open_engine(file.path, "executorch", threads=1), copy.deepcopy(net).double()
    for n in (1, 2, 8):
        images = torch.randn(n, *SHAPE)
        with torch.no_grad():
            expected = exact(images.double())
        assert difference(expected, torch.from_numpy(session(images.numpy()))) < 1e-5


def test_channels_that_change_places_or_are_compared(tmp_path):
    """What XNNPACK has not: the shuffle of a ShuffleNet, the local response norm of the first Inception."""
    torch.manual_seed(0)
    layers = [nn.Conv2d(3, 12, 3), nn.LocalResponseNorm(5, alpha=0.1), nn.ChannelShuffle(3), nn.Conv2d(12, 8, 3, 2)]
    net = nn.Sequential(*layers, nn.Hardswish(), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    made = export(net, tmp_path / "a.pte", SHAPE, to="executorch")
    images = torch.randn(3, *SHAPE)
    with torch.no_grad():
        expected = copy.deepcopy(net).double()(images.double())
    session = open_engine(made.path, "executorch", threads=1)
    assert difference(expected, torch.from_numpy(session(images.numpy()))) < 1e-5


def test_bench_has_it_beside_the_others(net):
    found = bench(net, SHAPE, engines=["torch", "executorch"], batches=[1], rounds=2, threads=1, memory=False)
    assert [run.engine for run in found.runs] == ["torch", "executorch"]
    assert found.runs[1].error < 1e-5 and not found.skipped


def test_what_it_cant_express_is_named(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.AvgPool3d(2), nn.AdaptiveAvgPool2d(1), nn.Flatten()).eval()
    with pytest.raises(InputError, match="avg_pool3d"):
        export(net, tmp_path / "a.pte", SHAPE, to="executorch")
    assert not list(tmp_path.iterdir())
    found = bench(net, SHAPE, engines=["torch", "executorch"], batches=[1], rounds=2, memory=False)
    assert [run.engine for run in found.runs] == ["torch"] and "avg_pool3d" in found.skipped["executorch"]


def test_what_is_refused(net, file, tmp_path):
    with pytest.raises(InputError, match="fp32 only"):
        export(net, tmp_path / "a.pte", SHAPE, to="executorch", precision="fp16")
    with pytest.raises(InputError, match="not in bf16"):
        open_engine(file.path, "executorch", "bf16")
    session = open_engine(file.path, "executorch", threads=1)
    with pytest.raises(InputError, match="export again"):
        session(np.zeros((1, 3, 40, 40), np.float32))
    (tmp_path / "cut.pte").write_bytes(file.path.read_bytes()[:5000])
    with pytest.raises(InputError, match=r"can't run cut\.pte"):
        opened(tmp_path / "cut.pte", "fp32", 1)
    with pytest.raises(InputError, match="one pool of threads"):
        open_engine(file.path, "executorch", threads=2)
    del session
    gc.collect()
    assert open_engine(file.path, "executorch", threads=2).threads == 2
    with pytest.raises(InputError, match="name another engine"):
        check_engine(Budget(latency_ms=1.0, engine="executorch"))


def test_nothing_is_said_that_its_user_can_t_use(tmp_path):
    """What its packages write as they are first imported, in a process where they are not yet."""
    command = [sys.executable, "-m", "convlite", "export", "resnet20", "--to", "executorch", "--out", "net.pte"]
    done = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, timeout=300, check=False)
    assert (done.returncode, done.stderr) == (0, "")
