"""The service answers as `predict` does, refuses what it must with the right status, and ends well."""

import io
import json
import socket
import struct
import threading
import time
import zlib
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager

import numpy as np
import pytest
import torch
from PIL import Image
from torch import nn

from convlite.errors import InputError
from convlite.preprocess import HALF, Preprocess
from convlite.runtime import Session, predict, predictor
from convlite.runtime.batching import Batcher
from convlite.runtime.limits import Limits
from convlite.runtime.predictor import Predictor
from convlite.runtime.serve import bind, server_of

HOW = Preprocess((8, 8), *HALF)
LIMITS = Limits(body=50_000, pixels=10_000, seconds=0.3, waiting=8)


@pytest.fixture(scope="module")
def found():
    torch.manual_seed(0)
    return predictor(nn.Sequential(nn.Conv2d(3, 4, 3), nn.AdaptiveAvgPool2d(1), nn.Flatten()), HOW, "abcd")


@contextmanager
def running(found, **options):
    """A server on a free port; its port, and what tells it to stop and waits for that."""
    door = bind(port=0)
    server = server_of(found, "net", **{"batch": 4, "wait": 0.002, "limits": LIMITS, **options})
    thread = threading.Thread(target=server.run, args=([door],))
    thread.start()
    while not server.started:
        assert thread.is_alive()
        time.sleep(0.005)

    def stop():
        server.should_exit = True
        thread.join(20)
        assert not thread.is_alive()

    try:
        yield door.getsockname()[1], stop
    finally:
        stop()


@pytest.fixture(scope="module")
def port(found):
    with running(found) as (port, _):
        yield port


def send(port, head, body=b""):
    """A connection on which a request was sent."""
    sock = socket.create_connection(("127.0.0.1", port), timeout=20)
    sock.sendall(head.encode() + body)
    return sock


def answered(sock):
    """Status, headers and body of the answer; the connection is closed."""
    with sock, sock.makefile("rb") as file:
        status = int(file.readline().split()[1])
        headers = {}
        while line := file.readline().strip():
            name, _, value = line.decode().partition(": ")
            headers[name.lower()] = value
        return status, headers, file.read(int(headers.get("content-length", 0)))


def ask(port, body=b"", kind="image/png", path="/predict", method="POST"):
    head = f"{method} {path} HTTP/1.1\r\nHost: x\r\nContent-Type: {kind}\r\nContent-Length: {len(body)}\r\n\r\n"
    return answered(send(port, head, body))


def encoded(height=9, width=12, form="PNG", seed=0):
    pixels = np.random.default_rng(seed).integers(0, 256, (height, width, 3), dtype=np.uint8)
    file = io.BytesIO()
    Image.fromarray(pixels).save(file, form)
    return file.getvalue()


def bomb(side):
    """A PNG that says it has side x side pixels, in a few bytes."""
    header = struct.pack(">IIBBBBB", side, side, 8, 2, 0, 0, 0)
    chunks = [(b"IHDR", header), (b"IDAT", zlib.compress(bytes(1000))), (b"IEND", b"")]
    parts = [struct.pack(">I", len(c)) + n + c + struct.pack(">I", zlib.crc32(n + c)) for n, c in chunks]
    return b"\x89PNG\r\n\x1a\n" + b"".join(parts)


def test_answers_are_those_of_predict(found, port, tmp_path):
    kinds = {"PNG": "image/png", "JPEG": "image/jpeg", "WEBP": "image/webp"}
    sent = [(encoded(9 + i, 12, form, i), kind) for i in range(4) for form, kind in kinds.items()]
    for i, (content, _) in enumerate(sent):
        (tmp_path / f"{i:02}").write_bytes(content)
    expected = [one.to_dict()["classes"] for one in predict(found, sorted(tmp_path.iterdir()), top=3)]
    with ThreadPoolExecutor(LIMITS.waiting) as pool:
        answers = list(pool.map(lambda each: ask(port, *each, path="/predict?top=3"), sent))
    for (status, headers, body), classes in zip(answers, expected, strict=True):
        assert (status, headers["content-type"]) == (200, "application/json")
        given = json.loads(body)["classes"]
        assert [one["name"] for one in given] == [one["name"] for one in classes]
        assert [one["probability"] for one in given] == pytest.approx(
            [one["probability"] for one in classes], abs=1e-6
        )


