"""What the device can do at best: bytes and operations a second, measured with random numbers."""

import statistics
import time
from collections.abc import Callable
from typing import Any

import torch

TRIES = 12


def seconds(act: Callable[[], object], device: torch.device, tries: int = TRIES) -> float:
    """The median of some tries, by the device's own events where it has them."""
    for _ in range(3):
        act()
    taken: list[float] = []
    for _ in range(tries):
        if device.type == "cuda":
            make: Any = torch.cuda.Event
            began, ended = (make(enable_timing=True) for _ in range(2))
            began.record()
            act()
            ended.record()
            ended.synchronize()
            taken.append(began.elapsed_time(ended) / 1e3)
        else:
            start = time.perf_counter()
            act()
            taken.append(time.perf_counter() - start)
    return statistics.median(taken)


def copy_bytes_s(device: torch.device, copied_bytes: int) -> float:
    """Of a copy within the device's memory: bytes read and bytes written."""
    source = torch.randn(copied_bytes // 4, device=device)
    target = torch.empty_like(source)
    return 2 * source.nbytes / seconds(lambda: target.copy_(source), device)


def matrix_operations_s(device: torch.device, size: int) -> float:
    """Of a product of two square bfloat16 matrices."""
    left, right = (torch.randn(size, size, device=device).to(torch.bfloat16) for _ in range(2))
    return 2 * size**3 / seconds(lambda: left @ right, device)
