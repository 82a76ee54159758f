"""For pytest, wherever the tests lie: they run on the emulated device."""

import pytest

from tests.emulated import computing


def pytest_sessionstart():
    """Before anything is collected."""
    computing.start()


@pytest.fixture(autouse=True)
def nothing_fails_there():
    """What fails where the device computes fails the test."""
    computing.work.failures.clear()
    yield
    assert computing.work.failures == []
