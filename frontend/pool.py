"""Threads for work that would hold up every stream of the process: large prompts and templates.

Runs in every front-end process. Knows nothing of what it runs.
"""

from collections.abc import Callable
from typing import TypeVar

from gevent.threadpool import ThreadPool

from common.errors import ErrorKind, RequestError

INLINE_CHARACTERS = 4096
"""Texts up to this length are handled on the spot.

PERF: 4,096 characters are about 2 ms of tokenization; a thread and back costs about 0.1 ms. The
tokenizer lets go of the interpreter lock, so streams go on meanwhile."""
T = TypeVar("T")


class Offload:
    """Runs small pieces of work at once and large ones on ``workers`` threads."""

    def __init__(self, workers: int, most_waiting: int) -> None:
        """``most_waiting``: large pieces that may be under way or wait for a thread."""
        self._pool = ThreadPool(max(1, workers))
        self._most_waiting = most_waiting
        self._under_way = 0

    def run(self, characters: int, work: Callable[[], T]) -> T:
        """The result of ``work``; while a large piece runs, other greenlets go on.

        Raises RequestError (OVERLOADED) if too many wait already.
        """
        if characters <= INLINE_CHARACTERS:
            return work()
        if self._under_way >= self._most_waiting:
            raise RequestError(ErrorKind.OVERLOADED, "Model is overloaded", retry_after_s=1.0)
        self._under_way += 1
        try:
            result: T = self._pool.apply(work)
        finally:
            self._under_way -= 1
        return result

    def close(self) -> None:
        """End the threads."""
        self._pool.kill()
