"""A student over HTTP.

    POST /predict   {"texts": ["…", "…"]}, and "probabilities": true for those of all labels
                    -> {"predictions": [{"label": "…", "confidence": 0.98}, …]}
                    of a student that gives a text any number of labels
                    -> {"predictions": [{"labels": ["…", "…"], "confidence": 0.9}, …]}
                    of a student that gives one label to two texts together; each of `texts` is a list of both, ["…", "…"]
                    -> as of one that gives a text a label
                    of a student that marks spans
                    -> {"predictions": [{"spans": [{"start": 0, "end": 5, "type": "…", "confidence": 0.98}, …], "confidence": 0.9}, …]}
    GET  /health    -> {"status": "ok", "labels": […], …}
    GET  /metrics   for Prometheus

Whatever is wrong with a request is answered with a 4xx and {"error": "…"}, and costs the student nothing; when more waits than may, with a
503. Stopping answers first what was taken.
"""

from __future__ import annotations

import logging
import time
from collections.abc import AsyncGenerator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from typing import Any

import msgspec
from aiohttp import web
from prometheus_client import CONTENT_TYPE_LATEST, CollectorRegistry, Counter, Gauge, Histogram, generate_latest

from engine.errors import UserError
from student.batching import Batcher, BusyError
from student.predictions import SetPredictions, SpanPredictions, TextPredictor, check_contents
from student.span_decoding import GuessedSpans

RETRY_AFTER_S = 1
STOP_TIMEOUT_S = 30.0
"""For what was taken before the stop."""

log = logging.getLogger(__name__)


class PredictRequest(msgspec.Struct, forbid_unknown_fields=True):
    texts: list[str | tuple[str, str]]
    probabilities: bool = False


@dataclass(frozen=True, slots=True)
class ServingLimits:
    max_body_bytes: int = 8 << 20
    max_texts: int = 1024
    """In one request."""
    max_waiting: int = 4096
    """Texts, of all requests."""


class Metrics:
    """In a registry of its own, so that several servers can live in one process."""

    def __init__(self) -> None:
        self.registry = CollectorRegistry()
        self.requests = Counter("reflux_student_requests", "Requests to /predict by HTTP status.", ["status"], registry=self.registry)
        self.texts = Counter("reflux_student_texts", "Texts that were labelled.", registry=self.registry)
        self.latency = Histogram("reflux_student_latency_seconds", "From a request to its answer.", registry=self.registry)
        self.batch = Histogram(
            "reflux_student_batch_texts", "Texts computed at once.", buckets=(1, 2, 4, 8, 16, 32, 64, 128, 256), registry=self.registry
        )
        self.waiting = Gauge("reflux_student_waiting_texts", "Texts that wait to be computed.", registry=self.registry)


@asynccontextmanager
async def serving(
    predictor: TextPredictor, *, host: str, port: int, batch_size: int = 64, limits: ServingLimits | None = None
) -> AsyncGenerator[str]:
    """The URL that it answers at, while the block lasts. `port` 0 takes a free one. UserError if the port cannot be had."""
    limits = limits or ServingLimits()
    metrics = Metrics()
    async with Batcher(predictor, batch_size=batch_size, max_waiting=limits.max_waiting, on_batch=metrics.batch.observe) as batcher:
        metrics.waiting.set_function(lambda: batcher.num_waiting)
        # A client that has gone frees the places of its texts.
        runner = web.AppRunner(
            make_app(predictor, batcher, metrics, limits), handler_cancellation=True, access_log=None, shutdown_timeout=STOP_TIMEOUT_S
        )
        await runner.setup()
        try:
            site = web.TCPSite(runner, host, port)
            try:
                await site.start()
            except OSError as error:
                raise UserError(f"cannot serve at {host}:{port}: {error.strerror or error}; choose another --port") from None
            address: tuple[Any, ...] = runner.addresses[0]
            yield f"http://{f'[{host}]' if ':' in host else host}:{address[1]}"
        finally:
            await runner.cleanup()


