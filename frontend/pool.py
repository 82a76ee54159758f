"""Threads for work that would hold up every stream of the process: large prompts and templates.

Runs in every front-end process. Knows nothing of what it runs.
"""

from collections.abc import Callable
from typing import TypeVar

from gevent.threadpool import ThreadPool

INLINE_CHARACTERS = 4096
"""Texts up to this length are handled on the spot.

PERF: 4,096 characters are about 2 ms of tokenization; a thread and back costs about 0.1 ms. The
tokenizer lets go of the interpreter lock, so streams go on meanwhile."""

T = TypeVar("T")


class Offload:
    """Runs small pieces of work at once and large ones on ``workers`` threads."""

    def __init__(self, workers: int) -> None:
        self._pool = ThreadPool(max(1, workers))

    def run(self, characters: int, work: Callable[[], T]) -> T:
        """The result of ``work``; while a large piece runs, other greenlets go on."""
        if characters <= INLINE_CHARACTERS:
            return work()
        result: T = self._pool.apply(work)
        return result

    def close(self) -> None:
        """End the threads."""
        self._pool.kill()