GOOD = encoded()
BAD = {
    "no picture": ({"body": b"hello", "kind": "image/png"}, 400),
    "empty": ({"body": b""}, 400),
    "cut short": ({"body": GOOD[:100]}, 400),
    "only a start": ({"body": GOOD[:10]}, 400),
    "another type inside": ({"body": encoded(form="GIF")}, 400),
    "wrong type": ({"body": GOOD, "kind": "application/json"}, 415),
    "no type": ({"body": GOOD, "kind": ""}, 415),
    "large": ({"body": bytes(50_001)}, 413),
    "many pixels": ({"body": encoded(101, 100, "JPEG"), "kind": "image/jpeg"}, 413),
    "bomb": ({"body": bomb(10_000)}, 413),
    "giant bomb": ({"body": bomb(60_000)}, 400),
    "no classes": ({"body": GOOD, "path": "/predict?top=0"}, 422),
    "no number": ({"body": GOOD, "path": "/predict?top=x"}, 422),
    "no such page": ({"body": GOOD, "path": "/predictions"}, 404),
    "wrong method": ({"method": "GET"}, 405),
}


@pytest.mark.filterwarnings("ignore::PIL.Image.DecompressionBombWarning")
@pytest.mark.parametrize("case", BAD)
def test_what_can_t_be_answered_is_refused(port, case):
    request, expected = BAD[case]
    status, _, body = ask(port, **request)
    assert status == expected and json.loads(body)["detail"]
    assert ask(port, GOOD)[0] == 200


def test_no_http(port):
    assert answered(send(port, "nonsense\r\n\r\n"))[0] == 400
    assert answered(send(port, "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Length: -1\r\n\r\n"))[0] == 400


HEAD = "POST /predict HTTP/1.1\r\nHost: x\r\nContent-Type: image/png\r\n"


