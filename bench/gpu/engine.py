"""The engine without the pipeline, on the device: ceilings, floors, rates, steps under a profiler.

usage: python -m bench.gpu.engine MODEL_DIR 8b|1b|tiny [--device cuda] [--streams 1 32 64 256]
                                  [--seconds S] [--no-graphs]

Prints a JSON object a line, each a piece of the result, what matters most first; begins nothing
after S seconds. Started by the worker's own ``start``, under the scheduler of ``bench.engine``,
which costs nothing. A process of its own, so that its memory is free again when the server starts.
"""

import argparse
import json
import logging
import math
import os
import random
import statistics
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import torch

from bench.engine import STEP_TOKENS, InstantScheduler, started
from bench.gpu import kernels
from bench.gpu.ceilings import copy_bytes_s, matrix_operations_s
from bench.gpu.load import NEW_TOKENS, PROMPT_TOKENS
from bench.gpu.pieces import Budget
from bench.gpu.profile import Window, by_group, idle_share, table
from bench.gpu.shapes import SHAPES, Shape
from common.messages import BLOCK_TOKENS
from launcher.commands.serve import kernel_cache
from worker.engine import Engine

ROUNDS = 2
"""Each stream has so many answers."""
FIRST_TOKENS = 5
"""Tries of the time to the first token."""
READ_TOKENS, READ_PROMPTS = 2048, 8
PROFILED_STEPS = 12
SHOWN_KERNELS = 24


def ready_engine(model_dir: str, device: str, streams: int, *, graphs: bool = True) -> Engine:
    """As the worker starts it, with room for so many; without ``graphs`` it records nothing."""
    room = streams * (PROMPT_TOKENS + NEW_TOKENS + BLOCK_TOKENS)
    room = max(room, READ_PROMPTS * (READ_TOKENS + BLOCK_TOKENS), STEP_TOKENS)
    return started(
        model_dir,
        device=device,
        dtype="bfloat16" if device == "cuda" else "auto",
        max_batch_size=streams,
        cuda_graphs=None if graphs else [],
        max_batch_total_tokens=room,
        kernel_cache=kernel_cache(os.environ),  # the server's: what is compiled here, it finds
        disable_custom_kernels=device == "cpu",  # a trial is to see what a step is made of
    )


def prompts_of(number: int, tokens: int, vocabulary: int, *, seed: int) -> list[list[int]]:
    """Random ids."""
    rng = random.Random(seed)
    return [rng.choices(range(256, vocabulary), k=tokens) for _ in range(number)]


class Measuring:
    """One engine on one device, and what it is compared with."""

    def __init__(self, engine: Engine, shape: Shape, bytes_s: float, operations_s: float) -> None:
        self._engine = engine
        self._shape = shape
        self._bytes_s = bytes_s
        self._operations_s = operations_s
        self._device = torch.device(engine.device)
        self._seed = 0

    def measurements(self, streams: list[int]) -> dict[str, Callable[[], dict[str, Any]]]:
        """By name, each to a piece of the result; what matters most comes first."""
        fewest, most = min(streams), max(streams)
        others = [count for count in streams if count not in (fewest, most)]
        ordered = list(dict.fromkeys([fewest, most, *others]))

        def rates(count: int) -> dict[str, Any]:
            return {"streams": {str(count): self.streams(count)}}

        def profiles(count: int) -> dict[str, Any]:
            return {"decode_profiles": {str(count): self.decode_profile(count)}}

        given = self._shape, self._device, self._bytes_s, self._operations_s
        compared = {"experts": kernels.experts, "attention": kernels.attention}
        return {
            **{f"{count} streams": partial(rates, count) for count in ordered[:2]},
            "decode profile": partial(profiles, fewest),
            "first token": lambda: {"first_token_ms": self.first_token_ms()},
            "reading": lambda: {"reading": self.reading()},
            **{f"{count} streams": partial(rates, count) for count in ordered[2:]},
            **({"decode profile of many": partial(profiles, most)} if most != fewest else {}),
            "reading profile": lambda: {"reading_profile": self.reading_profile()},
            "linear layers": partial(kernels.linear, self._shape, self._device, self._bytes_s),
            **{name: partial(measure, *given) for name, measure in compared.items()},
        }

    def streams(self, count: int) -> dict[str, float]:
        """Answers to so many at once; and a decode step, beside its floor."""
        prompts = self._prompts(ROUNDS * count, PROMPT_TOKENS)
        began = time.perf_counter()
        record = InstantScheduler(self._engine).run(prompts, count, NEW_TOKENS)
        wall_s = time.perf_counter() - began
        step_s = statistics.median(record.decode_s)
        context = PROMPT_TOKENS + NEW_TOKENS // 2
        floor_s = self._shape.decode_floor_s(count, context, self._bytes_s)
        return {
            "tok_s": round(record.tokens / wall_s, 1),
            "step_ms": round(1e3 * step_s, 3),
            "floor_ms": round(1e3 * floor_s, 3),
            "step_over_floor": round(step_s / floor_s, 3),
        }

    def first_token_ms(self) -> float:
        """Of a prompt, with nothing else to do."""
        scheduler = InstantScheduler(self._engine)
        prompts = self._prompts(FIRST_TOKENS, PROMPT_TOKENS)
        taken = [scheduler.run([prompt], 1, 1).first_s[0] for prompt in prompts]
        return round(1e3 * statistics.median(taken), 3)

    def reading(self) -> dict[str, float]:
        """Prompts alone, against the rate of matrix products."""
        prompts = self._prompts(READ_PROMPTS, READ_TOKENS)
        began = time.perf_counter()
        InstantScheduler(self._engine).run(prompts, READ_PROMPTS, 1)
        wall_s = time.perf_counter() - began
        operations = sum(self._shape.prefill_operations(READ_TOKENS, READ_PROMPTS))
        return {
            "tok_s": round(READ_PROMPTS * READ_TOKENS / wall_s, 1),
            "share_of_matrix_rate": round(operations / wall_s / self._operations_s, 4),
        }

    def decode_profile(self, count: int) -> dict[str, Any]:
        """Steps in which so many decode, kernel by kernel."""
        window = Window(self._engine, 6, 5 + PROFILED_STEPS)
        scheduler = InstantScheduler(window)  # type: ignore[arg-type]
        scheduler.run(self._prompts(count, PROMPT_TOKENS), count, PROFILED_STEPS + 10, cached=True)
        weights_s = self._shape.decode_floor_s(0, 0, self._bytes_s)
        cache_s = self._shape.decode_floor_s(count, PROMPT_TOKENS, self._bytes_s) - weights_s
        floors = {"matrices": 1e3 * weights_s, "attention": 1e3 * cache_s}
        return {"streams": count, **_described(window, PROFILED_STEPS, floors)}

    def reading_profile(self) -> dict[str, Any]:
        """The step that reads one prompt, kernel by kernel."""
        window = Window(self._engine, 1, 1)
        scheduler = InstantScheduler(window)  # type: ignore[arg-type]
        scheduler.run(self._prompts(1, READ_TOKENS), 1, 1)
        matrices, attention = self._shape.prefill_operations(READ_TOKENS, 1)
        floors = {
            "matrices": 1e3 * matrices / self._operations_s,
            "attention": 1e3 * attention / self._operations_s,
        }
        return {"tokens": READ_TOKENS, **_described(window, 1, floors)}

    def _prompts(self, number: int, tokens: int) -> list[list[int]]:
        self._seed += 1
        return prompts_of(number, tokens, self._shape.vocabulary, seed=self._seed)


