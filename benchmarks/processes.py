"""Images a second of training, input and step together, by one process and by two, in turn.

    python benchmarks/processes.py --rounds 3

One process has all the threads in `--threads`, two have half of them each; the batch and the images are the same.
"""

from __future__ import annotations

import argparse
import json
import os
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path


def speed(processes: int, threads: int, model: str, batch: int) -> float:
    """Images a second of the second epoch; the first warms up."""
    start = ["-m", "torch.distributed.run", "--nproc-per-node", str(processes), "-m", "convlite"]
    with tempfile.TemporaryDirectory() as folder:
        arguments = [
            "train", "--model", model, "--data", "digits", "--epochs", "2", "--batch-size", str(batch),
            "--out", folder,
        ]  # fmt: skip
        environment = os.environ | {"OMP_NUM_THREADS": str(threads // processes)}
        command = [sys.executable, *(start if processes > 1 else ["-m", "convlite"]), *arguments]
        subprocess.run(command, check=True, capture_output=True, env=environment)
        last = Path(folder, "metrics.jsonl").read_text(encoding="utf-8").splitlines()[-1]
    return float(json.loads(last)["images_per_second"])


def main() -> None:
    """Print one JSON object: the median images a second of each, and of each round."""
    asked = argparse.ArgumentParser(description=__doc__)
    asked.add_argument("--rounds", type=int, default=3)
    asked.add_argument("--threads", type=int, default=2)
    asked.add_argument("--model", default="resnet20")
    asked.add_argument("--batch-size", type=int, default=128)
    given = asked.parse_args()
    found: dict[str, list[float]] = {"1": [], "2": []}
    for _ in range(given.rounds):
        for processes, speeds in found.items():
            speeds.append(round(speed(int(processes), given.threads, given.model, given.batch_size), 1))
    medians = {name: statistics.median(speeds) for name, speeds in found.items()}
    print(json.dumps({**vars(given), "images_per_second": medians, "each_round": found}))


if __name__ == "__main__":
    main()
