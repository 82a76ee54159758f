"""Fixtures of the worker's tests."""

import ctypes
import gc
import os
from types import SimpleNamespace

import pytest
import torch
from triton.runtime import interpreter

from tests.worker import driver
from tests.worker.kernels.triton.quicker import Patch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests run beside each other: no thread pool of their own."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))


@pytest.fixture(scope="session", autouse=True)
def _quick_interpreter():
    """Triton's, as ``quicker`` has it."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(interpreter, "_patch_builtin", Patch())
        yield


@pytest.fixture(params=driver.RUNNERS)
def runner(request, monkeypatch):
    """Every driver of the test computes its steps so."""
    monkeypatch.setattr(driver, "default_runner", request.param)
    return request.param


@pytest.fixture(scope="session")
def kept(tmp_path_factory):
    """Where kernels in C are kept during this run: one place for all that run beside."""
    directory = tmp_path_factory.getbasetemp()
    if "PYTEST_XDIST_WORKER" in os.environ:
        directory = directory.parent
    directory /= "kernels"
    directory.mkdir(mode=0o700, exist_ok=True)
    return directory


@pytest.fixture
def settled():
    """As in a worker, collections look at nothing that was there before: shortages make many.

    Since the tests were collected, other tests have imported more.
    """
    gc.freeze()


@pytest.fixture
def advised(monkeypatch) -> list[tuple[int, int, int]]:
    """Addresses, sizes and advice that the system was given about memory; it refuses all of it."""
    seen = []

    def madvise(address, size, advice):
        seen.append((address.value, size.value, advice))
        return -1

    monkeypatch.setattr(ctypes, "CDLL", lambda _: SimpleNamespace(madvise=madvise))
    return seen
