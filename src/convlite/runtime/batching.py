"""Images that come one by one, run together: what waits while the engine is busy is its next batch."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field

import numpy as np

from .engines import Array


@dataclass(eq=False)
class _Batch:
    """Images that will be run together, and the answers to them."""

    images: list[Array] = field(default_factory=list)
    full: threading.Event = field(default_factory=threading.Event)
    begun: float = field(default_factory=time.monotonic)
    answers: Future[Array] = field(default_factory=Future)


class Batcher:
    """One thread that runs an engine on batches as large as there are images waiting.

    Arguments:
        run: from images (N, C, H, W) to answers (N, ...).
        size: images at most in a batch. It is not filled up with others where there are fewer: engines take a time
            in proportion (`python benchmarks/serve.py a.onnx photos.tar --sizes`).
        wait: seconds that the first image of a batch waits for others, at most.
        seen: gets the size of each batch that is run.
    """

    def __init__(
        self,
        run: Callable[[Array], Array],
        size: int,
        wait: float,
        seen: Callable[[int], object] = lambda size: None,
    ) -> None:
        self._run, self._size, self._wait, self._seen = run, size, wait, seen
        self._lock = threading.Lock()
        self._open: _Batch | None = None
        self._engine = ThreadPoolExecutor(1, thread_name_prefix="engine")

    def ask(self, image: Array) -> tuple[Future[Array], int]:
        """An image (C, H, W): the answers to its batch to come, and its place among them; from any thread."""
        with self._lock:
            batch = self._open
            if batch is None:
                self._open = batch = _Batch()
                batch.answers = self._engine.submit(self._answer, batch)
            batch.images.append(image)
            if len(batch.images) == self._size:
                self._open = None
                batch.full.set()
            return batch.answers, len(batch.images) - 1

    def close(self) -> None:
        """Run what still waits, and end the thread."""
        self._engine.shutdown()

    def _answer(self, batch: _Batch) -> Array:
        batch.full.wait(max(0.0, batch.begun + self._wait - time.monotonic()))
        with self._lock:
            if self._open is batch:
                self._open = None
        images = np.stack(batch.images)  # (N, C, H, W)
        batch.images.clear()
        self._seen(len(images))
        return self._run(images)