def test_what_is_slow_is_given_up(port):
    part = send(port, HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n", GOOD[:20])
    head = send(port, "POST /predict HTTP/1.1\r\nHo")
    silent = send(port, "")
    for sock in (part, head, silent):
        status, headers, _ = answered(sock)
        assert (status, headers["connection"]) == (408, "close")


def test_a_body_of_unsaid_length_is_counted_too(port):
    chunk = b"4000\r\n" + bytes(0x4000) + b"\r\n"
    sock = send(port, HEAD + "Transfer-Encoding: chunked\r\n\r\n", chunk * 4 + b"0\r\n\r\n")
    assert answered(sock)[0] == 413
    good = b"%x\r\n" % len(GOOD) + GOOD + b"\r\n0\r\n\r\n"
    assert answered(send(port, HEAD + "Transfer-Encoding: chunked\r\n\r\n", good))[0] == 200


def test_one_connection_carries_many_requests_also_after_a_refusal(port):
    head = HEAD + "Content-Length: {}\r\n\r\n"
    with socket.create_connection(("127.0.0.1", port), timeout=20) as sock:
        for body, expected in [(GOOD, b"200"), (bytes(60_000), b"413"), (b"x", b"400"), (GOOD, b"200")]:
            sock.sendall(head.format(len(body)).encode() + body)
            text = sock.recv(65536)
            while b"]}" not in text and b'"}' not in text:
                text += sock.recv(65536)
            assert text.split()[1] == expected


def figures(port):
    lines = ask(port, path="/metrics", method="GET")[2].decode().splitlines()
    return {name: float(value) for name, _, value in (line.rpartition(" ") for line in lines if line[0] != "#")}


def test_what_is_aborted_leaves_nothing_behind(port):
    def gone():
        return figures(port).get('convlite_requests_total{status="499"}', 0)

    before = gone()
    for _ in range(3):
        send(port, HEAD + f"Content-Length: {len(GOOD)}\r\n\r\n", GOOD[:20]).close()
    until = time.monotonic() + 10
    while gone() < before + 3 and time.monotonic() < until:
        time.sleep(0.01)
    assert gone() == before + 3 and figures(port)["convlite_waiting_images"] == 0


def test_health_metrics_and_documentation(found, port):
    said = json.loads(ask(port, path="/health", method="GET")[2])
    assert said == {
        "status": "ok", "model": "net", "engine": found.session.name, "precision": "fp32", "classes": 4,
    }  # fmt: skip
    before = figures(port)
    for body in (GOOD, GOOD, b"x"):
        ask(port, body)
    after = figures(port)
    for name, more in {
        'convlite_requests_total{status="200"}': 2, 'convlite_requests_total{status="400"}': 1,
        "convlite_request_seconds_count": 3, "convlite_batch_images_sum": 2, "convlite_batch_images_count": 2,
    }.items():  # fmt: skip
        assert after[name] - before.get(name, 0) == more, name
    api = json.loads(ask(port, path="/openapi.json", method="GET")[2])["paths"]["/predict"]["post"]
    assert set(api["requestBody"]["content"]) == {"image/jpeg", "image/png", "image/webp"}
    assert {"200", "400", "408", "413", "415", "422", "503"} <= set(api["responses"])
    assert api["responses"]["200"]["content"]["application/json"]["schema"]["$ref"].endswith("/Answer")
    assert ask(port, path="/docs", method="GET")[0] == 200


class Gate:
    """An engine that waits to be let go on."""

    def __init__(self):
        self.open = threading.Event()
        self.open.set()

    def __call__(self, images):
        assert self.open.wait(20)
        return np.zeros((len(images), 4), np.float32)


@pytest.fixture
def gate():
    return Gate()


@pytest.fixture
def gated(gate):
    return Predictor(Session("gate", "fp32", 1, gate), HOW, tuple("abcd"), False)


def test_too_much_at_once_is_put_off(gate, gated):
    with running(gated) as (port, _), ThreadPoolExecutor(20) as pool:
        gate.open.clear()
        asked = [pool.submit(ask, port, GOOD) for _ in range(LIMITS.waiting)]
        while figures(port)["convlite_waiting_images"] < LIMITS.waiting:
            time.sleep(0.01)
        status, headers, _ = ask(port, GOOD)
        gate.open.set()
        assert (status, headers["retry-after"]) == (503, "1")
        assert [one.result()[0] for one in asked] == [200] * LIMITS.waiting
        assert ask(port, GOOD)[0] == 200
        assert 2 <= figures(port)['convlite_batch_images_bucket{le="4.0"}'] < LIMITS.waiting


def test_what_is_under_way_is_finished_before_the_end(gate, gated):
    with running(gated) as (port, stop), ThreadPoolExecutor(4) as pool:
        gate.open.clear()
        asked = [pool.submit(ask, port, GOOD) for _ in range(3)]
        while figures(port)["convlite_waiting_images"] < 3:
            time.sleep(0.01)
        stopped = pool.submit(stop)
        with pytest.raises(OSError):
            while True:
                socket.create_connection(("127.0.0.1", port), timeout=1).close()
        assert not stopped.done() and not any(one.done() for one in asked)
        gate.open.set()
        assert [one.result()[0] for one in asked] == [200] * 3
        stopped.result()


def test_every_image_gets_its_own_answer_whatever_the_batches():
    sizes = []
    batcher = Batcher(lambda images: images.sum((1, 2, 3)), 5, 0.001, sizes.append)
    images = np.random.default_rng(0).standard_normal((200, 1, 2, 2))
    with ThreadPoolExecutor(8) as pool:
        asked = list(pool.map(batcher.ask, images))
    assert [batch.result()[place] for batch, place in asked] == pytest.approx(images.sum((1, 2, 3)).tolist())
    assert sum(sizes) == 200 and max(sizes) == 5
    batcher.close()


def test_an_engine_that_fails_fails_for_its_batch_alone():
    def run(images):
        if images.min() < 0:
            raise RuntimeError("no")
        return images

    batcher = Batcher(run, 1, 0)
    bad, good = batcher.ask(np.array([-1.0])), batcher.ask(np.array([1.0]))
    with pytest.raises(RuntimeError):
        bad[0].result()
    assert good[0].result().tolist() == [[1.0]]
    batcher.close()


def test_what_is_refused_at_the_start(found):
    with pytest.raises(InputError, match="above zero, not 0"):
        Limits(body=0)
    with socket.create_server(("127.0.0.1", 0)) as taken, pytest.raises(InputError, match="in use"):
        bind(port=taken.getsockname()[1])
    dense = Predictor(found.session, HOW, found.classes, True)
    with pytest.raises(InputError, match="use convlite predict"):
        server_of(dense, "net", batch=1, wait=0, limits=LIMITS)
