"""Fixtures of the worker's tests."""

import os

import pytest
import torch


@pytest.fixture(scope="session", autouse=True)
def _one_thread():
    """Tests run beside each other: no thread pool of their own."""
    torch.set_num_threads(int(os.environ.get("OMP_NUM_THREADS", "1")))
