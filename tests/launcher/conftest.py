"""A directory whose path is short enough for UNIX sockets."""

import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest


@pytest.fixture
def tmp_path() -> Iterator[Path]:
    """In the place of pytest's own, whose path may be longer than a socket's may be."""
    with tempfile.TemporaryDirectory() as short:
        yield Path(short)
