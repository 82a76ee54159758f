"""On a real GPU: ``make gpu-test``."""

import os

os.environ["TRITON_INTERPRET"] = "0"
"""Before anything imports Triton: kernels are compiled here, whatever all other tests do."""

import pytest  # noqa: E402
import torch  # noqa: E402 - it may bring Triton along


def pytest_sessionstart():
    if not torch.cuda.is_available():
        pytest.exit("these tests need a CUDA GPU that torch can use, and there is none", 1)


@pytest.fixture
def poisoned_outputs():
    """Torch fills what is not initialised with NaN."""
    torch.use_deterministic_algorithms(True, warn_only=True)
    yield
    torch.use_deterministic_algorithms(False)


@pytest.fixture
def no_synchronisation():
    """A context in which waiting for the device is an error."""

    class Unwaiting:
        def __enter__(self):
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")

        def __exit__(self, *problem):
            torch.cuda.set_sync_debug_mode("default")

    return Unwaiting()
