"""A network as a small HTTP service on this machine's processor."""

from __future__ import annotations

import asyncio
import contextlib
import os
import signal
import socket
import threading
import warnings
from collections.abc import Callable, Iterator
from typing import Any

import numpy as np

from ..errors import InputError, need
from .limits import Limits
from .predictor import Predictor
from .service import application

GRACE = 30  # seconds that requests under way get when the service is told to stop
SLOW = b"HTTP/1.1 408 Request Timeout\r\nconnection: close\r\ncontent-length: 0\r\n\r\n"


def serve(
    found: Predictor,
    name: str,
    *,
    door: socket.socket,
    batch: int = 8,
    wait: float = 0.002,
    limits: Limits | None = None,
    tell: Callable[[str], object] = lambda text: None,
) -> None:
    """Answer HTTP requests until SIGTERM or Ctrl-C; those under way are finished. See `application`.

    Arguments:
        name: of the network, for people.
        door: see `bind`.
        tell: gets the address.

    Raises:
        InputError: the network labels pixels.
    """
    server = server_of(found, name, batch=batch, wait=wait, limits=limits or Limits())
    host, port = door.getsockname()[:2]
    address = f"http://{f'[{host}]' if ':' in host else host}:{port}"
    tell(f"Serving {name} at {address}/predict; documentation at {address}/docs; Ctrl-C stops it.")
    with _stoppable():
        server.run(sockets=[door])


def server_of(found: Predictor, name: str, *, batch: int, wait: float, limits: Limits) -> Any:
    """A uvicorn server that is not running yet.

    Raises:
        InputError: the network labels pixels, or a package is missing.
    """
    if found.labels_pixels:
        raise InputError(f"{name} labels pixels, and the service names whole pictures: use convlite predict.")
    uvicorn = need("uvicorn", "serve")
    for size in {1, batch}:  # engines set themselves up for a size when they first meet it
        found.run(np.zeros((size, *found.how.shape), np.float32))
    bomb = need("PIL.Image", "serve").DecompressionBombWarning
    warnings.filterwarnings("ignore", category=bomb)  # the limit on pixels is there for that
    settings = uvicorn.Config(
        application(found, name, limits, batch=batch, wait=wait),
        http=_patient(limits.seconds),
        ws="none",
        lifespan="on",
        log_level="error",
        access_log=False,
        server_header=False,
        limit_concurrency=limits.connections,
        timeout_graceful_shutdown=GRACE,
    )
    return uvicorn.Server(settings)


def bind(host: str = "127.0.0.1", port: int = 8000) -> socket.socket:
    """A socket with an address, port 0 being any free one; it takes connections once it is served.

    Raises:
        InputError: the address is taken, or not this machine's.
    """
    door = socket.socket(socket.AF_INET6 if ":" in host else socket.AF_INET)
    try:
        if os.name == "posix":  # elsewhere this would take an address that another program uses
            door.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        door.bind((host, port))
    except OSError as error:
        door.close()
        raise InputError(
            f"Can't listen at {host}, port {port}: {error.strerror or error}; choose others with --host and --port."
        ) from error
    return door


def _patient(seconds: float) -> type:
    """uvicorn's protocol, which gives up on connections whose next request is not there in time.

    uvicorn itself waits for ever for the end of headers, and for the rest of a body that was refused.
    """
    protocol = need("uvicorn.protocols.http.h11_impl", "serve").H11Protocol

    class Patient(protocol):  # type: ignore[misc, valid-type]
        def connection_made(self, transport: asyncio.Transport) -> None:
            super().connection_made(transport)
            self._since = self.loop.time()
            self._look()

        def on_response_complete(self) -> None:
            self._since = self.loop.time()
            super().on_response_complete()

        def connection_lost(self, exc: Exception | None) -> None:
            self._timer.cancel()
            super().connection_lost(exc)

        def _look(self) -> None:
            idle = self.cycle is None or self.cycle.response_complete
            if idle and self.loop.time() - self._since >= seconds:
                if self.cycle is None:
                    self.transport.write(SLOW)
                self.transport.close()
            else:
                self._timer = self.loop.call_later(seconds / 4, self._look)

    return Patient


@contextlib.contextmanager
def _stoppable() -> Iterator[None]:
    """Both signals end the service well: uvicorn raises them again when it is done, and nobody else shall."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    both = signal.SIGINT, signal.SIGTERM
    before = [signal.signal(each, lambda *_: None) for each in both]
    try:
        yield
    finally:
        for each, handler in zip(both, before):
            signal.signal(each, handler)
