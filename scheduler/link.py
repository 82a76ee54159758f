"""The sockets of the scheduler: who said what, and saying it to whom.

Owns the two ROUTER sockets and how long to wait on them; counts frames that do not decode. Knows
nothing of what the messages mean. Tests put a ``Link`` of their own in its place.
"""

import socket
from collections.abc import Callable, Iterable, Iterator
from typing import Any, Protocol, TypeVar

import msgspec
import zmq

from common.errors import StartupError
from common.messages import FromFrontend, FromWorker
from common.sockets import (
    FROM_FRONTEND,
    FROM_WORKER,
    BadFrameError,
    Codec,
    dispatch_endpoint,
    encode,
    open_socket,
    requests_endpoint,
)

CLOSE_LINGER_MS = 500
"""Last words get so long to leave at the end."""

M = TypeVar("M")


class Link(Protocol):
    """What the loop needs of the outside."""

    def wait(self, timeout_s: float) -> None:
        """Return when something has arrived, or after the timeout."""

    def from_workers(self, limit: int) -> Iterator[tuple[bytes, FromWorker]]:
        """At most ``limit`` messages that have arrived, each with its sender's routing id."""

    def from_frontends(self, limit: int) -> Iterator[tuple[bytes, FromFrontend]]:
        """At most ``limit`` messages that have arrived, each with its sender's routing id."""

    def to_worker(self, identity: bytes, message: msgspec.Struct) -> bool:
        """Send without blocking; False if there is no such peer or it does not read."""

    def to_frontend(self, identity: bytes, message: msgspec.Struct) -> bool:
        """Send without blocking; False if there is no such peer or it does not read."""


class ZmqLink:
    """The real sockets, bound in the runtime directory."""

    def __init__(
        self,
        runtime_dir: str,
        bad_frame: Callable[[str], None],
        wakeup_fds: Iterable[int] = (),
    ) -> None:
        """``bad_frame`` is told the name of a socket on which something undecodable came.

        One of ``wakeup_fds`` that is readable ends a wait. Raises StartupError if an endpoint
        cannot be bound.
        """
        self._bad_frame = bad_frame
        self._context = zmq.Context()
        self._requests = self._bind(requests_endpoint(runtime_dir))
        self._dispatch = self._bind(dispatch_endpoint(runtime_dir))
        self._waker, self._wakened = socket.socketpair()
        for end in (self._waker, self._wakened):
            end.setblocking(False)
        self._poller = zmq.Poller()
        for readable in (self._requests, self._dispatch, self._wakened, *wakeup_fds):
            self._poller.register(readable, zmq.POLLIN)

    @property
    def wake_descriptor(self) -> int:
        """A byte written here ends ``wait``: for ``signal.set_wakeup_fd``."""
        return self._waker.fileno()

    def wait(self, timeout_s: float) -> None:
        """See Link."""
        # Rounded up: waking a fraction of a millisecond early would turn waiting into polling.
        ready = self._poller.poll(int(max(timeout_s, 0.0) * 1000) + (timeout_s > 0))
        if (self._wakened.fileno(), zmq.POLLIN) in ready:
            self._wakened.recv(4096)

    def from_workers(self, limit: int) -> Iterator[tuple[bytes, FromWorker]]:
        """See Link."""
        return self._drain(self._dispatch, FROM_WORKER, "dispatch", limit)

    def from_frontends(self, limit: int) -> Iterator[tuple[bytes, FromFrontend]]:
        """See Link."""
        return self._drain(self._requests, FROM_FRONTEND, "requests", limit)

    def to_worker(self, identity: bytes, message: msgspec.Struct) -> bool:
        """See Link."""
        return _send(self._dispatch, identity, message)

    def to_frontend(self, identity: bytes, message: msgspec.Struct) -> bool:
        """See Link."""
        return _send(self._requests, identity, message)

    def close(self) -> None:
        """Let last words out and end."""
        for bound in (self._requests, self._dispatch):
            bound.close(linger=CLOSE_LINGER_MS)
        self._waker.close()
        self._wakened.close()
        self._context.term()

    def _bind(self, endpoint: str) -> Any:
        bound = open_socket(self._context, zmq.ROUTER)
        try:
            bound.bind(endpoint)
        except zmq.ZMQError as error:
            raise StartupError(f"the scheduler cannot listen on {endpoint}: {error}") from None
        return bound

    def _drain(
        self, source: Any, codec: Codec[M], name: str, limit: int
    ) -> Iterator[tuple[bytes, M]]:
        for _ in range(limit):
            # PERF: to ask costs 1.6 us, to be told by an exception that there is nothing 6.
            if not source.getsockopt(zmq.EVENTS) & zmq.POLLIN:
                return
            frames = source.recv_multipart(zmq.NOBLOCK)
            try:
                if len(frames) != 2:
                    raise BadFrameError(f"{len(frames)} frames")
                message = codec.decode(frames[1])
            except BadFrameError:
                self._bad_frame(name)
                continue
            yield frames[0], message


def _send(target: Any, identity: bytes, message: msgspec.Struct) -> bool:
    try:
        target.send_multipart((identity, encode(message)), zmq.NOBLOCK)
    except zmq.ZMQError as error:
        if error.errno in (zmq.EHOSTUNREACH, zmq.EAGAIN):
            return False
        raise
    return True
