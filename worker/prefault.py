"""Keys and values of a CPU: their memory is taken from the system before a step needs it.

Runs in the worker, in a thread that ends when it is done. Knows blocks by their numbers alone.
"""

import contextlib
import itertools
import threading
from collections import deque
from collections.abc import Iterator, Sequence

import torch

from worker.kernels.cpu.pages import HUGE_PAGE_BYTES, take
from worker.pinning import at_large

AHEAD_BYTES = 512 << 20


class Prefault:
    """Takes the memory of blocks while nobody computes; they are used from the first on.

    What is taken is little beyond what is used, so that a server that is asked for little takes
    little. What a busy server comes to first is taken by its steps, as everywhere. PERF: a fault
    costs 0.1 ms a megabyte in large pages and 0.4 in small ones, and other threads wait for the one
    that has it; where the host of a virtual machine gives memory at its first use, 2 to 3 ms
    (``bench/README.md``).
    """

    def __init__(self, layers: Sequence[torch.Tensor], ahead_bytes: int = AHEAD_BYTES) -> None:
        """Layers [2, blocks, …], contiguous; of all of them, so many bytes are taken ahead."""
        self._layers = layers
        self._blocks = len(layers[0][0])
        self._ahead = -(-ahead_bytes // sum(layer[:, 0].nbytes for layer in layers))
        self._together = max(1, HUGE_PAGE_BYTES // max(layer[0, 0].nbytes for layer in layers))
        self._used = self._taken = 0
        self._pieces: deque[torch.Tensor] = deque()
        self._resting = False
        self._at_large = at_large()
        self._thread: threading.Thread | None = None

    def use(self, block: int) -> None:
        """Blocks up to this one are about to be used: no more is taken until the next rest.

        Waits for nothing: a piece that is being taken stays under way.
        """
        self._used = max(self._used, block + 1)
        self._resting = False

    def rest(self) -> None:
        """Nobody computes."""
        self._resting = True
        if self._left and (self._thread is None or not self._thread.is_alive()):
            thread = threading.Thread(target=self._take, name="prefault", daemon=True)
            with contextlib.suppress(RuntimeError):  # no room for a thread: steps take it then
                thread.start()
                self._thread = thread

    @property
    def _left(self) -> bool:
        return bool(self._pieces) or self._taken < min(self._blocks, self._used + self._ahead)

    def _take(self) -> None:
        with contextlib.suppress(OSError):  # those processors are no longer ours
            self._at_large()
        while self._resting and self._left:
            if not self._pieces:
                first = self._taken
                self._taken = min(self._blocks, self._used + self._ahead)
                self._pieces.extend(self._cut(first, self._taken))
            take(self._pieces.popleft())

    def _cut(self, first: int, beyond: int) -> Iterator[torch.Tensor]:
        """What these blocks have in all layers, in pieces of at most a large page or a block."""
        for start in range(first, beyond, self._together):
            for half in itertools.chain.from_iterable(self._layers):
                yield half[start : min(beyond, start + self._together)]
