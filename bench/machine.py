"""What the machine can do at best: the facts that a figure of speed means nothing without.

usage: python -m bench.machine     one JSON object

Memory is read by summing an array too large for any cache: as int64, float32 and float64, the best
of several tries, because the sum itself may be the limit. Matrices are torch's bfloat16 ones.
"""

import json
import os
import platform
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import torch

ARRAY_BYTES = 2 << 30
TRIES = 4
MATRIX = 2048
FLAGS = ("avx2", "avx512f", "avx512_vnni", "avx512_bf16", "avx512_fp16", "amx_tile", "amx_bf16")
IDLE_S = 1.0


def processor() -> dict[str, Any]:
    """Name and instruction sets, as the kernel has them."""
    fields: dict[str, str] = {}
    for line in Path("/proc/cpuinfo").read_text().splitlines():
        key, _, text = line.partition(":")
        fields.setdefault(key.strip(), text.strip())
    present = fields.get("flags", "").split()
    family = ("cpu family", "model", "stepping")
    return {
        "name": fields.get("model name", platform.machine()),
        "family_model_stepping": [fields.get(key, "") for key in family],
        "cores": len(os.sched_getaffinity(0)),
        "flags": [flag for flag in FLAGS if flag in present],
    }


def best_s(act: Callable[[], object]) -> float:
    """The shortest of some tries."""
    taken = []
    for _ in range(TRIES):
        began = time.perf_counter()
        act()
        taken.append(time.perf_counter() - began)
    return min(taken)


def read_gb_s(array: torch.Tensor, threads: int) -> float:
    """Gigabytes a second that so many threads read."""
    torch.set_num_threads(threads)
    views = [array.view(dtype) for dtype in (torch.int64, torch.float32, torch.float64)]
    return round(array.nbytes / min(best_s(view.sum) for view in views) / 1e9, 1)


def multiplies_bfloat16(flags: Iterable[str]) -> bool:
    """Whether there are instructions for that: emulated, it takes a hundred times as long."""
    return not {"avx512_bf16", "amx_bf16"}.isdisjoint(flags)


def matrix_gflop_s(threads: int, dtype: torch.dtype) -> float:
    """Billions of operations a second in a product of square matrices."""
    torch.set_num_threads(threads)
    left, right = (torch.rand(MATRIX, MATRIX).to(dtype) for _ in range(2))
    return round(2 * MATRIX**3 / best_s(lambda: left @ right) / 1e9, 0)


def busy_cores(for_s: float = IDLE_S) -> float:
    """Cores that are busy, with whatever, in the next second."""
    ticks = os.sysconf("SC_CLK_TCK")

    def used() -> int:
        fields = [int(text) for text in Path("/proc/stat").read_text().split()[1:9]]
        return sum(fields) - fields[3] - fields[4] - fields[7]  # without idle, iowait, steal

    before = used()
    time.sleep(for_s)
    return round((used() - before) / ticks / for_s, 2)


def facts() -> dict[str, Any]:
    """Everything; takes some seconds and ``ARRAY_BYTES`` of memory."""
    busy = busy_cores()
    found = processor()
    array = torch.zeros(ARRAY_BYTES // 8, dtype=torch.int64).fill_(1)
    counts = range(1, found["cores"] + 1)
    narrow = multiplies_bfloat16(found["flags"])
    name, dtype = ("bf16", torch.bfloat16) if narrow else ("f32", torch.float32)
    return found | {
        "busy_cores_before": busy,
        "read_gb_s": {str(threads): read_gb_s(array, threads) for threads in counts},
        f"{name}_matrix_gflop_s": {str(count): matrix_gflop_s(count, dtype) for count in counts},
        "torch": torch.__version__,
        "kernel": platform.release(),
    }


if __name__ == "__main__":
    print(json.dumps(facts()))
