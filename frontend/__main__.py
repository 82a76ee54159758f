"""``python -m frontend``: wait until the model can answer, then become gunicorn.

The port opens only then, as with TGI: before, connections are refused. Tokenizer, template and
address are tried first, so that a bad one is told at once and not after the model has loaded.
"""

import errno
import logging
import os
import random
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

import zmq

from common.errors import StartupError
from common.failure import EXIT_CONFIGURATION, record_failure
from common.logs import set_up
from common.messages import PROTOCOL_VERSION, Alive, FrontendGone, Hello, Status
from common.settings import Settings, environment, load
from common.sockets import (
    HEARTBEAT_S,
    TO_FRONTEND,
    BadFrameError,
    encode,
    frontend_identity,
    open_socket,
    requests_endpoint,
)
from frontend.wiring import load_text

PORT_PATIENCE_S = 5.0
"""So long a taken port is tried again …"""
PORT_RETRY_S = 0.2
"""… each time after so long."""
_FOREIGN_VARIABLES = ("SCRIPT_NAME", "WEB_CONCURRENCY")
"""What gunicorn would take from the environment behind the settings' back."""
_PACKAGES_ROOT = Path(__file__).resolve().parents[1]

_log = logging.getLogger("frontend")


def main() -> NoReturn:
    """Start the front end, or exit with ``EXIT_CONFIGURATION`` and a sentence."""
    settings: Settings | None = None
    try:
        settings = load()
        set_up("frontend", json_output=settings.json_output, level=settings.log_level)
        check_address(settings.hostname, settings.port)
        load_text(settings)
    except StartupError as error:
        record_failure(settings, "frontend", str(error))
        sys.exit(EXIT_CONFIGURATION)
    wait_for_model(settings.runtime_dir)
    become_gunicorn()


def become_gunicorn() -> NoReturn:
    """Replace this process; nothing of it, no socket and no model file, stays behind."""
    given = environment().items()
    environ = {name: text for name, text in given if name not in _FOREIGN_VARIABLES}
    paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
    environ["PYTHONPATH"] = os.pathsep.join([*paths, str(_PACKAGES_ROOT)])
    command = [sys.executable, "-P", "-m", "frontend.serve"]
    os.execve(sys.executable, command, environ)  # noqa: S606 - this very interpreter


def check_address(hostname: str, port: int, patience_s: float = PORT_PATIENCE_S) -> None:
    """Raises StartupError if nobody can listen there, also not a little later.

    RACE: after our predecessor was killed, its children hold the port until they notice.
    """
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    end = time.monotonic() + patience_s
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((hostname, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                    reason = error.strerror or str(error)
                    raise StartupError(
                        f"cannot listen on {hostname}:{port}: {reason}; "
                        "choose another --port or --hostname"
                    ) from None
        time.sleep(PORT_RETRY_S)


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


if __name__ == "__main__":
    main()
