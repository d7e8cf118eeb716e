"""`convlite serve` under many clients, beside its engine called directly on the same decoded pictures.

    python benchmarks/serve.py MODEL photos.tar --seconds 60
    python benchmarks/serve.py MODEL photos.tar --seconds 60 --hostile

MODEL is an exported file that says how pictures become its input, so that both sides open the same; or a family,
such as xception, with random weights and pixels scaled to -1..1, exported for this.

The service is a process of its own; clients and the direct calls share this one, and never run at the same time.
Direct calls (batches as large as the service's, pictures decoded and scaled before) are timed before and after it;
the ratio is of images a second. Clients use plain sockets; the processor time that they took from the service is
printed. `--hostile` adds senders of all that a service should refuse, and counts what each was answered.
"""

import argparse
import asyncio
import contextlib
import os
import re
import signal
import statistics
import struct
import subprocess
import sys
import tempfile
import time
import zlib
from collections import Counter
from collections.abc import Iterator
from pathlib import Path

import numpy as np
import torch

import convlite as cl
from convlite.analyse.latency import machine
from convlite.data.archives import tar
from convlite.data.encoded import content_of
from convlite.data.pictures import SUFFIXES, read
from convlite.models import FAMILIES
from convlite.preprocess import Preprocess
from convlite.runtime import Predictor, export, predictor

HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: {}\r\nContent-Length: {}\r\n\r\n"
SLOW = 2  # seconds that the service waits for a request in this benchmark


def main() -> None:
    """Print the figures."""
    parser = argparse.ArgumentParser()
    parser.add_argument("model", help="an exported file, or a family")
    parser.add_argument("photos", type=Path, help="a folder or tar archive of JPEG photographs")
    parser.add_argument("--clients", type=int, default=64)
    parser.add_argument("--seconds", type=float, default=60)
    parser.add_argument("--batch", type=int, default=8)
    parser.add_argument("--engine", default="onnxruntime")
    parser.add_argument("--threads", type=int)
    parser.add_argument("--hostile", action="store_true")
    parser.add_argument("--sizes", action="store_true", help="only time the engine on batches of every size")
    given = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        if given.model in FAMILIES:
            given.model = exported(given.model, Path(folder))
        measure(given)


def exported(name: str, folder: Path) -> str:
    """A family's network as a file."""
    torch.manual_seed(0)
    size = FAMILIES[name].input
    how = Preprocess(size[1:], mean=(0.5,) * 3, std=(0.5,) * 3, crop=0.9)
    return str(export(cl.create(name).eval(), folder / f"{name}.onnx", size, preprocess=how).path)


def measure(given: argparse.Namespace) -> None:
    """Print the figures of a file."""
    found = predictor(given.model, engine=given.engine, threads=given.threads)
    print(f"{given.model} on {found.session.name}, {found.session.threads} threads; {machine().processor}")
    if given.sizes:
        sizes(found, given.batch)
        return
    photos = pictures(given.photos)
    images = [torch.as_tensor(read(photo, found.how)) for photo in photos]
    expected = [found.best(scores, 1)[0][0] for scores in np.concatenate([found.scores(i[None]) for i in images])]
    begun = direct(found, images, given.batch, min(10, given.seconds / 6))
    with service(given) as (process, port):
        busy, own = processor_seconds(process.pid), time.process_time()
        start = time.perf_counter()
        times, statuses, wrong, hostile, held = asyncio.run(load(given, process.pid, port, photos, expected))
        wall = time.perf_counter() - start
        busy, own = processor_seconds(process.pid) - busy, time.process_time() - own
        most = peak(process.pid)
        batches = asyncio.run(mean_batch(port))
    ended = direct(found, images, given.batch, min(10, given.seconds / 6))
    rate, plain = statuses[200] / wall, (begun + ended) / 2
    cut = statistics.quantiles(times, n=100)
    print(f"{given.clients} clients for {wall:.0f} s: {dict(sorted(statuses.items()))}, {wrong} wrong answers")
    print(f"latency: median {1e3 * cut[49]:.0f} ms, 99% {1e3 * cut[98]:.0f} ms; {batches:.1f} images a batch")
    print(f"images a second: {rate:.1f}; engine alone {begun:.1f} before, {ended:.1f} after: {rate / plain:.0%}")
    print(f"of {os.cpu_count()} cores the service used {busy / wall:.2f}, the clients {own / wall:.2f}")
    print(f"memory: {', '.join(f'{mb:.0f}' for mb in held)} MB, from before to the end; {most:.0f} at most")
    for kind, found_statuses in hostile.items():
        print(f"hostile, {kind}: {dict(found_statuses)}")


