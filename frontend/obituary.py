"""How gunicorn's parent tells the scheduler of front ends that have ended.

The socket is opened once, before the first fork: on a machine that has no room for another thread,
opening one would abort the parent, and with it all front ends. Forked workers inherit its files and
leave them alone.
"""

import logging

import zmq

from common.messages import FrontendGone
from common.sockets import encode, open_socket, requests_endpoint

LAST_WORDS_MS = 500
MOST_UNSENT = 100
"""Words that wait while there is no scheduler."""

_log = logging.getLogger("frontend")


class Obituary:
    """A line to the scheduler; what is said while there is none is heard by the next."""

    def __init__(self, runtime_dir: str) -> None:
        self._context = zmq.Context()
        self._requests = open_socket(self._context, zmq.DEALER)
        self._requests.setsockopt(zmq.SNDHWM, MOST_UNSENT)
        self._requests.connect(requests_endpoint(runtime_dir))

    def tell(self, gone: FrontendGone) -> None:
        """Say it; never blocks."""
        try:
            self._requests.send(encode(gone), zmq.NOBLOCK)
        except zmq.ZMQError as error:
            _log.warning("the scheduler could not be told of a lost front end: %s", error)

    def close(self) -> None:
        """Let last words out."""
        self._requests.close(linger=LAST_WORDS_MS)
        self._context.term()
