"""Requests that nothing of an answer was sent to yet: at a stop they can still be failed.

Runs in every front-end process. Needed for those that wait for something else than tokens: the rest
of a body, a thread, the check of a grammar. Knows nothing of HTTP, nor of what they wait for.
"""

from functools import partial
from typing import Any

import gevent
from gevent import getcurrent

from common.errors import RequestError


class Unanswered:
    """The greenlets of these requests. A ``with`` block around what each does up to its answer."""

    def __init__(self) -> None:
        self._greenlets: set[Any] = set()

    def __enter__(self) -> None:
        self._greenlets.add(getcurrent())

    def __exit__(self, *error: object) -> None:
        self._greenlets.discard(getcurrent())

    def fail_all(self, error: RequestError) -> None:
        """Raise ``error`` in each of them, wherever it waits. Does not block."""
        loop = gevent.get_hub().loop
        for greenlet in self._greenlets:
            loop.run_callback(partial(self._fail, greenlet, error))

    def _fail(self, greenlet: Any, error: RequestError) -> None:
        # RACE: by now it may be writing its answer, which must not be torn.
        if greenlet in self._greenlets:
            greenlet.throw(error)
