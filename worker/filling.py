"""Tensors from safetensors files into their slots: one after another, read ahead, with progress.

Runs in the worker, once. Files are mapped and each tensor, or this shard's part of it, is copied
to where it belongs, so beside the finished weights there is one tensor at a time. Reading is what
takes long on a cold disk, and what threads can do side by side: they pull the files into the page
cache, which belongs to nobody and is shared by all shards of this machine.
"""

import logging
import os
import time
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from dataclasses import dataclass, replace
from pathlib import Path
from threading import Event
from typing import Any

import torch
from safetensors import SafetensorError, safe_open

from common.errors import StartupError
from worker.kernels.reference.quantized import Quantized
from worker.layers.layer import Slot
from worker.shortage import is_shortage

_READERS = 8
"""Files that are read at the same time."""
_CHUNK_BYTES = 1 << 20
_PROGRESS_S = 2.0
"""Between two lines of progress."""
_NO_WAIT = getattr(os, "RWF_NOWAIT", 0)

_log = logging.getLogger(__name__)


@dataclass(frozen=True, slots=True)
class Stored:
    """A tensor of the checkpoint, as its file's header describes it."""

    file: Path
    key: str
    shape: tuple[int, ...]
    dtype: str


@dataclass(frozen=True, slots=True)
class Coded:
    """Tensors of the checkpoint that are one matrix in few bits."""

    name: str
    """In the checkpoint."""
    read: Callable[[Mapping[str, torch.Tensor]], Quantized]
    """Makes it of them, whole. ValueError where the numbers make no sense."""
    tensors: Mapping[str, Stored]
    """By what ``read`` calls them."""
    file: Path
    """Of one of them."""


def fill(
    slots: Mapping[str, Slot],
    stored: Mapping[str, Stored | Coded],
    clock: Callable[[], float] = time.monotonic,
) -> None:
    """All slots, file by file, in the order of the declaration: fused layers are soon complete.

    Raises StartupError that names the tensor which cannot be read.
    """
    by_file: dict[Path, list[Slot]] = {}
    for slot in slots.values():
        by_file.setdefault(stored[slot.key].file, []).append(slot)
    progress = _Progress(len(slots), len(by_file), clock)
    with torch.inference_mode(), _read_ahead(list(by_file)):
        for path, wanted in by_file.items():
            with opened(path) as file:
                for slot in wanted:
                    source = stored[slot.key]
                    if isinstance(source, Coded):
                        _fill_codes(slot.for_codes or slot, file, source)
                    else:
                        _fill(slot, file, source)
                    progress.advance()


def try_cut(slots: Mapping[str, Slot], coded: Mapping[str, Coded]) -> None:
    """Read one matrix of codes whose inputs are cut, and throw it away.

    Raises StartupError, as ``fill`` would, where that cannot be done: only numbers tell.
    """
    for slot in (slot.for_codes or slot for key, slot in slots.items() if key in coded):
        if slot.cut is not None and slot.cut.dimension == 1:
            found = coded[slot.key]
            with opened(found.file) as file:
                _fill_codes(replace(slot, fill=lambda codes: None), file, found)
            return


def same_numbers(one: Stored, other: Stored) -> bool:
    """Whether two tensors of the checkpoint are equal. StartupError if they cannot be read."""
    if (one.shape, one.dtype) != (other.shape, other.dtype):
        return False
    with opened(one.file) as first, opened(other.file) as second:
        return torch.equal(first.get_tensor(one.key), second.get_tensor(other.key))


def _fill(slot: Slot, file: Any, found: Stored) -> None:
    with _named(found.key, found.file):
        part = _part(slot, file, found.key)
        try:
            slot.fill(part)
        except ValueError as error:
            raise StartupError(f"{found.key} cannot be quantized: {error}") from None


def _fill_codes(slot: Slot, file: Any, found: Coded) -> None:
    """Its tensors may be in several files."""
    with _named(found.name, found.file), ExitStack() as others:
        tensors = {}
        for name, part in found.tensors.items():
            holder = file if part.file == found.file else others.enter_context(opened(part.file))
            tensors[name] = holder.get_tensor(part.key)
        try:
            whole = found.read(tensors)
            whole.check()
            slot.fill(whole if slot.cut is None else whole.cut(slot.cut))
        except ValueError as error:
            raise StartupError(f"{found.name} is quantized, and {error}") from None


@contextmanager
def _named(key: str, path: Path) -> Iterator[None]:
    """What goes wrong names the tensor."""
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_shortage(error):
            raise
        raise StartupError(
            f"no memory for the tensor {key} of {path.name}: use a smaller model, a smaller dtype,"
            " --quantize, more shards, or give more memory"
        ) from None
    except (SafetensorError, OSError) as error:
        raise StartupError(f"the tensor {key} of {path} cannot be read: {error}") from None


def _part(slot: Slot, file: Any, key: str) -> torch.Tensor:
    """What the slot takes: mapped where it is in one piece."""
    if slot.cut is None:
        tensor: torch.Tensor = file.get_tensor(key)
        return tensor
    whole = file.get_slice(key)
    before = (slice(None),) * slot.cut.dimension
    spans = [whole[(*before, slice(start, stop))] for start, stop in slot.cut.spans]
    return spans[0] if len(spans) == 1 else torch.cat(spans, dim=slot.cut.dimension)


@contextmanager
def opened(path: Path) -> Iterator[Any]:
    """A safetensors file; StartupError if it is none."""
    try:
        with safe_open(path, framework="pt", device="cpu") as file:
            yield file
    except (SafetensorError, OSError) as error:
        raise StartupError(f"{path} cannot be read, it may be truncated: {error}") from None


class _Progress:
    """Says now and then how far it is, if it takes long."""

    def __init__(self, tensors: int, files: int, clock: Callable[[], float]) -> None:
        self._tensors = tensors
        self._files = files
        self._clock = clock
        self._done = 0
        self._began = clock()
        self._said = self._began

    def advance(self) -> None:
        """One tensor more."""
        self._done += 1
        now = self._clock()
        if self._done == self._tensors:
            _log.info(
                "loaded %d tensors of %d file(s) in %.1f s",
                self._tensors,
                self._files,
                now - self._began,
            )
        elif now - self._said >= _PROGRESS_S:
            self._said = now
            _log.info(
                "loading weights: %d %% (%d of %d tensors, %.0f s)",
                100 * self._done // self._tensors,
                self._done,
                self._tensors,
                now - self._began,
            )


@contextmanager
def _read_ahead(paths: list[Path]) -> Iterator[None]:
    """Meanwhile the files are read, several at a time, into the page cache."""
    enough = Event()
    with ThreadPoolExecutor(min(_READERS, len(paths)), "read-ahead") as readers:
        for path in paths:
            readers.submit(_touch, path, enough)
        try:
            yield
        finally:
            enough.set()


def _touch(path: Path, enough: Event) -> None:
    """Read a file, but for what is in the page cache already. Whoever needs it meets its errors."""
    page, chunk = bytearray(1), bytearray(_CHUNK_BYTES)
    with open(path, "rb", buffering=0) as file:
        for offset in range(0, os.fstat(file.fileno()).st_size, _CHUNK_BYTES):
            if enough.is_set():
                return
            if not _is_cached(file.fileno(), page, offset):
                os.preadv(file.fileno(), [chunk], offset)


def _is_cached(descriptor: int, page: bytearray, offset: int) -> bool:
    """Whether a read there would not wait; False where the system cannot say."""
    if not _NO_WAIT:
        return False
    try:
        return os.preadv(descriptor, [page], offset, _NO_WAIT) == len(page)
    except OSError:
        return False
