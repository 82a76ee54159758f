"""What of a cache's memory is there, as the system tells it; and what is taken when."""

import ctypes
import mmap
import os
import sys
import threading

import pytest
import torch

from worker import prefault
from worker.prefault import Prefault

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="asks Linux")

BLOCK_BYTES = 64 << 10


def layers_of(blocks, count=2):
    """Nobody has touched a page of these; a block takes so many bytes in each half of each.

    In small pages: of large ones the system would take more than it is asked for.
    """
    made = []
    for _ in range(count):
        memory = mmap.mmap(-1, 2 * blocks * BLOCK_BYTES)
        memory.madvise(mmap.MADV_NOHUGEPAGE)
        made.append(torch.frombuffer(memory, dtype=torch.uint8).view(2, blocks, BLOCK_BYTES))
    return made


def resident(layers):
    """[blocks]: how many of their pages are in memory."""
    blocks = layers[0].shape[1]
    pages = BLOCK_BYTES // mmap.PAGESIZE
    found = [0] * blocks
    for layer in layers:
        seen = (ctypes.c_ubyte * (2 * blocks * pages))()
        address, size = ctypes.c_void_p(layer.data_ptr()), ctypes.c_size_t(layer.nbytes)
        assert ctypes.CDLL(None).mincore(address, size, seen) == 0
        for page, there in enumerate(seen):
            found[page // pages % blocks] += there & 1
    return found


def ended(pages):
    """What has been begun is done."""
    if pages._thread is not None:
        pages._thread.join()


def rested(pages):
    """Nobody computes for as long as it takes."""
    pages.rest()
    ended(pages)


def test_takes_what_comes_next_and_no_more():
    layers = layers_of(blocks=40)
    full = 2 * 2 * BLOCK_BYTES // mmap.PAGESIZE
    pages = Prefault(layers, ahead_bytes=8 * 4 * BLOCK_BYTES)
    assert sum(resident(layers)) == 0
    rested(pages)
    assert resident(layers) == [full] * 8 + [0] * 32
    pages.use(3)
    pages.use(1)
    ended(pages)
    assert resident(layers) == [full] * 8 + [0] * 32
    rested(pages)
    assert resident(layers) == [full] * 12 + [0] * 28
    pages.use(35)
    rested(pages)
    assert resident(layers) == [full] * 40
    pages.use(39)
    rested(pages)


def test_leaves_what_is_there_as_it_is():
    layers = layers_of(blocks=4, count=1)
    layers[0][1, 2] = 7
    rested(Prefault(layers))
    assert (layers[0][1, 2] == 7).all()
    assert layers[0].sum() == 7 * BLOCK_BYTES


class Taking:
    """In place of the system: each piece waits until it may be taken."""

    def __init__(self, monkeypatch):
        self.seen = []
        self.asked, self._granted = threading.Semaphore(0), threading.Semaphore(0)
        monkeypatch.setattr(prefault, "take", self._take)

    def grant(self, pieces):
        for _ in range(pieces):
            self._granted.release()

    def _take(self, piece):
        self.seen.append((threading.current_thread(), os.sched_getaffinity(0), piece))
        self.asked.release()
        assert self._granted.acquire(timeout=10)


def test_stops_when_somebody_computes_and_goes_on_where_it_was(monkeypatch):
    taking = Taking(monkeypatch)
    layers = layers_of(blocks=10, count=3)
    pages = Prefault(layers, ahead_bytes=10 * 6 * BLOCK_BYTES)
    pages.rest()
    assert taking.asked.acquire(timeout=10)
    pages.use(2)
    taking.grant(1)
    ended(pages)
    assert len(taking.seen) == 1
    taking.grant(5)
    rested(pages)
    wanted = [half for layer in layers for half in layer]
    got = [piece for _, _, piece in taking.seen]
    assert [piece.data_ptr() for piece in got] == [half.data_ptr() for half in wanted]
    assert all(piece.shape == half.shape for piece, half in zip(got, wanted, strict=True))
    rested(pages)
    assert len(taking.seen) == 6


def test_takes_in_a_thread_of_its_own_which_ends(monkeypatch):
    """One at a time, which does not stay where its maker has been put meanwhile."""
    taking = Taking(monkeypatch)
    before = os.sched_getaffinity(0)
    pages = Prefault(layers_of(blocks=4, count=1))
    try:
        os.sched_setaffinity(0, {min(before)})
        pages.rest()
        pages.rest()
    finally:
        os.sched_setaffinity(0, before)
    taking.grant(2)
    ended(pages)
    assert [cpus for _, cpus, _ in taking.seen] == [before] * 2
    (thread,) = {thread for thread, _, _ in taking.seen}
    assert thread is not threading.current_thread()
    assert not thread.is_alive()


def test_where_no_thread_can_be_had_nothing_is_taken(monkeypatch):
    def refused(thread):
        raise RuntimeError("can't start new thread")

    layers = layers_of(blocks=4, count=1)
    pages = Prefault(layers)
    with monkeypatch.context() as patched:
        patched.setattr(threading.Thread, "start", refused)
        rested(pages)
    assert sum(resident(layers)) == 0
    rested(pages)
    assert 0 not in resident(layers)


def test_processors_that_are_no_longer_ours(monkeypatch):
    def refused(*_):
        raise OSError

    layers = layers_of(blocks=4, count=1)
    pages = Prefault(layers)
    monkeypatch.setattr(pages, "_at_large", refused)
    rested(pages)
    assert 0 not in resident(layers)
