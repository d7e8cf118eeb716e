"""The command as a process of its own: what its streams and its exit code are."""

import io
import json
import os
import signal
import subprocess
import sys
import time
from urllib.error import URLError
from urllib.request import Request, urlopen

from PIL import Image

from convlite import create
from convlite.models.saved import save

COMMAND = [sys.executable, "-m", "convlite"]


def run(*arguments):
    return subprocess.run([*COMMAND, *arguments], capture_output=True, text=True, timeout=300, check=False)


def test_xception_costs_what_was_published_and_stdout_holds_one_json_object():
    done = run("cost", "xception", "--json")
    assert done.returncode == 0, done.stderr
    assert done.stderr == ""
    answer = json.loads(done.stdout)
    assert (answer["params"], answer["macs"]) == (22_855_952, 8_357_403_496)


def test_bad_input_ends_the_process_with_2_and_one_sentence():
    done = run("cost", "xceptoin")
    assert (done.returncode, done.stdout) == (2, "")
    assert done.stderr.startswith("convlite: There is no model 'xceptoin'")
    assert done.stderr.count("\n") == 1


def test_a_closed_pipe_is_quiet():
    process = subprocess.Popen(
        [*COMMAND, "cost", "resnet20", "--json"], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True
    )
    process.stdout.close()  # as `head` does when it has seen enough
    said = process.stderr.read()
    process.stderr.close()
    process.wait(timeout=300)
    assert said == ""


def test_ctrl_c_ends_training_with_130_and_a_sentence(tmp_path):
    arguments = ["train", "--model", "resnet20", "--data", "digits", "--epochs", "50", "--out", str(tmp_path / "a")]
    process = subprocess.Popen(
        [*COMMAND, *arguments], stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ
    )
    said = process.stderr.readline() + process.stderr.readline()  # of the data, and that training has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    said += err
    assert process.returncode == 130, said
    assert out == ""
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("convlite: Stopped")
    assert "the command convlite train --model resnet20" in said.splitlines()[-1]
    assert all(path.match("checkpoints/0*.safetensors") for path in tmp_path.rglob("*.*")), "no epoch was whole"


def test_sigterm_ends_the_service_with_0(tmp_path):
    about = {"preprocess": {"size": [32, 32], "channels": 3, "mean": [0.5] * 3, "std": [0.3] * 3}}
    save(create("xception_small", num_classes=2, width=0.25, depth=1), tmp_path / "net", about)
    file = io.BytesIO()
    Image.new("RGB", (40, 40), (200, 10, 10)).save(file, "JPEG")
    process = subprocess.Popen(
        [*COMMAND, "serve", str(tmp_path / "net"), "--port", "0", "--engine", "torch"],
        stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True, env=os.environ,
    )  # fmt: skip
    try:
        said = [process.stderr.readline(), process.stderr.readline()]
        assert said[0].startswith("torch, fp32, "), said
        address = said[1].split()[3].rstrip(";")
        request = Request(address, file.getvalue(), {"Content-Type": "image/jpeg"})
        with opened(request) as answer:
            assert {one["name"] for one in json.load(answer)["classes"]} == {"class 0", "class 1"}
        process.send_signal(signal.SIGTERM)
        assert process.communicate(timeout=60) == ("", "")
        assert process.returncode == 0
    finally:
        process.kill()


def opened(request, tries=50):
    """The address is known a moment before it answers."""
    for _ in range(tries):
        try:
            return urlopen(request, timeout=60)
        except URLError as error:
            if not isinstance(error.reason, ConnectionRefusedError):
                raise
            time.sleep(0.1)
    return urlopen(request, timeout=60)
