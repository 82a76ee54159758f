"""How every generating route runs an order: whole or as a stream, watched, counted, logged."""

import logging
from collections.abc import Callable
from contextlib import suppress
from socket import SHUT_RDWR
from typing import Protocol

import falcon
import orjson

from common.errors import RequestError
from frontend import access, exchange, limits
from frontend.answers import EVENT_STREAM, JSON
from frontend.exchange import Exchange
from frontend.express import Express, connection_of
from frontend.generation import ClientGoneError, Generation
from frontend.mailbox import Brim
from frontend.resume import keeping
from frontend.resume.kept import Keeping
from frontend.resume.numbered import Numbered
from frontend.runs import Order, Run
from frontend.services import Services
from frontend.sse import Dialect, EventStream

TOKEN_BYTES = 250
"""Of a token, or a candidate, that waits to be written; roughly."""

_log = logging.getLogger(__name__)


def begin(req: falcon.Request, services: Services) -> None:
    """Mark a request as one that generates text, so that its failure is counted.

    Finds the stream that it may want back. Raises RequestError.
    """
    exchange.of(req).generates = True
    keeping.begin(req, services)


def count_call(req: falcon.Request, services: Services) -> None:
    """TGI counts an OpenAI call once, and each of its sequences once more."""
    record = exchange.of(req)
    record.counted = True
    if record.kept_body is None:
        services.link.tally(requests=1)


def count_failure(services: Services, record: Exchange, error: RequestError) -> None:
    """Count a generating request that failed, and remember why."""
    count_failed(services, record, error.kind.metric)
    exchange.failed(record, error)


def count_failed(services: Services, record: Exchange, metric: str) -> None:
    """Count a generating request under this ``err``; once, whatever else happens to it."""
    if record.error is None and record.generates:
        services.link.tally(requests=0 if record.counted else 1, failure=metric)
        record.counted = True


class Prepared(Protocol):
    """A validated request of any surface that answers one document or one stream."""

    @property
    def order(self) -> Order:
        """What to generate."""

    @property
    def input_length(self) -> int:
        """Prompt tokens."""

    @property
    def characters(self) -> int:
        """Of the prompts."""


def respond_whole(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    prepared: Prepared,
    document: Callable[[list[Run]], object],
    *,
    compute_time: bool = True,
) -> None:
    """Run a request to its end and answer with the document of its runs, headers included.

    Raises RequestError, ClientGoneError.
    """
    runs, generation = run_whole(req, services, prepared.order)
    compute_headers(resp, services, prepared.characters)
    if compute_time:
        resp.set_header("X-Compute-Time", str(generation.timings[0].total_s))
    timing_headers(resp, generation, runs, prepared.input_length)
    resp.data = orjson.dumps(document(runs))
    resp.content_type = JSON


def respond_stream(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    prepared: Prepared,
    dialect: Dialect,
) -> None:
    """Start a request and answer with its stream, headers included. Raises as ``run_stream``."""
    run_stream(req, resp, services, prepared.order, dialect)
    compute_headers(resp, services, prepared.characters)


def refuse_stream(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    error: RequestError,
    events: bytes,
) -> None:
    """Answer a stream that cannot begin with ``events`` and status 200, as TGI does."""
    record = exchange.of(req)
    count_failure(services, record, error)
    record.status = 200
    stream_headers(resp)
    resp.data = events


def run_whole(
    req: falcon.Request, services: Services, order: Order
) -> tuple[list[Run], Generation]:
    """Run an order to its end while watching the client. Raises RequestError, ClientGoneError."""
    generation, watch = _watched(req, services, order)
    try:
        _start(req, services, generation)
        return generation.finish(), generation
    finally:
        services.watcher.remove(watch)
        generation.close()
        _note(req, services, generation)


def run_stream(
    req: falcon.Request,
    resp: falcon.Response,
    services: Services,
    order: Order,
    dialect: Dialect,
) -> None:
    """Start an order and answer with its stream. Raises RequestError, ClientGoneError.

    The client is watched until the stream is closed.
    """
    keeps = keeping.keeping_of(req, services, len(order.plans))
    if keeps is not None:
        dialect = Numbered(dialect, keeps.ticket, keeps.seen)
    generation, watch = _watched(req, services, order, keeps, streams=True)
    try:
        _start(req, services, generation)
    except BaseException:
        services.watcher.remove(watch)
        raise

    def closed(why: RequestError | ClientGoneError | None) -> None:
        services.watcher.remove(watch)
        record = exchange.of(req)
        _note(req, services, generation)
        if isinstance(why, RequestError):
            count_failure(services, record, why)
        elif why is not None:
            record.error = "dropped"
        record.status = 200
        access.over(req, services)

    exchange.of(req).streams = True
    connection = connection_of(req.env)
    express = None if connection is None else Express(connection, services.outbox)
    resp.stream = EventStream(generation, dialect, closed, express=express)
    stream_headers(resp)


