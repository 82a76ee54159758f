"""Everything that nobody should send: on the sockets between the processes, and on the port."""

import random
import socket
import time
from pathlib import Path
from typing import Any

import msgspec
import zmq

from common.messages import (
    PROTOCOL_VERSION,
    Cancel,
    Delivered,
    Heartbeat,
    Hello,
    Keep,
    Missing,
    Resume,
    Retire,
    SequenceSpec,
    StepReport,
    Submit,
    Tokens,
)
from common.sampling import SamplingParameters
from common.sockets import MAX_FRAME_BYTES, encode, frontend_identity, worker_identity

STRANGER = 0x12345678
"""A front end that nobody knows."""
FRAMES, CONNECTIONS, REPEATS = 300, 60, 20


def frames(rng: random.Random) -> list[bytes]:
    """Random bytes, cut and damaged messages, and far too deep ones."""
    good = [encode(message) for message in messages()]
    found = [rng.randbytes(rng.randrange(200)) for _ in range(FRAMES)]
    for frame in good:
        found += [frame[:-1], frame + b"\0", bytes([frame[0]]) + rng.randbytes(len(frame))]
    found += [b"", b"\x91" * 100_000, b"\xdd\xff\xff\xff\xff", b"\xc6\xff\xff\xff\xff"]
    return found


def messages() -> list[msgspec.Struct]:
    """Good ones, of somebody who has no business here."""
    sequence = STRANGER << 32 | 1
    spec = SequenceSpec(sequence, [1, 2, 3], 5, SamplingParameters())
    return [
        Hello(PROTOCOL_VERSION, STRANGER, 1),
        Submit(spec, keep=Keep("0" * 32, "", 0, 1)),
        Submit(msgspec.structs.replace(spec, id=1 << 32 | 7)),
        Cancel(1 << 32 | 1, "client_gone"),
        Missing(sequence, -5),
        Delivered(sequence, success=True, total_s=float("nan")),
        Resume(7, "0" * 32, ""),
        Retire(7, -1),
        Heartbeat(1, 2, 3),
        StepReport(1, 2, 3, 4, released=[sequence]),
        Tokens(1, 2, []),
    ]


def disturb_sockets(directory: Path, replicas: int, rng: random.Random) -> None:
    """Garbage and replayed messages on every ZeroMQ socket, under several identities."""
    context = zmq.Context()
    identities: list[bytes | None] = [
        None, frontend_identity(STRANGER), worker_identity(0, 0, 77), b"\xff" * 200,
    ]  # fmt: skip
    for name in ("requests", "dispatch"):
        for identity in identities:
            _send(context, zmq.DEALER, f"ipc://{directory}/{name}", identity, rng)
    for replica in range(replicas):
        _send(context, zmq.XSUB, f"ipc://{directory}/tokens-{replica}", None, rng)
    context.term()


def _send(context: Any, kind: int, endpoint: str, identity: bytes | None, rng: Any) -> None:
    peer = context.socket(kind)
    peer.linger = 2000
    if identity is not None:
        peer.setsockopt(zmq.ROUTING_ID, identity)
    peer.connect(endpoint)
    good = [encode(message) for message in messages()]
    for frame in [*frames(rng), *good * REPEATS]:
        peer.send(frame)
    peer.send_multipart([b"too", b"many", b"frames"])
    peer.close()
    _too_large(context, kind, endpoint)


def _too_large(context: Any, kind: int, endpoint: str) -> None:
    peer = context.socket(kind)
    peer.linger = 0
    peer.connect(endpoint)
    peer.send(bytes(MAX_FRAME_BYTES + 1))
    time.sleep(0.3)
    peer.close()


def disturb_streams(directory: Path, port: int, rng: random.Random) -> None:
    """Bytes that are neither ZeroMQ nor HTTP, and what only begins to be one of them."""
    half = b"POST /generate_stream HTTP/1.1\r\nHost: x\r\nContent-Length: 100\r\n\r\n{"
    greeting = b"\xff" + bytes(8) + b"\x7f\x03\x00NULL"
    paths = [path for path in directory.iterdir() if path.is_socket()]
    assert len(paths) >= 4, paths
    kept: list[socket.socket] = []
    for number in range(CONNECTIONS):
        data = rng.choice([rng.randbytes(300), half, greeting, b"", b"GET / HTTP/1.1\r\n"])
        for path in paths:
            kept.append(_say(socket.AF_UNIX, str(path), data))
        kept.append(_say(socket.AF_INET, ("127.0.0.1", port), data))
        if number % 3 == 0:
            kept.pop().close()
    for client in kept:
        client.close()


def _say(family: int, address: Any, data: bytes) -> socket.socket:
    client = socket.socket(family)
    client.connect(address)
    try:
        client.sendall(data)
    except (BrokenPipeError, ConnectionResetError):
        return client
    return client
