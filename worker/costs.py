"""What the worst step costs in time and memory, measured by running it, and the room it leaves.

Runs in the worker, once, before the KV cache is made. On a GPU the worst step itself is run. On a
CPU, where that could take a minute, a smaller one is run and scaled up: the forward pass costs by
the tokens of a step, sampling by its sequences. What attention needs beyond that for long prompts
is within the slack of whoever waits for steps.
"""

import gc
from dataclasses import dataclass, replace
from typing import Protocol

import torch

from common.settings import Settings
from worker.engine import Engine
from worker.memory import Growth, available_bytes, cpu_budget_bytes
from worker.warmup import Worst, warm_up

_CUDA_RESERVE_BYTES = 256 << 20
"""Left free on a GPU besides the measured activations: fragments, and the driver's own."""
_MARGIN = 1.1
"""Of measured activations."""
_SAMPLE_TOKENS, _SAMPLE_ROWS = 128, 4
"""What is run on a CPU."""
_QUICK_S = 0.3
"""A sample that takes less is run again. Of a small model, most of the first is what a first time
takes longer; scaled up, it would have workers that hang found out minutes late."""


class MakeEngine(Protocol):
    """Makes an engine."""

    def __call__(self, blocks: int, longest_step_s: float = 0.0) -> Engine:
        """With so many KV blocks; the second as ``Engine`` takes it."""


@dataclass(frozen=True, slots=True)
class Cost:
    """Of the worst step."""

    seconds: float
    activation_bytes: int
    kept_bytes: int = 0
    """Taken for good by what is recorded of ordinary steps (``Engine.prepare``)."""


def measure(make: MakeEngine, worst: Worst, device: torch.device) -> Cost:
    """Run it, or a part of it. Raises StartupError if that fails."""
    cost = _on_gpu(make, worst, device) if device.type == "cuda" else _on_cpu(make, worst)
    gc.collect()
    if device.type == "cuda":
        torch.cuda.empty_cache()
    return cost


def _on_gpu(make: MakeEngine, worst: Worst, device: torch.device) -> Cost:
    engine = make(worst.blocks)
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats(device)
    # What torch takes of the device, not what is in use at once: that has gaps between it.
    before = torch.cuda.memory_reserved(device)
    result = warm_up(engine, worst)
    seconds = result.forward_s + result.sample_s
    activation_bytes = torch.cuda.max_memory_reserved(device) - before
    torch.cuda.empty_cache()
    free, _ = torch.cuda.mem_get_info(device)
    engine.prepare()
    left, _ = torch.cuda.mem_get_info(device)
    return Cost(seconds, activation_bytes, max(0, free - left))


def _on_cpu(make: MakeEngine, worst: Worst) -> Cost:
    sample = replace(
        worst, tokens=min(worst.tokens, _SAMPLE_TOKENS), rows=min(worst.rows, _SAMPLE_ROWS)
    )
    more_tokens, more_rows = worst.tokens / sample.tokens, worst.rows / sample.rows
    engine = make(sample.blocks)
    growth = Growth()
    # PERF: a second one took a second of processor time with 1.2 B parameters.
    result = warm_up(engine, sample, times=1)
    if result.forward_s + result.sample_s < _QUICK_S:
        result = warm_up(engine, sample, times=1)
    return Cost(
        result.forward_s * more_tokens + result.sample_s * more_rows,
        int(growth.peak_bytes() * max(more_tokens, more_rows)),
    )


def budget_bytes(settings: Settings, activation_bytes: int, device: torch.device) -> int:
    """What this process may take for keys and values, beside the activations of a step."""
    activations = int(activation_bytes * _MARGIN)
    if device.type != "cuda":
        return cpu_budget_bytes(settings, available_bytes(), activations)
    free, total = torch.cuda.mem_get_info(device)
    usable = free - int(total * (1.0 - settings.cuda_memory_fraction))
    processes = settings.num_replicas * settings.num_shard
    sharing = -(-processes // max(1, torch.cuda.device_count()))
    return (usable - activations - _CUDA_RESERVE_BYTES) // sharing
