"""Kill a training run at random moments, resume it, and compare the last weights with those of a run left alone.

    python benchmarks/resume.py --kills 20

Each process is the command line itself, killed with SIGKILL; the bits of every tensor must be the same.
"""

from __future__ import annotations

import argparse
import json
import random
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import torch

from convlite.models.saved import load
from convlite.train import checkpoint

EPOCHS = 6
COMMAND = [
    sys.executable, "-m", "convlite", "train", "--model", "xception_small", "--set", "width=0.5", "--set",
    "depth=1", "--data", "digits", "--epochs", str(EPOCHS), "--with", "average=0.99", "--with", "dropout=0.2",
    "--checkpoint-steps", "1", "--resume", "--json", "--device", "cpu", "--out",
]  # fmt: skip


def started(folder: Path) -> subprocess.Popen[bytes]:
    """The run, as a process that has written its first new checkpoint, or has ended."""
    before = checkpoint.files(folder)[:1]
    process = subprocess.Popen([*COMMAND, str(folder)], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL)
    while process.poll() is None and checkpoint.files(folder)[:1] == before:
        time.sleep(0.01)
    return process


def main() -> None:
    """Print one line a kill, and one JSON object at the end; exit with 1 where a bit differs."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--kills", type=int, default=20)
    asked.add_argument("--seed", type=int, default=0)
    given = asked.parse_args()
    source, unreadable, moments = random.Random(given.seed), [], []
    with tempfile.TemporaryDirectory() as place:
        alone, killed = Path(place, "alone"), Path(place, "killed")
        begun = time.monotonic()
        subprocess.run([*COMMAND, str(alone)], check=True, capture_output=True)
        seconds = time.monotonic() - begun
        total = int(checkpoint.files(alone)[0].stem)
        for number in range(1, given.kills + 1):
            process = started(killed)
            time.sleep(source.uniform(0, 0.6 * seconds / given.kills))
            process.kill()
            process.wait()
            found = checkpoint.newest(killed, unreadable.append)
            moments.append(int(found.path.stem) if found else 0)
            print(f"kill {number}: after step {moments[-1]} of {total}", flush=True)
        subprocess.run([*COMMAND, str(killed)], check=True, capture_output=True)
        one, two = (load(folder).state_dict() for folder in (alone, killed))
        different = [name for name, tensor in one.items() if not torch.equal(tensor, two[name])]
    print(json.dumps({
        "kills": given.kills, "steps": total, "killed_after": moments, "unreadable_checkpoints": len(unreadable),
        "tensors": len(one), "different": different,
    }))  # fmt: skip
    sys.exit(bool(different or unreadable))


if __name__ == "__main__":
    main()
