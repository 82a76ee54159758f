"""Out of memory for real: a process with a limit, in which one request needs too much."""

import subprocess
import sys
from pathlib import Path

import pytest
import torch

from worker.shortage import is_shortage

ROOT = Path(__file__).parents[2]
_PROGRAM = """
import resource
import torch
from tests.worker.driver import Driver
from tests.worker.hungry import GREEDY_TOKEN, ROOM_BYTES, Hungry

torch.set_num_threads(1)
driver = Driver(Hungry(), Hungry.cache(64), blocks=64)
driver.add(0, [1, 2, 3], 8)
driver.step()
with open("/proc/self/statm") as file:
    used = int(file.read().split()[0]) * resource.getpagesize()
resource.setrlimit(resource.RLIMIT_AS, (used + ROOM_BYTES, resource.RLIM_INFINITY))
driver.dispatch(add=[driver.new(1, [4, 5], 8), driver.new(2, [GREEDY_TOKEN] * 40, 8)])
driver.run()
driver.add(3, [6, 7], 8)
driver.run()
for number, record in driver.records.items():
    print(number, len(record.ids), record.error)
print(driver.engine.held)
"""


def test_one_request_fails_and_the_others_go_on() -> None:
    """The allocator of torch refuses 2.5 GiB to one prompt; 128 MiB for others are there."""
    run = subprocess.run(
        [sys.executable, "-c", _PROGRAM], cwd=ROOT, capture_output=True, text=True, timeout=120
    )
    assert run.stdout.splitlines() == [
        "0 8 ",
        "1 8 ",
        "2 0 no memory was left for a step of this request",
        "3 8 ",
        "0",
    ], run.stderr
    assert "DefaultCPUAllocator" in run.stderr


@pytest.mark.parametrize(
    ("error", "short"),
    [
        (MemoryError(), True),
        (torch.OutOfMemoryError("CUDA"), True),
        (RuntimeError("[enforce fail] DefaultCPUAllocator: can't allocate memory"), True),
        (RuntimeError("std::bad_alloc"), True),
        (RuntimeError("Storage size calculation overflowed with sizes=[2, 9]"), True),
        (RuntimeError("shape mismatch"), False),
        (ValueError("out of memory"), False),
    ],
)
def test_what_counts_as_a_shortage(error: Exception, short: bool) -> None:
    assert is_shortage(error) is short
