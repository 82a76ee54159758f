"""Waits until the model can answer; runs in gunicorn's parent, before it listens.

The port opens only then, as with TGI: before, connections are refused. Nothing stays behind that a
process forked later would inherit.
"""

import logging
import os
import random
import time

import zmq

from common.messages import PROTOCOL_VERSION, Alive, FrontendGone, Hello, Status
from common.sockets import (
    HEARTBEAT_S,
    TO_FRONTEND,
    BadFrameError,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
)

_log = logging.getLogger("frontend")


def wait_for_model(runtime_dir: str) -> None:
    """Return when the scheduler says that a replica is ready."""
    context = zmq.Context()
    number = random.getrandbits(31)
    requests = open_socket(context, zmq.DEALER, identity=frontend_identity(number))
    requests.connect(requests_endpoint(runtime_dir))
    requests.send(
        encode(Hello(version=PROTOCOL_VERSION, frontend=number, pid=os.getpid())), zmq.NOBLOCK
    )
    _log.info("waiting for the model")
    beat = time.monotonic() + HEARTBEAT_S
    while True:
        left_s = beat - time.monotonic()
        if left_s <= 0:
            # A scheduler that started after us, or anew, answers this with its Status.
            requests.send(encode(Alive(frontend=number)), zmq.NOBLOCK)
            beat = time.monotonic() + HEARTBEAT_S
        elif requests.poll(left_s * 1000) and _some_replica_ready(requests.recv_multipart()[-1]):
            break
    requests.send(encode(FrontendGone(pid=os.getpid())), zmq.NOBLOCK)
    requests.close(linger=500)
    context.term()


def _some_replica_ready(frame: bytes) -> bool:
    try:
        message = TO_FRONTEND.decode(frame)
    except BadFrameError:
        return False
    return isinstance(message, Status) and any(replica.ready for replica in message.replicas)