def make_app(predictor: TextPredictor, batcher: Batcher, metrics: Metrics, limits: ServingLimits) -> web.Application:
    async def predict(request: web.Request) -> web.Response:
        wanted = _read(await request.read(), limits)
        try:
            check_contents(wanted.texts, predictor.kind)
        except UserError as error:
            example = '["…", "…"]' if predictor.kind == "pair" else '"…"'
            raise _WrongRequestError(f'{error}; expected {{"texts": [{example}, …]}}') from None
        try:
            found = await batcher.predict(wanted.texts)
        except BusyError:
            reason = f"{batcher.num_waiting} texts wait already, {limits.max_waiting} may; try again, or send fewer at once"
            return _error(503, reason, {"Retry-After": str(RETRY_AFTER_S)})
        metrics.texts.inc(len(found))
        if isinstance(found, SpanPredictions):
            if wanted.probabilities:
                raise _WrongRequestError("this student marks spans, each with its confidence; leave out `probabilities`")
            return _json({"predictions": [_spans(guess) for guess in found.best()]})
        name = "labels" if isinstance(found, SetPredictions) else "label"
        predictions: list[dict[str, Any]] = [{name: said, "confidence": confidence} for said, confidence in found.best()]
        if wanted.probabilities:
            for prediction, row in zip(predictions, found.probabilities(), strict=True):
                prediction["probabilities"] = row
        return _json({"predictions": predictions})

    async def health(_: web.Request) -> web.Response:
        return _json({"status": "ok", "labels": predictor.labels, "max_length": predictor.max_length, "waiting": batcher.num_waiting})

    async def show_metrics(_: web.Request) -> web.Response:
        return web.Response(body=generate_latest(metrics.registry), headers={"Content-Type": CONTENT_TYPE_LATEST})

    app = web.Application(client_max_size=limits.max_body_bytes, middlewares=[_answering(metrics, limits)])
    app.add_routes([web.post("/predict", predict), web.get("/health", health), web.get("/metrics", show_metrics)])
    return app


class _WrongRequestError(Exception):
    """Carries what is wrong."""


def _read(body: bytes, limits: ServingLimits) -> PredictRequest:
    try:
        wanted = msgspec.json.decode(body, type=PredictRequest)
    except (msgspec.DecodeError, UnicodeDecodeError) as error:
        raise _WrongRequestError(f'{error}; expected {{"texts": ["…", "…"]}}') from None
    if not wanted.texts:
        raise _WrongRequestError("texts is empty; expected one text at least")
    at_most = min(limits.max_texts, limits.max_waiting)
    if len(wanted.texts) > at_most:
        raise _WrongRequestError(f"{len(wanted.texts)} texts; expected {at_most} at most, send several requests")
    return wanted


def _answering(metrics: Metrics, limits: ServingLimits) -> Any:
    """Counts, times, and turns every error into a JSON answer."""

    @web.middleware
    async def middleware(request: web.Request, handler: Callable[[web.Request], Awaitable[web.StreamResponse]]) -> web.StreamResponse:
        began = time.perf_counter()
        try:
            response = await handler(request)
        except _WrongRequestError as error:
            response = _error(400, str(error))
        except web.HTTPRequestEntityTooLarge:
            response = _error(413, f"the body is larger than {limits.max_body_bytes} bytes; send several requests")
        except web.HTTPMethodNotAllowed as error:
            response = _error(405, f"{request.method} is not for {request.path}; expected {', '.join(sorted(error.allowed_methods))}")
        except web.HTTPNotFound:
            response = _error(404, "expected POST /predict, GET /health or GET /metrics")
        except Exception:
            log.exception("a request failed")
            response = _error(500, "the student failed; the server's log says why")
        if request.path == "/predict":
            metrics.requests.labels(str(response.status)).inc()
            metrics.latency.observe(time.perf_counter() - began)
        return response

    return middleware


def _spans(guess: GuessedSpans) -> dict[str, Any]:
    return {"spans": [span._asdict() for span in guess.spans], "confidence": guess.confidence}


def _json(value: Any) -> web.Response:
    return web.Response(body=msgspec.json.encode(value), content_type="application/json")


def _error(status: int, reason: str, headers: dict[str, str] | None = None) -> web.Response:
    return web.Response(status=status, body=msgspec.json.encode({"error": reason}), content_type="application/json", headers=headers)