def _watched(
    req: falcon.Request,
    services: Services,
    order: Order,
    keeps: Keeping | None = None,
    *,
    streams: bool = False,
) -> tuple[Generation, int]:
    """A generation that learns when its client leaves, and the number of that watch."""
    record = exchange.of(req)
    socket = req.env.get("gunicorn.socket")

    def spill() -> None:
        """The client does not read: the greenlet that writes to it is stuck in the middle."""
        _log.warning("a client is too far behind: its stream is ended")
        generation.client_gone()
        if socket is not None:
            with suppress(OSError):
                socket.shutdown(SHUT_RDWR)

    generation = Generation(
        order,
        services.link,
        services.tokenizer,
        services.clock,
        record.began,
        keeps,
        Brim(_most_waiting(order, services), spill) if streams else None,
        record.origin,
    )
    if socket is None:
        return generation, -1
    return generation, services.watcher.add(socket, generation.client_gone)


def _most_waiting(order: Order, services: Services) -> int:
    """Tokens that may wait for the client of a stream, by the memory that they take."""
    tops = max(plan.sampling.top_n_tokens for plan in order.plans)
    return services.settings.client_buffer // (TOKEN_BYTES * (1 + tops))


def _start(req: falcon.Request, services: Services, generation: Generation) -> None:
    limits.check_sequences(len(generation.runs), services.settings)
    record = exchange.of(req)
    record.counted = True
    if record.kept_body is None:
        services.link.tally(requests=len(generation.runs))
    generation.start()


def _note(req: falcon.Request, services: Services, generation: Generation) -> None:
    """For the access log and the spans; a request may be several generations."""
    record = exchange.of(req)
    record.prompt_tokens += sum(len(run.plan.prompt_ids) for run in generation.runs)
    record.generated_tokens += sum(run.generated_tokens for run in generation.runs)
    waits = [timings.queue_s for timings in generation.timings.values()]
    if waits:
        record.queue_s = max(waits) if record.queue_s is None else max(record.queue_s, *waits)
    record.submitted_at = generation.submitted_at
    record.sending_at = generation.first_at
    if record.sending_at is None and record.generated_tokens:
        record.sending_at = services.clock()  # it ends with what it begins with


def stream_headers(resp: falcon.Response) -> None:
    """The headers of every event stream."""
    resp.content_type = EVENT_STREAM
    resp.set_header("Cache-Control", "no-cache")
    resp.set_header("X-Accel-Buffering", "no")


def compute_headers(resp: falcon.Response, services: Services, characters: int) -> None:
    """The headers of every generating answer, streamed or not."""
    resp.set_header("X-Compute-Type", services.settings.compute_type)
    resp.set_header("X-Compute-Characters", str(characters))


def timing_headers(
    resp: falcon.Response, generation: Generation, runs: list[Run], prompt_tokens: int
) -> None:
    """Whole milliseconds, summed over ``runs``, and token counts."""
    timings = [generation.timings[run.index] for run in runs]
    generated = sum(run.generated_tokens for run in runs)
    inference_s = sum(t.inference_s for t in timings)
    per_token_s = sum(
        t.inference_s / run.generated_tokens
        for t, run in zip(timings, runs, strict=True)
        if run.generated_tokens
    )
    for name, seconds in (
        ("X-Total-Time", sum(t.total_s for t in timings)),
        ("X-Validation-Time", sum(t.validation_s for t in timings)),
        ("X-Queue-Time", sum(t.queue_s for t in timings)),
        ("X-Inference-Time", inference_s),
        ("X-Time-Per-Token", per_token_s),
    ):
        resp.set_header(name, str(int(seconds * 1000)))
    resp.set_header("X-Prompt-Tokens", str(prompt_tokens))
    resp.set_header("X-Generated-Tokens", str(generated))
