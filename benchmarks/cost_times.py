"""Whether the layers' milliseconds add up to the network's, and whether predicted peak memory is a real run's.

    OMP_NUM_THREADS=1 python benchmarks/cost_times.py [times] [memory]

Times: `time_layers` on one image; "unattributed" is what the layers' medians leave of the bare network's median.

Memory: `peak_memory` for four images beside what a fresh process really takes, seen by the operating system and not
by torch. There each block that the C library allocates is a mapping of its own (MALLOC_MMAP_THRESHOLD_), which it
returns when it is freed; after one run to warm up, the kernel's high-water mark of resident memory is reset
(/proc/self/clear_refs), the run is repeated, and the mark is read (VmHWM in /proc/self/status). Whatever was
resident before is subtracted, the input counted. Linux only.
"""

from __future__ import annotations

import gc
import os
import subprocess
import sys
from pathlib import Path

import torch
from networks import images, make

from convlite.analyse import peak_memory, time_layers
from convlite.analyse.latency import machine

NETWORKS = ("xception", "resnet50", "mobilenet_v2", "tf_efficientnet_b0", "vit_small_patch16_224")
BATCH = 4
OWN_MAPPINGS = {"MALLOC_MMAP_THRESHOLD_": "16384", "MALLOC_MMAP_MAX_": "1000000", "MALLOC_TRIM_THRESHOLD_": "0"}


def main() -> None:
    """Print the tables that were asked for, or all of them."""
    wanted = sys.argv[1:] or ["times", "memory"]
    if wanted[0] == "take":
        print(taken(wanted[1], training=wanted[2] == "training"))
        return
    here = machine()
    print(f"{here.processor}, {here.threads} threads, torch {here.torch}, load {here.load}")
    if "times" in wanted:
        times()
    if "memory" in wanted:
        memory()


def times() -> None:
    """One line a network."""
    print(f"{'':<22} {'bare ms':>14} {'layers ms':>10} {'overhead':>9} {'unattributed':>13} {'of bare':>8}")
    for name in NETWORKS:
        found = time_layers(make(name), images(name), rounds=20)
        bare = f"{found.bare.median:.1f} ±{(found.bare.q3 - found.bare.q1) / 2:.1f}"
        share = found.unattributed / found.bare.median
        print(
            f"{name:<22} {bare:>14} {found.within(''):>10.1f} {found.overhead:>9.1f} "
            f"{found.unattributed:>13.1f} {share:>8.1%}"
        )


def memory() -> None:
    """One line a network and way to run it."""
    print(f"{'':<22} {'':<10} {'predicted MiB':>14} {'real MiB':>9} {'error':>7}")
    for name in NETWORKS:
        found = peak_memory(make(name), images(name, BATCH))
        for way, peak in (("inference", found.inference), ("training", found.training)):
            real = int(
                subprocess.run(
                    [sys.executable, __file__, "take", name, way],
                    env=os.environ | OWN_MAPPINGS,
                    check=True,
                    capture_output=True,
                    text=True,
                ).stdout.split()[-1]
            )
            mib = f"{peak.bytes / 2**20:>14.1f} {real / 2**20:>9.1f}"
            print(f"{name:<22} {way:<10} {mib} {peak.bytes / real - 1:>+7.1%}")


def taken(name: str, *, training: bool) -> int:
    """Bytes of one run's peak above what was resident before it, and of its input."""
    net, x = make(name).train(training), images(name, BATCH)
    for _ in range(2):
        net.zero_grad(set_to_none=True)
        gc.collect()
        before = resident("VmRSS")
        Path("/proc/self/clear_refs").write_text("5")  # the high-water mark, down to what is resident now
        with torch.set_grad_enabled(training):
            out = net(x)
            if training:
                out.sum().backward()
        peak = resident("VmHWM") - before
        del out
    return peak + x.nbytes


def resident(field: str) -> int:
    """Bytes, from the kernel's own account of this process."""
    lines = Path("/proc/self/status").read_text(encoding="utf-8").splitlines()
    return 1024 * next(int(line.split()[1]) for line in lines if line.startswith(field))


if __name__ == "__main__":
    main()
