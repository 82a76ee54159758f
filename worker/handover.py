"""From threads to the main loop: finished things, and a descriptor that wakes who waits for them.

Runs in the worker. Any thread gives, the main thread takes. Knows nothing of what it carries.
"""

import os
import threading
from typing import Generic, TypeVar

T = TypeVar("T")


class Handover(Generic[T]):
    """``fd`` is readable exactly while there is something to take."""

    def __init__(self) -> None:
        self.fd = os.eventfd(0, os.EFD_NONBLOCK | os.EFD_CLOEXEC)
        self._lock = threading.Lock()
        self._items: list[T] = []

    def give(self, item: T) -> None:
        """From any thread."""
        with self._lock:
            self._items.append(item)
            os.eventfd_write(self.fd, 1)

    def take(self) -> list[T]:
        """Everything given since the last time, in order; waits for nobody."""
        if not self._items:  # RACE: a giver may be just about to; its descriptor then says so
            return []
        with self._lock:
            items, self._items = self._items, []
            os.eventfd_read(self.fd)
        return items

    def close(self) -> None:
        """Nobody gives any more."""
        os.close(self.fd)
