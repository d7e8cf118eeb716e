"""How long the shortest useful command takes from a cold start, beside importing torch alone.

    python benchmarks/cold_start.py

Both run in turn, each in a process of its own; the ratio is of each pair.
"""

import statistics
import subprocess
import sys
import time

ROUNDS = 8
COMMANDS = {
    "import torch": [sys.executable, "-c", "import torch"],
    "convlite cost xception --json": [sys.executable, "-m", "convlite", "cost", "xception", "--json"],
}


def seconds(command: list[str]) -> float:
    """Of one run."""
    start = time.perf_counter()
    subprocess.run(command, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - start


def main() -> None:
    """Print the medians and the ratio."""
    for command in COMMANDS.values():
        seconds(command)  # what the disk has to be read for
    rounds = [[seconds(command) for command in COMMANDS.values()] for _ in range(ROUNDS)]
    for name, values in zip(COMMANDS, zip(*rounds)):
        print(f"{name:<32} {statistics.median(values):.2f} s")
    low, middle, high = statistics.quantiles([after / before for before, after in rounds], n=4)
    print(f"ratio {middle:.2f}, half of the rounds from {low:.2f} to {high:.2f}")


if __name__ == "__main__":
    main()
