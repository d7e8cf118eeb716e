"""Which engine runs a network: the one that was named, plain torch for little work, else the measured fastest."""

from __future__ import annotations

import hashlib
import tempfile
from collections.abc import Callable, Iterable, Mapping
from functools import partial
from importlib import metadata
from pathlib import Path

import numpy as np
import torch
from torch import nn

from ..analyse import measure
from ..analyse.latency import machine, using
from ..errors import InputError, RunError, nearest
from ..files import cache, read_json, write_json
from ..train.metrics import as_evaluated, device_of
from .bench import TOLERANCE
from .engines import DEFAULT, ENGINES, Array, Session, open_engine, runs_modules, why_not
from .export import FORMATS, export
from .exported import read_exported
from .optimise import optimise

AUTO = "auto"
# torch-compile takes longer than it mostly saves, and so does making a file for executorch
CANDIDATES = ("torch-channels-last", "convlite", "onnxruntime", "openvino")
WORTH = 60.0  # seconds of work from which on the time for exporting and measuring comes back
HANDFUL = 4  # images that are run without asking how long one takes
TURN = 0.2  # seconds that a turn of an engine takes, about, while they are measured
REMEMBERED = 200  # choices, the newest
Ways = Mapping[str, Callable[[], Session]]


def choose(
    network: nn.Module | Path,
    shape: tuple[int, int, int],
    *,
    engine: str = AUTO,
    count: float = 1,
    batch: int = 16,
    threads: int | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> Session:
    """The network on an engine, in fp32; a quantised file in int8.

    "auto" runs `count` images in plain torch, or an exported file's own engine, where that is a matter of seconds.
    Otherwise it tries all that are installed for two seconds, keeps to those that answer alike, and remembers the
    fastest in `memory()` for this network, machine, image size and batch.

    Arguments:
        network: a module, which is left as it is (one on a GPU runs there), or an exported file.
        shape: channels, height and width of the images.
        count: of images to come; infinite for a service.
        tell: gets a sentence on what was measured.

    Raises:
        InputError: no such engine, it is not installed, or it can't run this network.
    """
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as folder:
        ways = _of_file(network, threads) if isinstance(network, Path) else _of(network, shape, folder, threads)
        if engine != AUTO:
            if engine not in ENGINES:
                raise InputError(f"There is no engine {engine!r}; {nearest(engine, (AUTO, *ENGINES))}")
            return ways[engine]() if engine in ways else open_engine(network, engine, threads=threads)
        if isinstance(network, Path):
            own = next((name for name in ways if why_not(name) is None), next(iter(ways)))
            plain = ways[own]()
            ways = {**ways, own: lambda: plain}
        else:
            plain = unchanged(network, threads)
            if device_of(network).type != "cpu":
                return plain
        if count <= HANDFUL:
            return plain
        images = np.random.default_rng(0).standard_normal((int(min(batch, count)), *shape), dtype=np.float32)
        others = [name for name in CANDIDATES if name in ways and why_not(name) is None]
        if others in ([], [plain.name]):
            return plain
        took = _seconds(plain, images)
        if took * count / len(images) < WORTH:
            return plain
        key = _key(network, images.shape, plain.threads)
        known = _remembered().get(key)
        if known in others:
            try:
                return ways[known]()
            except (InputError, RunError) as error:
                tell(f"{known}, the fastest here before, can't be used any more: {error}")
        few = images[: max(1, int(len(images) * TURN / took))]
        return _fastest({name: ways[name] for name in others}, plain, few, key, tell)


def unchanged(model: nn.Module, threads: int | None = None) -> Session:
    """A module as it is and where it is, channels last: nothing is copied or compiled, so it answers at once."""
    device = device_of(model)

    def run(images: Array) -> Array:
        with as_evaluated(model), torch.no_grad(), using(threads):
            x = torch.from_numpy(images).to(device, memory_format=torch.channels_last)
            return model(x).float().cpu().numpy()

    name = "torch-channels-last" if device.type == "cpu" else f"torch on {device}"
    return Session(name, "fp32", threads or torch.get_num_threads(), run)


def memory() -> Path:
    """The file that keeps what was measured, in the user's cache folder."""
    return cache() / "engines.json"


def _of_file(path: Path, threads: int | None) -> Ways:
    """The engines that read an exported file, its own first."""
    said = read_exported(path)
    names = sorted((name for name in ENGINES if path.suffix in ENGINES[name][1]), key=DEFAULT[path.suffix].__ne__)
    precision = "int8" if said.precision == "int8" else "fp32"
    return {name: partial(open_engine, path, name, precision, threads) for name in names}


def _of(model: nn.Module, shape: tuple[int, int, int], folder: str, threads: int | None) -> Ways:
    """The engines for a module: what they need of it is only made when they are opened, and once."""

    def exported(name: str) -> Session:
        if (reason := why_not(name)) is not None:
            raise InputError(f"The engine {name} can't be used: {reason}.")
        suffix = ENGINES[name][1][0]
        file = Path(folder) / f"network{suffix}"
        if not file.exists():
            export(model, file, shape, to=FORMATS[suffix])
        return open_engine(file, name, threads=threads)

    def torch_engine(name: str) -> Session:
        return open_engine(optimise(model, torch.zeros(2, *shape)), name, threads=threads)

    return {name: partial(torch_engine if runs_modules(name) else exported, name) for name in ENGINES}


def _fastest(ways: Ways, plain: Session, images: Array, key: str, tell: Callable[[str], object]) -> Session:
    expected = plain(images)
    fit: dict[str, Session] = {}
    for name, way in ways.items():
        try:
            session = way()
            off = float(np.abs(session(images) - expected).max() / max(float(np.abs(expected).max()), 1e-30))
        except (InputError, RunError) as error:
            tell(f"{name} can't run this network: {error}")
            continue
        if off <= TOLERANCE:
            fit[name] = session
        else:
            tell(f"{name} answers differently by {off:.1e} of the largest score, and is left out.")
    if not fit:
        return plain
    found = measure({n: partial(s, images) for n, s in fit.items()}, warmup=1, seconds=2.0, minimum=3)
    order = sorted(found, key=lambda name: found[name].median)
    times = ", ".join(f"{name} {found[name].median:.3g} ms" for name in order)
    tell(f"Measured on {len(images)} images at once: {times}.")
    _remember(key, order[0])
    return fit[order[0]]


def _seconds(session: Session, images: Array) -> float:
    """For all of these images; a first run, which sets everything up, is not counted."""
    session(images[:1])
    found = measure({"": partial(session, images[:1])}, rounds=1, warmup=0, minimum=1)
    return found[""].median / 1e3 * len(images)


def _key(network: nn.Module | Path, shape: Iterable[int], threads: int) -> str:
    digest = hashlib.sha256()
    if isinstance(network, Path):
        digest.update(read_exported(network).about.read_bytes())
    else:
        digest.update(repr(network).encode())
        for name, tensor in network.state_dict().items():
            digest.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            digest.update(tensor.detach().cpu().flatten().view(torch.uint8).numpy())
    versions = [f"{name} {metadata.version(name)}" for name in ("torch", "onnxruntime", "openvino") if _has(name)]
    here = machine()
    digest.update(repr((tuple(shape), here.processor, here.cores, threads, versions)).encode())
    return digest.hexdigest()


def _has(package: str) -> bool:
    try:
        metadata.version(package)
    except metadata.PackageNotFoundError:
        return False
    return True


def _remembered() -> dict[str, str]:
    try:
        found = read_json(memory())
    except InputError:  # none yet, or another program's
        return {}
    return found if isinstance(found, dict) and all(isinstance(v, str) for v in found.values()) else {}


def _remember(key: str, engine: str) -> None:
    kept = {**_remembered(), key: engine}
    try:
        write_json(memory(), dict(list(kept.items())[-REMEMBERED:]))
    except InputError:  # a home that can't be written to: it is measured again next time
        return
