"""The command as a process of its own: what its streams and its exit code are."""

import json
import os
import signal
import subprocess
import sys

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
    said = process.stderr.readline()  # the first word of progress: training has begun
    process.send_signal(signal.SIGINT)
    out, err = process.communicate(timeout=300)
    said += err
    assert process.returncode == 130, said
    assert out == ""
    assert "Traceback" not in said
    assert said.splitlines()[-1].startswith("convlite: Stopped")
    assert "the command convlite train --model resnet20" in said.splitlines()[-1]
    assert all(path.match("checkpoints/0*.safetensors") for path in tmp_path.rglob("*.*")), "no epoch was whole"
