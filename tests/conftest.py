"""Before anything imports Triton: its kernels run in its interpreter, on the CPU.

``tests/gpu`` and the compilation of kernels say otherwise. And the order of the files; that no
drawn example has to be fast; that what is started here heeds Ctrl-C; that modules are compiled
once; and what the collector of garbage looks at.
"""

import contextlib
import gc
import os
import signal
import sys
from pathlib import Path

import pytest

os.environ.setdefault("TRITON_INTERPRET", "1")

# PERF: else every run compiles all tests and modules anew, 12 s in each process of the tests.
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
sys.dont_write_bytecode = False

if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:  # what shells start in their background
    signal.signal(signal.SIGINT, signal.default_int_handler)

with contextlib.suppress(ImportError):  # tests/gpu need none of it
    import hypothesis

    hypothesis.settings.register_profile(
        "untimed", deadline=None, suppress_health_check=[hypothesis.HealthCheck.too_slow]
    )
    hypothesis.settings.load_profile("untimed")

_FIRST = ("end_to_end", "worker", "launcher")
"""Folders whose files take longest, in this order: whoever tests files side by side ends with short
ones, and no process runs alone for long.
"""


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Long files first; otherwise as they come."""
    here = Path(__file__).parent

    def place(item: pytest.Item) -> int:
        folder = item.path.relative_to(here).parts[0]
        return _FIRST.index(folder) if folder in _FIRST else len(_FIRST)

    items.sort(key=place)


def pytest_collection_finish() -> None:
    """As in a server's processes, collections of garbage look at nothing that was there before.

    PERF: with all modules and tests one took 0.7 s, and shortages of memory make many.
    """
    gc.collect()
    gc.freeze()


def pytest_sessionfinish() -> None:
    """At its end Python looks at everything again: libraries tell what they miss there."""
    gc.unfreeze()
