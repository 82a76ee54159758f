"""Some steps of an engine under torch's profiler: what the device did, and when it did nothing."""

import math
from collections import defaultdict
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

import torch
from torch.autograd import DeviceType  # type: ignore[attr-defined]
from torch.profiler import ProfilerActivity, profile

from worker.engine import Engine
from worker.flight import StepResult

GROUPS: tuple[tuple[str, tuple[str, ...]], ...] = (
    ("attention", ("attend", "attention", "flash", "fmha", "_combine", "_store", "bmm")),
    ("sums", ("one_shot", "nccl")),
    (
        "matrices",
        ("linear", "gemm", "nvjet", "cutlass", "cublas", "xmma", "splitk", "gemv", "::mm"),
    ),
    (
        "sampling",
        ("_race", "_finish", "_keep", "argmax", "logsumexp", "softmax", "sort", "topk", "penal"),
    ),
    ("copies", ("memcpy", "memset", "copy", "to_copy")),
)
"""By what a kernel's name contains, the first that fits; everything else is ``other``."""


@dataclass(frozen=True, slots=True)
class Event:
    """Something that the device did; microseconds."""

    name: str
    start_us: float
    end_us: float


class Window:
    """An engine of whose steps some are profiled: those from ``first`` to ``last``, from 1."""

    def __init__(self, engine: Engine, first: int, last: int) -> None:
        self._engine = engine
        self._first, self._last = first, last
        self._step = 0
        self._on_gpu = engine.device == "cuda"
        activity = ProfilerActivity.CUDA if self._on_gpu else ProfilerActivity.CPU
        self._profiler = profile(activities=[activity], acc_events=True)

    def __getattr__(self, name: str) -> Any:
        return getattr(self._engine, name)

    def step(self) -> StepResult | None:
        """As ``Engine.step``."""
        self._step += 1
        if self._step == self._first:
            self._settle()
            self._profiler.start()
        result = self._engine.step()
        if self._step == self._last:
            self._settle()
            self._profiler.stop()
        return result

    def events(self) -> list[Event]:
        """What the device did, in order; on a CPU: torch's innermost operators."""
        recorded: Any = self._profiler
        kind = DeviceType.CUDA if self._on_gpu else DeviceType.CPU
        found = [
            Event(event.name, event.time_range.start, event.time_range.end)
            for event in recorded.events() or []
            if event.device_type == kind and (self._on_gpu or not event.cpu_children)
        ]
        return sorted(found, key=lambda event: event.start_us)

    def _settle(self) -> None:
        if self._on_gpu:
            torch.cuda.synchronize()


def added(events: Iterable[Event]) -> Iterator[tuple[Event, float]]:
    """In order of their starts, with the microseconds that none of those before had taken.

    A kernel that started early and waited for the one before it has only what came after that.
    """
    until = -math.inf
    for event in sorted(events, key=lambda event: event.start_us):
        yield event, max(0.0, event.end_us - max(event.start_us, until))
        until = max(until, event.end_us)


def idle_share(events: Sequence[Event]) -> float:
    """Of the time from the first event's start to the last one's end: when there was none."""
    if not events:
        return 0.0
    busy_us = sum(us for _, us in added(events))
    began, ended = min(e.start_us for e in events), max(e.end_us for e in events)
    return 1.0 - busy_us / max(ended - began, 1e-9)


def group_of(name: str) -> str:
    """What a kernel is for, by its name."""
    lowered = name.lower()
    for group, parts in GROUPS:
        if any(part in lowered for part in parts):
            return group
    return "other"


def table(events: Iterable[Event], steps: int) -> list[dict[str, Any]]:
    """One row per kernel: of one step, its launches and milliseconds; the longest first."""
    taken: dict[str, list[float]] = defaultdict(list)
    for event, us in added(events):
        taken[event.name].append(us)
    rows = [
        {
            "name": name,
            "group": group_of(name),
            "launches": round(len(each) / steps, 2),
            "ms": round(sum(each) / steps / 1e3, 4),
        }
        for name, each in taken.items()
    ]
    return sorted(rows, key=lambda row: -row["ms"])


def by_group(rows: Iterable[dict[str, Any]]) -> dict[str, float]:
    """Milliseconds of one step by group."""
    sums: dict[str, float] = defaultdict(float)
    for row in rows:
        sums[row["group"]] += row["ms"]
    return {group: round(ms, 4) for group, ms in sorted(sums.items(), key=lambda pair: -pair[1])}
