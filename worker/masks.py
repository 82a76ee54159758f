"""What grammars allow next, as bits: computed by another thread while the model runs.

Runs in the worker. A mask is a row of 32-bit words, bit t % 32 of word t // 32 for token t. Owns
the thread that computes them and llguidance's executor. Knows nothing of logits' meaning, of
sequences or of blocks.
"""

from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import contextmanager
from typing import Protocol

import llguidance
import numpy as np
import numpy.typing as npt
import torch

from worker.pinning import at_large

Words = npt.NDArray[np.uint32]

ALL_BITS = np.uint32(0xFFFFFFFF)


class Follower(Protocol):
    """One row's matcher."""

    @property
    def matcher(self) -> llguidance.LLMatcher:
        """Nobody else touches it until the mask is there."""

    def settle(self, allowed: Words) -> None:
        """Change the mask that the matcher has computed, in place."""


class Pending:
    """The masks of one step, which may still be in the making."""

    def __init__(self, words: torch.Tensor, done: "Future[None]", device: torch.device) -> None:
        self._words = words
        self._done = done
        self._device = device

    def wait(self) -> torch.Tensor:
        """[n, words] int32 on the device, once they are computed. Raises what went wrong."""
        self._done.result()
        return self._words.to(self._device, non_blocking=True)


class MaskMaker:
    """Computes the masks of a step's rows, side by side, on threads of its own."""

    def __init__(self, tokens: int, *, vocabulary: int, threads: int, device: torch.device) -> None:
        """``tokens`` is how many llguidance knows, at least the logits' ``vocabulary``."""
        self._width = -(-tokens // 32)
        self._device = device
        self._executor = llguidance.LLExecutor(threads)
        self._thread = ThreadPoolExecutor(1, thread_name_prefix="masks", initializer=at_large())
        self._inside = _first_bits(vocabulary, self._width) if tokens > vocabulary else None

    def begin(self, followers: Sequence[Follower]) -> Pending:
        """The masks of these matchers, one row each; they may not be touched until it has ended."""
        shape = (len(followers), self._width)
        pinned = self._device.type == "cuda"
        words = torch.empty(shape, dtype=torch.int32, pin_memory=pinned)
        done = self._thread.submit(self._fill, followers, words)
        return Pending(words, done, self._device)

    def close(self) -> None:
        """Ends the thread."""
        self._thread.shutdown()

    def _fill(self, followers: Sequence[Follower], words: torch.Tensor) -> None:
        rows = [(follower.matcher, row) for row, follower in enumerate(followers)]
        row_bytes = self._width * words.element_size()
        with panics_as_errors():
            self._executor.unsafe_compute_mask_ptr(rows, words.data_ptr(), row_bytes, len(rows))
        masks = words.numpy().view(np.uint32)
        if self._inside is not None:
            masks &= self._inside
        for follower, mask in zip(followers, masks, strict=True):
            follower.settle(mask)


class Forbid:
    """Applies masks to logits: what a mask does not allow becomes -inf."""

    def __init__(self, device: torch.device) -> None:
        self._forbidden = table_of_bytes(device, unset=True)
        """Which tokens of eight a byte of a mask forbids."""

    def __call__(self, logits: torch.Tensor, masks: torch.Tensor) -> torch.Tensor:
        """Change ``logits`` ([n, vocabulary]) in place by ``masks`` ([n, words] int32)."""
        return logits.masked_fill_(spread(masks, self._forbidden, logits.shape[1]), -torch.inf)


def table_of_bytes(device: torch.device, *, unset: bool = False) -> torch.Tensor:
    """[256] int64, for ``spread``: of each byte, eight bools that say which of its bits are set.

    Or which are ``unset``. The lowest bit comes first.
    """
    bits = [[bool(byte >> bit & 1) != unset for bit in range(8)] for byte in range(256)]
    return torch.tensor(bits, device=device).view(torch.int64)[:, 0].contiguous()


def spread(masks: torch.Tensor, table: torch.Tensor, vocabulary: int) -> torch.Tensor:
    """What the table says of each token's bit: [n, vocabulary] bool.

    ``masks`` are [n, words] int32, as long as the vocabulary or longer.
    """
    # PERF: 19 µs for 128,256 tokens; to look up rows of eight bools takes 183, to shift 32 times
    # more. Words are little-endian.
    words = table.index_select(0, masks.view(torch.uint8).view(-1).int())
    return words.view(torch.bool).view(len(masks), -1)[:, :vocabulary]


def _first_bits(count: int, width: int) -> Words:
    """A mask of so many words with its first ``count`` bits set."""
    words = np.zeros(width, dtype=np.uint32)
    words[: count // 32] = ALL_BITS
    if count % 32:
        words[count // 32] = (1 << count % 32) - 1
    return words


@contextmanager
def panics_as_errors() -> Iterator[None]:
    """A panic of native code is no Exception. Made a RuntimeError, it does not end the process."""
    try:
        yield
    except (Exception, KeyboardInterrupt, SystemExit):
        raise
    except BaseException as error:
        raise RuntimeError(f"llguidance failed ({type(error).__name__})") from None
