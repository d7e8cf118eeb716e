"""How far each engine's scores lie from the network's own: every family as published and separable, some lightened.

    OMP_NUM_THREADS=1 python benchmarks/engine_parity.py [FAMILY ...] [--json FILE]

The figure is the largest difference of a score from the same network in float64, relative to the largest score,
over one image, eight, and two of a second size where the file takes any. The weights are random. ExecuTorch is
among them where it is installed; "refused" is a network that it can't express.
"""

from __future__ import annotations

import argparse
import copy
import json
import tempfile
import warnings
from collections.abc import Iterator
from pathlib import Path

import networks  # noqa: F401 - it finds the tests' helpers
import peers
import torch
from torch import nn

import convlite as cl
from convlite.errors import InputError
from convlite.kinds import Separable
from convlite.models import FAMILIES
from convlite.runtime import export, open_engine, why_not
from convlite.runtime.export import FORMATS
from convlite.runtime.optimise import difference

ENGINES = {
    "torch": None, "torch-channels-last": None, "torch.pt2": ".pt2", "convlite": None, "convlite.pt2": ".pt2",
    "onnxruntime": ".onnx", "openvino": ".onnx", "openvino.xml": ".xml",
}  # fmt: skip
if why_not("executorch") is None:
    ENGINES["executorch"] = ".pte"
BOUND = 1e-4
LIGHTENED = "resnet20", "xception_small", "resnet18", "mobilenet_v2", "inception_v1_bn"  # of minutes at most
SHARE = 0.6  # of their multiply-accumulates


def main() -> None:
    """Print a row for each family and kind of convolution."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("families", nargs="*", default=list(FAMILIES))
    parser.add_argument("--json", type=Path)
    given = parser.parse_args()
    warnings.simplefilter("ignore")
    found = {}
    print(f"{'':<34}" + "".join(f"{name:>21}" for name in ENGINES))
    for name in given.families:
        for label, net in forms(name):
            row = found[label] = errors(net, FAMILIES[name].input)
            marked = (
                "refused  " if error is None else f"{error:.1e}{' !' if error > BOUND else '  '}"
                for error in row.values()
            )
            print(f"{label:<34}" + "".join(f"{text:>21}" for text in marked), flush=True)
    if given.json:
        given.json.write_text(json.dumps(found, indent=1) + "\n")


def forms(name: str) -> Iterator[tuple[str, nn.Module]]:
    """A family's network in each form, and how that is called."""
    torch.manual_seed(0)
    net = peers.randomise_(cl.create(name)).eval()
    yield name, net
    separable = cl.create(name, conv=Separable())
    if separable.placed:
        torch.manual_seed(0)
        yield f"{name}, separable", peers.randomise_(separable).eval()
    if name in LIGHTENED:
        images = torch.randn(16, *FAMILIES[name].input, generator=torch.Generator().manual_seed(0))
        yield f"{name}, lightened", cl.lighten(net, images, cl.Budget(macs=SHARE)).model


def errors(net: nn.Module, shape: tuple[int, int, int]) -> dict[str, float | None]:
    """The worst of each engine; None of one whose file can't express the network."""
    images = [torch.randn(n, *shape, generator=torch.Generator().manual_seed(n)) for n in (1, 8)]
    exact = copy.deepcopy(net).double()
    with tempfile.TemporaryDirectory() as folder, torch.no_grad():
        files = {}
        for end in dict.fromkeys(filter(None, ENGINES.values())):
            try:
                files[end] = export(net, Path(folder) / f"net{end}", shape, to=FORMATS[end])
            except InputError as refusal:
                if end != ".pte":
                    raise
                print(refusal)
        sizes, (channels, height, width) = images, shape
        if None in files[".onnx"].shape[2:]:
            sizes = [*images, torch.randn(2, channels, height + 32, width + 64)]
        expected = [exact(x.double()) for x in sizes]
        found: dict[str, float | None] = {}
        for engine, end in ENGINES.items():
            if end is not None and end not in files:
                found[engine] = None
                continue
            source = net if end is None else files[end].path
            session = open_engine(source, engine.partition(".")[0], threads=torch.get_num_threads())
            fixed = end is not None and None not in files[end].shape[2:]
            given = [torch.from_numpy(session(x.numpy())) for x in (images if fixed else sizes)]
            found[engine] = max(difference(one, other) for one, other in zip(expected, given))
    return found


if __name__ == "__main__":
    main()