@contextlib.contextmanager
def service(given: argparse.Namespace) -> Iterator[tuple[subprocess.Popen, int]]:
    """The service's process and port; told to stop at the end, which must go well."""
    options = ["--port", "0", "--engine", given.engine, "--batch", str(given.batch), "--limit", f"seconds={SLOW}"]
    options += [] if given.threads is None else ["--threads", str(given.threads)]
    process = subprocess.Popen(
        [sys.executable, "-m", "convlite", "serve", given.model, *options], stderr=subprocess.PIPE, text=True
    )
    try:
        while not (said := re.search(r"at http://127.0.0.1:(\d+)/", process.stderr.readline())):
            pass
        time.sleep(1)
        yield process, int(said[1])
        process.send_signal(signal.SIGTERM)
        _, errors = process.communicate(timeout=60)
        print(f"stopped with exit code {process.returncode} {errors.strip()[-500:]}")
    finally:
        process.kill()


async def load(given, pid: int, port: int, photos: list[bytes], expected: list[str]):
    """Latencies, answers by status, wrong ones, what hostile senders got, and the service's memory meanwhile."""
    until = time.perf_counter() + given.seconds
    times, statuses, hostile = [], Counter(), {kind: Counter() for kind in BAD} if given.hostile else {}
    wrong = 0

    async def client(number: int) -> None:
        nonlocal wrong
        reader, writer = await asyncio.open_connection("127.0.0.1", port)
        turn = number
        while time.perf_counter() < until:
            photo, name = photos[turn % len(photos)], expected[turn % len(photos)]
            turn += 1
            start = time.perf_counter()
            writer.write(HEAD.format("image/jpeg", len(photo)).encode() + photo)
            try:
                status, body = await answer(reader)
            except (OSError, asyncio.IncompleteReadError, asyncio.LimitOverrunError):
                status, body = 0, b""
                reader, writer = await asyncio.open_connection("127.0.0.1", port)
            times.append(time.perf_counter() - start)
            statuses[status] += 1
            wrong += status == 200 and f'"name":"{name}"'.encode() not in body
        writer.close()

    async def enemy(kind: str) -> None:
        while time.perf_counter() < until:
            with contextlib.suppress(OSError):
                hostile[kind][await attack(port, *BAD[kind])] += 1
            await asyncio.sleep(0.2)

    held = [resident(pid)]

    async def watch() -> None:
        for _ in range(4):
            await asyncio.sleep(given.seconds / 4)
            held.append(resident(pid))

    await asyncio.gather(watch(), *map(client, range(given.clients)), *map(enemy, hostile))
    return times, statuses, wrong, hostile, held


async def answer(reader: asyncio.StreamReader) -> tuple[int, bytes]:
    """Status and body."""
    head = await reader.readuntil(b"\r\n\r\n")
    length = re.search(rb"content-length: (\d+)", head)
    return int(head[9:12]), await reader.readexactly(int(length[1]) if length else 0)


def bomb(side: int) -> bytes:
    """A PNG of a few bytes that says it has side x side pixels."""
    chunks = [(b"IHDR", struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)), (b"IDAT", zlib.compress(bytes(9999)))]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


