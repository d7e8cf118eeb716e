"""Engines leave a process such that signals reach it."""

import subprocess
import sys

from torch import nn

from convlite.runtime import export

INTERRUPTED = """
import gc, os, signal, sys
from convlite.runtime import open_engine

sessions = [open_engine(sys.argv[1], "openvino", threads=1) for _ in range(2)]
while sessions:  # in the order in which they were opened
    del sessions[0]
    gc.collect()
signal.signal(signal.SIGINT, lambda *_: print("heard"))
os.kill(os.getpid(), signal.SIGINT)
"""


def test_ctrl_c_is_heard_after_two_networks_on_openvino_have_gone(tmp_path):
    net = nn.Sequential(nn.Conv2d(3, 4, 3), nn.ReLU()).eval()
    export(net, tmp_path / "net.onnx", (3, 8, 8), to="onnx")
    done = subprocess.run(
        [sys.executable, "-c", INTERRUPTED, tmp_path / "net.onnx"], capture_output=True, text=True
    )
    assert (done.returncode, done.stdout) == (0, "heard\n"), done.stderr
