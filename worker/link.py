"""The sockets of the worker: a DEALER to the scheduler, an XPUB to the front ends.

Runs in the worker's main thread. Owns which front ends have subscribed. Frames that are not what
the protocol allows are counted and dropped; nothing here blocks but ``receive``, and that not
longer than asked. Knows nothing of what the messages mean.
"""

import logging
import math
from collections.abc import Iterable
from typing import Any

import zmq

from common.messages import FromWorker, Tokens, ToWorker, topic_of
from common.sockets import (
    TO_WORKER,
    BadFrameError,
    dispatch_endpoint,
    encode,
    open_socket,
    tokens_endpoint,
    worker_identity,
)

_TOPIC_BYTES = len(topic_of(0))

_log = logging.getLogger(__name__)


class SocketLink:
    """Both sockets of one worker; binds and connects when made."""

    def __init__(
        self,
        context: Any,
        runtime_dir: str,
        *,
        replica: int,
        incarnation: int,
        wakeup_fds: Iterable[int] = (),
    ) -> None:
        """One of ``wakeup_fds`` that is readable ends a wait: a signal, work of another thread."""
        self.bad_frames = 0
        self.unsent = 0
        self._subscriptions: dict[bytes, int] = {}
        self._tokens = open_socket(context, zmq.XPUB)
        self._tokens.bind(tokens_endpoint(runtime_dir, replica))
        identity = worker_identity(replica, incarnation)
        self._scheduler = open_socket(context, zmq.DEALER, identity=identity)
        self._scheduler.connect(dispatch_endpoint(runtime_dir))
        self._poller = zmq.Poller()
        self._poller.register(self._scheduler, zmq.POLLIN)
        self._poller.register(self._tokens, zmq.POLLIN)
        for descriptor in wakeup_fds:
            self._poller.register(descriptor, zmq.POLLIN)

    def receive(self, timeout_s: float) -> list[ToWorker]:
        """Messages of the scheduler in order; waits so long for the first sign of anybody."""
        if timeout_s > 0:
            self._poller.poll(math.ceil(timeout_s * 1000))
        self._read_subscriptions()
        messages: list[ToWorker] = []
        while (frames := _next(self._scheduler)) is not None:
            try:
                if len(frames) != 1:
                    raise BadFrameError(f"{len(frames)} frames instead of one")
                messages.append(TO_WORKER.decode(frames[0]))
            except BadFrameError as error:
                self._drop(f"from the scheduler: {error}")
        return messages

    def subscribed(self, frontend: int) -> bool:
        """Whether this front end's subscription has been seen, and not its end."""
        return topic_of(frontend) in self._subscriptions

    def publish(self, frontend: int, tokens: Tokens) -> None:
        """Lossy by design: a front end that reads too slowly sees a gap, and asks."""
        self._send(self._tokens, [topic_of(frontend), encode(tokens)])

    def report(self, message: FromWorker) -> None:
        """Queued while there is no scheduler."""
        self._send(self._scheduler, [encode(message)])

    def close(self) -> None:
        """Both sockets; what has been sent leaves within ``linger``."""
        self._scheduler.close(linger=200)
        self._tokens.close(linger=200)

    def _send(self, socket: Any, frames: list[bytes]) -> None:
        try:
            socket.send_multipart(frames, zmq.NOBLOCK)
        except zmq.Again:  # a hundred thousand messages wait already
            self.unsent += 1

    def _read_subscriptions(self) -> None:
        """XPUB repeats every subscription and every end of one, so they are counted."""
        while (frames := _next(self._tokens)) is not None:
            frame = frames[0]
            known = len(frames) == 1 and frame[:1] in (b"\x00", b"\x01")
            if not known or len(frame) != 1 + _TOPIC_BYTES:
                self._drop("neither a subscription nor the end of one")
                continue
            topic = frame[1:]
            count = self._subscriptions.get(topic, 0) + (1 if frame[:1] == b"\x01" else -1)
            if count > 0:
                self._subscriptions[topic] = count
            else:
                self._subscriptions.pop(topic, None)

    def _drop(self, why: str) -> None:
        self.bad_frames += 1
        _log.warning("dropped a frame, %s", why)


def _next(socket: Any) -> list[bytes] | None:
    """The next message's frames, or None if there is none yet.

    PERF: between any two steps. To ask costs 1.6 us, to be told by an exception 6.
    """
    if not socket.getsockopt(zmq.EVENTS) & zmq.POLLIN:
        return None
    frames: list[bytes] = socket.recv_multipart(zmq.NOBLOCK)
    return frames
