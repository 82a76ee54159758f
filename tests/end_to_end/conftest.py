"""The servers that the end-to-end tests share, and the reference model."""

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from tests.end_to_end.harness import ROOT, Server, running
from tests.end_to_end.reference import Reference

BUILTIN = ROOT / "common" / "models" / "builtin"


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Mark everything in this folder."""
    here = Path(__file__).parent
    for item in items:
        if here in item.path.parents:
            item.add_marker("end_to_end")


@pytest.fixture(scope="session", autouse=True)
def _one_thread() -> None:
    """What transformers computes runs beside servers: threads would wait for each other."""
    torch.set_num_threads(1)


@pytest.fixture(scope="session")
def server() -> Iterator[Server]:
    """The built-in model, as a user starts it, with prompt log-probabilities on."""
    with running("--enable-prefill-logprobs", "--max-concurrent-requests", "64") as started:
        yield started


@pytest.fixture(scope="session")
def reference() -> Reference:
    """The built-in model in transformers, float32."""
    return Reference(BUILTIN)
