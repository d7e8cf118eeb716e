"""The HTTP service's end points. FastAPI reads the annotations of functions, so they stand here as values."""

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Annotated, Any

from torch import Tensor

from ..data.files import processors
from ..data.pictures import read
from ..errors import need
from .batching import Batcher
from .engines import Array
from .limits import STARTS, Limits, refused
from .predictor import Predictor

GONE = 499  # the status, from nginx, of a client that left before its request was whole


@dataclass(frozen=True)
class Named:
    """A class and its probability."""

    name: str
    probability: float


@dataclass(frozen=True)
class Answer:
    """The likeliest classes, best first."""

    classes: list[Named]


@dataclass(frozen=True)
class Refusal:
    """Why there is no answer."""

    detail: str


@dataclass(frozen=True)
class Health:
    """What is running."""

    status: str
    model: str
    engine: str
    precision: str
    classes: int


WHY = {
    400: "No picture, or one that can't be read.",
    408: "The body did not arrive in time.",
    413: "More bytes or pixels than the service takes.",
    415: "The content type is none of those below.",
    503: "Too much is waiting: try again.",
}


def application(found: Predictor, name: str, limits: Limits, *, batch: int, wait: float) -> Any:
    """An ASGI application with POST /predict, GET /health, GET /metrics and its own documentation at /docs.

    Arguments:
        found: of a network that names whole pictures.
        name: of the network, for people.
        batch: pictures that the engine gets at once, at most.
        wait: seconds that a picture waits for others.
    """
    need("fastapi", "serve")
    from fastapi import FastAPI, HTTPException, Query, Request, Response
    from starlette.requests import ClientDisconnect

    figures = Figures()
    batcher = Batcher(found.run, batch, wait, figures.batches.observe)
    decoders = ThreadPoolExecutor(processors(), thread_name_prefix="decode")

    @asynccontextmanager
    async def alive(service: Any) -> AsyncIterator[None]:
        yield
        decoders.shutdown()
        batcher.close()

    service = FastAPI(
        title="convlite", summary=f"What pictures show, by {name}.", lifespan=alive, openapi_url="/openapi.json"
    )
    service.add_middleware(Counted, figures=figures)
    held = 0  # bytes of pictures that are received or decoded

    def decoded(content: bytes) -> Array | tuple[int, str]:
        """An image (C, H, W) as the engine takes it, or why there is none."""
        if (why := refused(content, limits)) is not None:
            return why
        pixels = read(content, found.how)
        if not isinstance(pixels, Tensor):
            return 400, f"The picture can't be read: {pixels}."
        return found.prepare(pixels[None])[0]

    async def received(request: Request) -> bytes:
        nonlocal held
        content = bytearray()
        too_many = HTTPException(413, f"The body has too many bytes: send {limits.body:,} at most.")
        if int(request.headers.get("content-length", 0)) > limits.body:
            raise too_many
        try:
            async with asyncio.timeout(limits.seconds):
                async for part in request.stream():
                    content += part
                    held += len(part)
                    if len(content) > limits.body:
                        raise too_many
                    if held > limits.held:
                        raise busy()
            return bytes(content)
        except TimeoutError:
            why = f"The body did not arrive within {limits.seconds:g} seconds."
            raise HTTPException(408, why, {"Connection": "close"}) from None
        finally:
            held -= len(content)

    def busy() -> Exception:
        refusal: Exception = HTTPException(503, "Too much is waiting: try again.", {"Retry-After": "1"})
        return refusal

    async def predict(
        request: Request,
        top: Annotated[int, Query(ge=1, description="How many classes to name.")] = 5,
    ) -> Any:
        """The body is the picture itself, as a JPEG, PNG or WebP file."""
        nonlocal held
        kind = request.headers.get("content-type", "").partition(";")[0].strip().lower()
        if kind not in STARTS:
            raise HTTPException(415, f"The content type is one of {', '.join(STARTS)}, not {kind!r}.")
        try:
            content = await received(request)
        except ClientDisconnect:
            return Response(status_code=GONE)
        if figures.waiting >= limits.waiting:
            raise busy()
        figures.waiting += 1
        held += (size := len(content))
        try:
            loop = asyncio.get_running_loop()
            image = await loop.run_in_executor(decoders, decoded, content)
            if isinstance(image, tuple):
                raise HTTPException(*image)
            answers, place = batcher.ask(image)
            scores = await asyncio.shield(asyncio.wrap_future(answers))  # (N, classes), of others too
        finally:
            figures.waiting -= 1
            held -= size
        return Answer([Named(*each) for each in found.best(scores[place], top)])

    async def health() -> Health:
        session = found.session
        return Health("ok", name, session.name, session.precision, len(found.classes))

    async def metrics() -> Any:
        return Response(figures.text(), media_type=figures.kind)

    bodies = {kind: {"schema": {"type": "string", "format": "binary"}} for kind in STARTS}
    service.add_api_route(
        "/predict",
        predict,
        methods=["POST"],
        summary="Name what a picture shows",
        response_model=Answer,
        responses={status: {"model": Refusal, "description": text} for status, text in WHY.items()},
        openapi_extra={"requestBody": {"required": True, "content": bodies}},
    )
    service.add_api_route("/health", health, summary="What is running", response_model=Health)
    service.add_api_route("/metrics", metrics, summary="Figures for Prometheus", response_class=Response)
    return service


class Figures:
    """What is counted, for Prometheus."""

    def __init__(self) -> None:
        prometheus = need("prometheus_client", "serve")
        self._registry = registry = prometheus.CollectorRegistry()
        self._text, self.kind = prometheus.generate_latest, prometheus.CONTENT_TYPE_LATEST
        self.waiting = 0
        self.requests = prometheus.Counter(
            "convlite_requests",
            "Requests to /predict by status; 499: the client left.",
            ["status"],
            registry=registry,
        )
        self.seconds = prometheus.Histogram(
            "convlite_request_seconds",
            "From a request's headers to its answer.",
            registry=registry,
            buckets=(0.005, 0.01, 0.025, 0.05, 0.1, 0.25, 0.5, 1, 2.5, 5, 10),
        )
        self.batches = prometheus.Histogram(
            "convlite_batch_images", "Images run at once.", registry=registry, buckets=(1, 2, 4, 8, 16, 32, 64)
        )
        gauge = prometheus.Gauge("convlite_waiting_images", "Pictures being decoded or run.", registry=registry)
        gauge.set_function(lambda: self.waiting)

    def text(self) -> bytes:
        """All of them, in Prometheus's own format."""
        found: bytes = self._text(self._registry)
        return found


@dataclass(frozen=True)
class Counted:
    """Middleware that counts what /predict answered, also where FastAPI refuses by itself."""

    app: Callable[..., Awaitable[None]]
    figures: Figures

    async def __call__(self, scope: Any, receive: Any, send: Any) -> None:
        """See the ASGI specification."""
        if scope["type"] != "http" or scope["path"] != "/predict":
            await self.app(scope, receive, send)
            return
        begun = time.perf_counter()

        async def counting(message: Any) -> None:
            if message["type"] == "http.response.start":
                self.figures.requests.labels(message["status"]).inc()
                self.figures.seconds.observe(time.perf_counter() - begun)
            await send(message)

        try:
            await self.app(scope, receive, counting)
        except BaseException:
            self.figures.requests.labels(500).inc()
            raise