BAD = {  # head, body, and whether the rest of a longer body never comes: None where the sender hangs up
    "malformed": (HEAD.format("image/png", 5000), os.urandom(5000), False),
    "broken picture": (HEAD.format("image/png", 500), bomb(100)[:50] + bytes(450), False),
    "no HTTP": ("", b"\0\1\2\3\r\n\r\n", False),
    "huge": (HEAD.format("image/png", 10**12), bytes(200_000), False),
    "huge, chunked": (
        "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\nTransfer-Encoding: chunked\r\n\r\n",
        b"1000000\r\n" + bytes(0x1000000),
        False,
    ),
    "bomb": (HEAD.format("image/png", len(bomb(9000))), bomb(9000), False),
    "giant bomb": (HEAD.format("image/png", len(bomb(60_000))), bomb(60_000), False),
    "wrong type": (HEAD.format("application/zip", 100), bytes(100), False),
    "slow body": (HEAD.format("image/png", 5000), bytes(50), True),
    "slow head": ("POST /predict HTT", b"", True),
    "aborted": (HEAD.format("image/png", 5000), bytes(50), None),
}


async def attack(port: int, head: str, body: bytes, slow: bool | None) -> int | str:
    """The status that it got."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    try:
        writer.write(head.encode() + body)
        if slow is None:
            return "left"
        status, _ = await asyncio.wait_for(answer(reader), 30)
        return status
    except (OSError, asyncio.IncompleteReadError) as error:
        return type(error).__name__
    finally:
        writer.transport.abort()


async def mean_batch(port: int) -> float:
    """Images a batch, from the service's own figures."""
    reader, writer = await asyncio.open_connection("127.0.0.1", port)
    writer.write(b"GET /metrics HTTP/1.1\r\nHost: x\r\n\r\n")
    text = (await answer(reader))[1].decode()
    writer.close()
    total, count = (float(re.search(rf"convlite_batch_images_{n} (\S+)", text)[1]) for n in ("sum", "count"))
    return total / count


def direct(found: Predictor, images: list[torch.Tensor], batch: int, seconds: float) -> float:
    """Images a second of the engine alone."""
    ready = np.concatenate([found.prepare(image[None]) for image in images])
    parts = [np.ascontiguousarray(np.resize(ready[i:], (batch, *ready.shape[1:]))) for i in range(0, 32, batch)]
    found.run(parts[0])
    start, done = time.perf_counter(), 0
    while time.perf_counter() - start < seconds:
        found.run(parts[done % len(parts)])
        done += 1
    return done * batch / (time.perf_counter() - start)


def sizes(found: Predictor, batch: int) -> None:
    """Milliseconds of every size of a batch, the first time and then: whether filling up would pay."""
    for size in range(1, batch + 1):
        images = np.random.default_rng(0).standard_normal((size, *found.how.shape), dtype=np.float32)
        took = []
        for _ in range(8):
            start = time.perf_counter()
            found.run(images)
            took.append(1e3 * (time.perf_counter() - start))
        median = statistics.median(took[1:])
        print(f"{size}: first {took[0]:.1f} ms, then {median:.1f}, {median / size:.1f} an image")


def pictures(source: Path) -> list[bytes]:
    """JPEG files' contents."""
    if source.is_dir():
        return [path.read_bytes() for path in sorted(source.rglob("*")) if path.suffix.lower() in SUFFIXES]
    return [content_of(file) for _, file in sorted(tar(source).files.items())]


def resident(pid: int) -> float:
    """MB in memory."""
    return int(Path(f"/proc/{pid}/statm").read_text().split()[1]) * os.sysconf("SC_PAGE_SIZE") / 1e6


def peak(pid: int) -> float:
    """MB in memory, at most so far."""
    return int(re.search(r"VmHWM:\s+(\d+)", Path(f"/proc/{pid}/status").read_text())[1]) * 1024 / 1e6


def processor_seconds(pid: int) -> float:
    """That a process has used."""
    fields = Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split()
    return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")


if __name__ == "__main__":
    main()