def _described(window: Window, steps: int, floors_ms: dict[str, float]) -> dict[str, Any]:
    events = window.events()
    rows = table(events, steps)
    return {
        "idle_share": round(idle_share(events), 4),
        "ms_by_group": by_group(rows),
        "floor_ms_by_group": {group: round(ms, 4) for group, ms in floors_ms.items()},
        "kernels": rows[:SHOWN_KERNELS],
        "kernels_left_out": max(0, len(rows) - SHOWN_KERNELS),
    }


def pieces(
    model_dir: str,
    size: str,
    device_name: str,
    streams: list[int],
    budget: Budget,
    *,
    graphs: bool = True,
) -> Iterator[dict[str, Any]]:
    """Everything that there is time for."""
    device, shape = torch.device(device_name), SHAPES[size]
    large = device.type == "cuda"
    bytes_s = copy_bytes_s(device, (4 << 30) if large else (64 << 20))
    operations_s = matrix_operations_s(device, 8192 if large else 512)
    yield {
        "device": torch.cuda.get_device_name(device) if large else "cpu",
        "torch": torch.__version__,
        "copy_gb_s": round(bytes_s / 1e9, 1),
        "matrix_tflop_s": round(operations_s / 1e12, 3),
    }
    began = time.perf_counter()
    engine = ready_engine(model_dir, device_name, max(streams), graphs=graphs)
    yield {"dtype": engine.dtype, "start_s": round(time.perf_counter() - began, 1)}
    measuring = Measuring(engine, shape, bytes_s, operations_s)
    measuring.streams(min(streams))  # kernels are compiled
    yield from in_order(measuring.measurements(streams), budget)
    engine.close()


def in_order(
    measurements: dict[str, Callable[[], dict[str, Any]]], budget: Budget
) -> Iterator[dict[str, Any]]:
    """One after another while there is time; then the names of those left out."""
    for name, measure in measurements.items():
        yield {"left_out": [name]} if budget.over else measure()


def main() -> None:
    """Read the flags, measure, print."""
    parser = argparse.ArgumentParser(description="the engine on a device, without the pipeline")
    parser.add_argument("model_dir", type=Path)
    parser.add_argument("shape", choices=list(SHAPES))
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32, 64, 256])
    parser.add_argument("--seconds", type=float, default=math.inf)
    parser.add_argument("--no-graphs", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s", stream=sys.stderr)
    model_dir, budget = str(options.model_dir), Budget(options.seconds)
    given = model_dir, options.shape, options.device, options.streams, budget
    for piece in pieces(*given, graphs=not options.no_graphs):
        print(json.dumps(piece), flush=True)


if __name__ == "__main__":
    main()
