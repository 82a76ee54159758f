"""gunicorn's settings for the front end, and what its parent process does for us.

Imported by ``serve.py`` in the parent; workers inherit it. Slow clients: idle connections end after
``keepalive`` seconds, those without any request after ``server.FIRST_S``; request line and headers
have to arrive within ``head_wait.HEAD_LIMIT_S`` and the size limits below; bodies are limited in
``body.py``, stalled reads and writes in ``middleware/tracking.py``.
A slow client costs one waiting greenlet and nobody else anything.
"""

import logging
import resource
import signal
import socket
from typing import Any

from common.logs import set_up
from common.messages import FrontendGone
from common.settings import load
from frontend.obituary import Obituary
from frontend.parent import HELD_WHILE_FORKING
from frontend.wiring import LAST_WORDS_S

MAX_CONNECTIONS = 50_000
"""Open connections of one front end, if the limit on open files allows."""
PROBES = {socket.TCP_KEEPIDLE: 30, socket.TCP_KEEPINTVL: 10, socket.TCP_KEEPCNT: 3}
"""Seconds, seconds and count: a peer that is gone without a word is noticed after a minute."""
SPARE_FILES = 200
"""Descriptors kept for everything else."""

_settings = load()
set_up("frontend", json_output=_settings.json_output, level=_settings.log_level)
_log = logging.getLogger("frontend")
_hard = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
if _hard == resource.RLIM_INFINITY:
    _hard = MAX_CONNECTIONS + SPARE_FILES
resource.setrlimit(resource.RLIMIT_NOFILE, (_hard, resource.getrlimit(resource.RLIMIT_NOFILE)[1]))

worker_class = "frontend.server.FrontendWorker"
logger_class = "frontend.server.Logger"
bind = [
    f"[{_settings.hostname}]:{_settings.port}"
    if ":" in _settings.hostname
    else f"{_settings.hostname}:{_settings.port}"
]
workers = _settings.num_frontends
worker_connections = max(64, min(MAX_CONNECTIONS, _hard - SPARE_FILES))
worker_tmp_dir = _settings.runtime_dir
backlog = 2048
# A balancer that keeps its connections for longer than we do sends requests into those that we are
# closing, and answers 502. Google's keep them for 600 s, which nobody can change; most do for less.
keepalive = 620
timeout = 120
graceful_timeout = _settings.graceful_termination_timeout + LAST_WORDS_S
limit_request_line = 8190
limit_request_fields = 100
limit_request_field_size = 16_380
control_socket_disable = True
# No header of a client, from wherever it comes, may change the path or the scheme.
forwarded_allow_ips = ""
forwarder_headers = ""
secure_scheme_headers: dict[str, str] = {}
preload_app = False
proc_name = "millrace-frontend"


def when_ready(server: Any) -> None:
    """The port is open, nothing is forked yet. Connections inherit their listener's options."""
    server.obituary = Obituary(_settings.runtime_dir)
    for listener in server.LISTENERS:
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # The kernel doubles this for its own needs; left alone it would let it grow to 4 MB each.
        listener.sock.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, _settings.client_buffer // 2)
        for option, value in PROBES.items():
            listener.sock.setsockopt(socket.IPPROTO_TCP, option, value)
    for address in bind:
        _log.info("listening on http://%s", address)


def post_fork(server: Any, worker: Any) -> None:
    """In a new worker, until it has handlers of its own: a SIGTERM ends it."""
    signal.signal(signal.SIGTERM, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_UNBLOCK, HELD_WHILE_FORKING)


def child_exit(server: Any, worker: Any) -> None:
    """Tell the scheduler that a front end is gone; its requests are cancelled at once.

    It gets a successor unless the parent ends, which has closed its listeners first.
    """
    server.obituary.tell(FrontendGone(pid=worker.pid, is_replaced=bool(server.LISTENERS)))


def on_exit(server: Any) -> None:
    """In the parent, at its end."""
    server.obituary.close()


def worker_exit(server: Any, worker: Any) -> None:
    """In the worker: close its sockets, if it got so far as to open them."""
    front_end = getattr(worker, "wsgi", None)
    if front_end is not None:
        front_end.close()
