"""Endpoints, socket options, and typed send and receive for every process.

Owns how bytes meet messages: one msgpack frame per message, a size cap, and the rule that a frame
which does not decode is counted and dropped while its sender lives on. Knows nothing of what the
messages mean.
"""

import logging
import os
import stat
from pathlib import Path
from typing import Any, Generic, TypeVar

import msgspec
import zmq

from common.messages import (
    FromFrontend,
    FromWorker,
    Join,
    ToFollower,
    ToFrontend,
    Tokens,
    ToOperator,
    ToWorker,
)
from common.spans import Spans

MOST_SPANS = 2000
"""Messages with spans that wait for a tracer which does not take them; further ones are lost."""
MAX_FRAME_BYTES = 64 * 1024 * 1024
"""A larger frame ends the connection of the peer that sent it (ZMQ_MAXMSGSIZE)."""
HEARTBEAT_S = 1.0
"""How often front ends, workers and the scheduler say that they live."""

M = TypeVar("M")
_log = logging.getLogger(__name__)
_ENCODER = msgspec.msgpack.Encoder()


class BadFrameError(Exception):
    """A frame that is not one of the messages expected on this socket."""


class Codec(Generic[M]):
    """Encodes any message; decodes the messages of one direction."""

    def __init__(self, messages: Any) -> None:
        self._decoder: msgspec.msgpack.Decoder[M] = msgspec.msgpack.Decoder(messages)

    def decode(self, frame: bytes) -> M:
        """The message in ``frame``. Raises BadFrameError on anything else."""
        try:
            return self._decoder.decode(frame)
        except (ValueError, RecursionError) as error:  # bad UTF-8 is no DecodeError
            raise BadFrameError(str(error)) from None


FROM_FRONTEND: Codec[FromFrontend] = Codec(FromFrontend)
TO_FRONTEND: Codec[ToFrontend] = Codec(ToFrontend)
TO_OPERATOR: Codec[ToOperator] = Codec(ToOperator)
FROM_WORKER: Codec[FromWorker] = Codec(FromWorker)
TO_WORKER: Codec[ToWorker] = Codec(ToWorker)
TOKENS: Codec[Tokens] = Codec(Tokens)
FROM_FOLLOWER: Codec[Join] = Codec(Join)
TO_FOLLOWER: Codec[ToFollower] = Codec(ToFollower)
SPANS: Codec[Spans] = Codec(Spans)


def encode(message: msgspec.Struct) -> bytes:
    """One message as one frame."""
    return _ENCODER.encode(message)


def requests_endpoint(runtime_dir: str) -> str:
    """Scheduler ROUTER (bind) to front ends' DEALER."""
    return f"ipc://{runtime_dir}/requests"


def dispatch_endpoint(runtime_dir: str) -> str:
    """Scheduler ROUTER (bind) to workers' DEALER."""
    return f"ipc://{runtime_dir}/dispatch"


def tokens_endpoint(runtime_dir: str, replica: int) -> str:
    """Worker XPUB of a replica (bind) to front ends' SUB."""
    return f"ipc://{runtime_dir}/tokens-{replica}"


def shards_endpoint(runtime_dir: str, replica: int) -> str:
    """ROUTER of a replica's leader (bind) to its followers' DEALER."""
    return f"ipc://{runtime_dir}/shards-{replica}"


def traces_endpoint(runtime_dir: str) -> str:
    """Tracer PULL (bind) to front ends' and the scheduler's PUSH."""
    return f"ipc://{runtime_dir}/traces"


def frontend_identity(frontend: int) -> bytes:
    """Routing id of a front end on the requests socket."""
    return b"F%08x" % frontend


def worker_identity(replica: int, incarnation: int) -> bytes:
    """Routing id of a worker on the dispatch socket: new for every process."""
    return b"W%d.%016x" % (replica, incarnation)


def follower_identity(shard: int, pid: int) -> bytes:
    """Routing id of a follower on its leader's socket."""
    return b"S%d.%d" % (shard, pid)


_LONGEST_SOCKET = "supervisor.sock.4194304"
"""supervisord's, as it is called until it listens: with the largest process id."""


def check_runtime_dir(path: str) -> None:
    """Refuse a runtime directory that somebody else could enter.

    Raises PermissionError unless ``path`` is a directory of ours with mode 0700, and ValueError if
    a socket's path inside it would be longer than a UNIX socket address (107 bytes).
    """
    info = os.lstat(path)
    if not stat.S_ISDIR(info.st_mode) or info.st_uid != os.geteuid() or info.st_mode & 0o077:
        raise PermissionError(f"{path} must be a directory of this user with mode 0700")
    if len(str(Path(path) / _LONGEST_SOCKET).encode()) > 107:
        raise ValueError(f"{path} is too long a path for UNIX sockets")


class SpanSender:
    """Hands spans to the tracer; never blocks. What the tracer does not take is lost.

    Of a ``zmq.Context`` or ``zmq.green.Context``; belongs to one thread.
    """

    def __init__(self, context: Any, runtime_dir: str) -> None:
        self._is_losing = False
        self._socket = open_socket(context, zmq.PUSH)
        self._socket.setsockopt(zmq.SNDHWM, MOST_SPANS)
        self._socket.connect(traces_endpoint(runtime_dir))

    def __call__(self, spans: Spans) -> None:
        """Send, or lose them; says so when it begins to lose."""
        try:
            self._socket.send(encode(spans), zmq.NOBLOCK)
            self._is_losing = False
        except zmq.Again:
            if not self._is_losing:
                self._is_losing = True
                _log.warning("the tracer takes no spans: they are lost until it does")

    def close(self) -> None:
        """Let the last spans out."""
        self._socket.close(linger=200)


def open_socket(context: Any, kind: int, *, identity: bytes | None = None) -> Any:
    """A socket of ``context`` with our options set.

    ROUTER sockets raise ``zmq.ZMQError`` (EHOSTUNREACH) for unknown peers instead of dropping;
    XPUB sockets report every subscription. No socket blocks at close.
    """
    socket = context.socket(kind)
    socket.linger = 0
    socket.setsockopt(zmq.MAXMSGSIZE, MAX_FRAME_BYTES)
    socket.setsockopt(zmq.SNDHWM, 100_000)
    socket.setsockopt(zmq.RCVHWM, 100_000)
    socket.setsockopt(zmq.RECONNECT_IVL, 20)
    socket.setsockopt(zmq.RECONNECT_IVL_MAX, 500)
    if identity is not None:
        socket.setsockopt(zmq.ROUTING_ID, identity)
    if kind == zmq.ROUTER:
        socket.setsockopt(zmq.ROUTER_MANDATORY, 1)
    if kind == zmq.XPUB:
        socket.setsockopt(zmq.XPUB_VERBOSER, 1)
    return socket
