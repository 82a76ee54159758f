"""Where weights lie: side by side in slabs of whole large pages, none over another."""

import gc
import mmap
import weakref

import torch

from worker.kernels.cpu import pages
from worker.kernels.cpu.pages import HUGE_PAGE_BYTES, SLAB_BYTES, Slabs


def test_pieces_share_a_slab_of_whole_large_pages(advised):
    slabs = Slabs()
    first = slabs.empty((3, 5), torch.bfloat16)
    second = slabs.empty((7,), torch.float32)
    assert (first.shape, first.dtype) == ((3, 5), torch.bfloat16)
    assert (second.shape, second.dtype) == ((7,), torch.float32)
    assert advised == [(first.data_ptr(), SLAB_BYTES, mmap.MADV_HUGEPAGE)]
    assert first.data_ptr() % HUGE_PAGE_BYTES == 0
    assert second.data_ptr() == first.data_ptr() + 64
    first.fill_(1)
    second.fill_(2)
    assert first.float().sum() == 15


def test_what_does_not_fit_gets_a_slab_of_its_size(advised, monkeypatch):
    monkeypatch.setattr(pages, "SLAB_BYTES", HUGE_PAGE_BYTES)
    slabs = Slabs()
    small = slabs.empty((HUGE_PAGE_BYTES - 100,), torch.uint8)
    large = slabs.empty((2 * HUGE_PAGE_BYTES + 1,), torch.uint8)
    assert advised == [
        (small.data_ptr(), HUGE_PAGE_BYTES, mmap.MADV_HUGEPAGE),
        (large.data_ptr(), 3 * HUGE_PAGE_BYTES, mmap.MADV_HUGEPAGE),
    ]
    after = slabs.empty((10,), torch.uint8)
    assert after.data_ptr() > large.data_ptr() + large.nbytes
    assert len(advised) == 2


def test_copies_are_contiguous():
    matrix = torch.arange(12).view(3, 4).T
    copied = Slabs().copy(matrix)
    assert copied.is_contiguous()
    assert torch.equal(copied, matrix)


def test_a_slab_ends_with_its_last_piece(monkeypatch):
    monkeypatch.setattr(pages, "SLAB_BYTES", HUGE_PAGE_BYTES)
    slabs = Slabs()
    first = slabs.empty((HUGE_PAGE_BYTES,), torch.uint8)
    slab = weakref.ref(first.untyped_storage())
    second = slabs.empty((1,), torch.uint8)
    assert slab() is not None
    del first
    gc.collect()
    assert slab() is None
    assert second.nbytes == 1
