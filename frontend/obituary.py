"""How gunicorn's parent tells the scheduler of a front end that has ended.

The socket lives for this one message, so that no worker that is forked later inherits it.
"""

import logging
import signal

import zmq

from common.messages import FrontendGone
from common.sockets import encode, open_socket, requests_endpoint

LINGER_MS = 500
"""So long the word may take to leave; longer only if the scheduler is not there."""

_log = logging.getLogger("frontend")


def tell(runtime_dir: str, gone: FrontendGone) -> None:
    """Say it, if there is anybody to hear it.

    RACE: another child's death, say, would interrupt the context's end, and its files and threads
    would stay for ever: signals wait until it is over.
    """
    before = signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())
    try:
        _tell(runtime_dir, gone)
    except zmq.ZMQError as error:
        _log.warning("the scheduler could not be told of a lost front end: %s", error)
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _tell(runtime_dir: str, gone: FrontendGone) -> None:
    context = zmq.Context()
    requests = open_socket(context, zmq.DEALER)
    try:
        requests.connect(requests_endpoint(runtime_dir))
        requests.send(encode(gone), zmq.NOBLOCK)
    finally:
        requests.close(linger=LINGER_MS)
        context.term()
