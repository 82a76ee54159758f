"""The sockets of a front-end process: moves frames between ZeroMQ and the link.

One greenlet receives on each socket, one beats once a second. Runs in every front-end process.
Knows nothing of what the messages mean, except that a Status names replicas to listen to.
"""

import logging
import os
import random
import time
from collections.abc import Callable

import gevent
import msgspec
import zmq

from common.errors import ErrorKind, RequestError
from common.messages import Status, Submit, topic_of
from common.settings import Settings
from common.sockets import (
    HEARTBEAT_S,
    TO_FRONTEND,
    TOKENS,
    BadFrameError,
    SpanSender,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
    tokens_endpoint,
)
from frontend.express import Outbox
from frontend.inbox import Inbox
from frontend.link import Link
from frontend.tracing import RequestTracer

MESSAGES_PER_TURN = 32
"""After so many messages without waiting, the other greenlets get a turn."""

_log = logging.getLogger(__name__)


class Wires:
    """Opens the sockets, and runs the link on them until ``close``."""

    def __init__(self, runtime_dir: str, replicas: int, queue_timeout_s: float = 0.0) -> None:
        """Connects to the scheduler and to ``replicas`` workers' token sockets."""
        number = random.getrandbits(31)
        self._runtime_dir = runtime_dir
        self.outbox = Outbox()
        """What is to be sent to clients before this process waits for more."""
        self._context = zmq.Context()
        self._requests = open_socket(self._context, zmq.DEALER, identity=frontend_identity(number))
        self._requests.connect(requests_endpoint(runtime_dir))
        self._answers = Inbox(self._requests, self.outbox.flush)
        self._tokens = open_socket(self._context, zmq.SUB)
        self._tokens.subscribe(topic_of(number))
        self._news = Inbox(self._tokens, self.outbox.flush)
        self._replicas: set[int] = set()
        for replica in range(replicas):
            self._listen_to(replica)
        self._spans: SpanSender | None = None
        self._bad_frames = 0
        self._greenlets: list[gevent.Greenlet] = []
        self.link = Link(number, os.getpid(), self._send, time.monotonic, queue_timeout_s)

    def tracer_of(self, settings: Settings) -> RequestTracer | None:
        """Who sends the spans of this process; None while no traces are wanted."""
        if settings.otlp_endpoint is None:
            return None
        self._spans = SpanSender(self._context, self._runtime_dir)
        return RequestTracer(self._spans, settings.model_id, time.time_ns)

    def start(self) -> None:
        """Say Hello and begin to receive."""
        self.link.begin()
        for loop in (self._receive_requests, self._receive_tokens, self._beat):
            self._greenlets.append(gevent.spawn(loop))

    def close(self) -> None:
        """Send what is counted, wait briefly until it is out, and end."""
        gevent.killall(self._greenlets)
        self._answers.close()
        self._news.close()
        self.link.flush()
        self._requests.close(linger=200)
        if self._spans is not None:
            self._spans.close()
        self._tokens.close(linger=0)
        self._context.term()

    def _listen_to(self, replica: int) -> None:
        if replica not in self._replicas:
            self._replicas.add(replica)
            self._tokens.connect(tokens_endpoint(self._runtime_dir, replica))
            self._news.look()

    def _send(self, message: msgspec.Struct) -> None:
        """Never blocks. Only a Submit that finds the socket full is an error."""
        try:
            self._requests.send(encode(message), zmq.NOBLOCK)
        except zmq.Again:
            _log.error("the socket to the scheduler is full: a %s is lost", type(message).__name__)
            if isinstance(message, Submit):
                raise RequestError(
                    ErrorKind.UNAVAILABLE, "The scheduler is not answering", retry_after_s=1.0
                ) from None
        finally:
            self._answers.look()

    def _receive_requests(self) -> None:
        def handle(frames: list[bytes]) -> None:
            message = TO_FRONTEND.decode(frames[-1])
            if isinstance(message, Status):
                for status in message.replicas:
                    self._listen_to(status.replica)
            self.link.receive(message)

        self._receive(self._answers, handle)

    def _receive_tokens(self) -> None:
        def handle(frames: list[bytes]) -> None:
            self.link.tokens(TOKENS.decode(frames[-1]))

        self._receive(self._news, handle)

    def _receive(self, inbox: Inbox, handle: Callable[[list[bytes]], None]) -> None:
        turn = 0
        while True:
            frames = inbox.receive()
            try:
                handle(frames)
            except BadFrameError as error:
                self._bad_frames += 1
                if self._bad_frames == 1:
                    _log.error("a frame does not decode: %s", error)
            except Exception as error:
                # One bad message must not end the greenlet that everybody lives from.
                _log.error("a message could not be handled", exc_info=error)
            turn += 1
            if turn >= MESSAGES_PER_TURN:
                turn = 0
                self.outbox.flush()
                gevent.sleep(0)

    def _beat(self) -> None:
        due = time.monotonic()
        while True:
            try:
                self.link.beat()
            except Exception as error:
                _log.error("the heartbeat failed", exc_info=error)
            due = max(due + HEARTBEAT_S, time.monotonic())
            gevent.sleep(max(0.0, due - time.monotonic()))
