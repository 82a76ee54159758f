"""The engine without the pipeline: its apply and step under a scheduler that costs nothing.

usage: python -m bench.engine MODEL_DIR [--worker-threads 2]     a table of steps
                                           --json                the same as one JSON object
                                           --serve               as bench.drivers.exchange has it

Started by the worker's own ``start``, C kernels included. What HTTP, text, scheduling and messages
cost is the difference to what a server gives on the same work. Also measures a step over a long
context, whose keys and values are written, not computed.
"""

import argparse
import json
import logging
import os
import statistics
import tempfile
import time
from collections import deque
from collections.abc import Iterable
from dataclasses import dataclass, field
from itertools import count, islice, repeat
from pathlib import Path
from typing import Any

import torch
from tokenizers import Tokenizer

from bench.drivers.exchange import Run, serve
from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, Progress, SequenceSpec
from common.options import OPTIONS
from common.sampling import SamplingParameters
from common.settings import Settings
from launcher.commands.serve import kernel_cache
from worker.engine import Engine
from worker.speculation.drafter import MakeDrafter
from worker.speculation.ngrams import NgramDrafter
from worker.start import start

STEP_TOKENS = 4096
CONTEXTS = (64, 2000)
STREAMS = (1, 8, 32)
STEPS = 24
KV_TOKENS = max(STREAMS) * (max(CONTEXTS) + STEPS + BLOCK_TOKENS)


@dataclass
class Record:
    """What a run did."""

    tokens: int = 0
    first_s: list[float] = field(default_factory=list)
    gaps_s: list[float] = field(default_factory=list)
    decode_s: list[float] = field(default_factory=list)
    """Steps in which every stream decoded and none read a prompt."""
    drafted: int = 0
    accepted: int = 0  # of those
    texts: list[list[int]] = field(default_factory=list)
    """Prompts with what followed, in the order of their ends."""


class InstantScheduler:
    """Gives every sequence all its blocks at once; as many run as there are streams."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._free = deque(range(1, engine.blocks))
        self._ids = count(1)
        self._dispatches = count(1)
        self._leases: dict[int, list[int]] = {}
        self._last: dict[int, float] = {}
        """By sequence, when it came or had its last token."""
        self._texts: dict[int, list[int]] = {}

    def run(
        self,
        prompts: Iterable[list[int]],
        streams: int,
        new_tokens: int | Iterable[int],
        *,
        cached: bool = False,
        max_stall_s: float = 0.0,
    ) -> Record:
        """Until all prompts have their new tokens: so many, or one number for each prompt.

        ``cached``: keys and values of all of a prompt's full blocks count as written already.
        ``max_stall_s``: as in a ``Dispatch``.
        """
        record = Record()
        each = repeat(new_tokens) if isinstance(new_tokens, int) else new_tokens
        waiting = zip(prompts, each, strict=not isinstance(new_tokens, int))
        while True:
            add = []
            for prompt, tokens in islice(waiting, streams - len(self._leases)):
                add.append(self._new(prompt, tokens, cached=cached))
                self._leases[add[-1].spec.id] = add[-1].blocks
                self._texts[add[-1].spec.id] = list(prompt)
                self._last[add[-1].spec.id] = time.perf_counter()
            if not self._leases:
                return record
            if add:
                number = next(self._dispatches)
                self._engine.apply(
                    Dispatch(1, number, STEP_TOKENS, add=add, max_stall_s=max_stall_s)
                )
            began = time.perf_counter()
            result = self._engine.step()
            news, _ = self._engine.take_news()
            if result is None or news:
                raise RuntimeError(f"the engine stands still: {[item.error for item in news]}")
            now = time.perf_counter()
            if result.prefill_tokens == 0 and result.decode_tokens == streams:
                record.decode_s.append(now - began)
            record.drafted += result.drafted_tokens
            record.accepted += result.accepted_tokens
            for item in result.items:
                self._enter(item, record, now)

    def _enter(self, item: Progress, record: Record, now: float) -> None:
        if item.error:
            raise RuntimeError(item.error)
        tokens = item.tokens
        if not tokens.ids:
            return
        record.tokens += len(tokens.ids)
        times = record.gaps_s if tokens.index else record.first_s
        times.append(now - self._last[tokens.id])
        self._last[tokens.id] = now
        self._texts[tokens.id] += tokens.ids
        if tokens.finish:
            record.texts.append(self._texts.pop(tokens.id))
            self._free.extend(self._leases.pop(tokens.id))
            del self._last[tokens.id]

    def _new(self, prompt: list[int], new_tokens: int, *, cached: bool) -> NewSequence:
        blocks = -(-(len(prompt) + new_tokens) // BLOCK_TOKENS)
        return NewSequence(
            SequenceSpec(next(self._ids), prompt, new_tokens, SamplingParameters()),
            attempt=0,
            generated_ids=[],
            blocks=[self._free.popleft() for _ in range(blocks)],
            cached_tokens=(len(prompt) - 1) // BLOCK_TOKENS * BLOCK_TOKENS if cached else 0,
        )


def ready_engine(model_dir: str, threads: int, **settings: Any) -> Engine:
    """As the worker starts it, with a cache whose every page has been written."""
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    return started(
        model_dir,
        kernel_cache=kernel_cache(os.environ),
        worker_threads=threads,
        max_batch_total_tokens=KV_TOKENS,
        **settings,
    )


def started(model_dir: str, make_drafter: MakeDrafter = NgramDrafter, **settings: Any) -> Engine:
    """An engine with these settings; every page of its cache has been written."""
    with tempfile.TemporaryDirectory(prefix="bench-") as runtime_dir:
        engine = start(
            Settings(
                model_id=model_dir,
                model_dir=model_dir,
                runtime_dir=runtime_dir,
                max_total_tokens=STEP_TOKENS,
                max_batch_prefill_tokens=STEP_TOKENS,
                disable_grammar_support=True,  # nothing asks for one
                **settings,
            ),
            make_drafter=make_drafter,
        )
    for layer in engine.cache.layers:
        if layer.dtype.itemsize > 1:
            layer.normal_()
    return engine


def step_ms(scheduler: InstantScheduler, streams: int, context: int) -> float:
    """The median decode step of so many sequences of so many tokens, in milliseconds."""
    prompts = [[(7 * s + i) % 1000 + 3 for i in range(context)] for s in range(streams)]
    record = scheduler.run(prompts, streams, STEPS, cached=True)
    return round(1e3 * statistics.median(record.decode_s), 3)


def steps(model_dir: str, threads: int, **settings: Any) -> dict[str, Any]:
    """Decode steps over streams and contexts, and the bytes of a token's keys and values."""
    engine = ready_engine(model_dir, threads, **settings)
    scheduler = InstantScheduler(engine)
    cache_bytes = sum(layer.nbytes for layer in engine.cache.layers)
    kv_bytes = cache_bytes // (engine.blocks * BLOCK_TOKENS)
    table = {
        str(streams): {str(context): step_ms(scheduler, streams, context) for context in CONTEXTS}
        for streams in STREAMS
    }
    return {"step_ms": table, "kv_bytes_per_token": kv_bytes, "dtype": engine.dtype}


def driver(model_dir: str, threads: int, **settings: Any) -> tuple[str, Run]:
    """What ``exchange.serve`` asks for."""
    tokenizer: Any = Tokenizer.from_file(str(Path(model_dir) / "tokenizer.json"))
    engine = ready_engine(model_dir, threads, **settings)
    scheduler = InstantScheduler(engine)
    max_stall_s = OPTIONS["max_stall_ms"].default / 1e3  # as in the server beside

    def run(prompts: list[str], streams: int, new_tokens: list[int]) -> dict[str, Any]:
        ids = [encoded.ids for encoded in tokenizer.encode_batch(prompts)]
        began = time.perf_counter()
        record = scheduler.run(ids, streams, new_tokens, max_stall_s=max_stall_s)
        # No first_s: prompts are always computed whole here, which is no figure of a prefix cache.
        wall_s = time.perf_counter() - began
        return {"wall_s": wall_s, "tokens": record.tokens, "gaps_s": record.gaps_s}

    return f"Millrace's engine, {engine.dtype}, {threads} threads", run


def main() -> None:
    """Read the flags; serve, or print the table."""
    parser = argparse.ArgumentParser(description="decode steps without the pipeline")
    parser.add_argument("model_dir")
    parser.add_argument("--worker-threads", type=int, default=len(os.sched_getaffinity(0)))
    parser.add_argument("--dtype", default="auto", help="as the server has it")
    parser.add_argument("--kv-cache-dtype", default="auto", help="likewise")
    how = parser.add_mutually_exclusive_group()
    how.add_argument("--json", action="store_true")
    how.add_argument("--serve", action="store_true")
    options = parser.parse_args()
    logging.basicConfig(level=logging.INFO, format="%(message)s")  # which kernels; standard error
    types = {"dtype": options.dtype, "kv_cache_dtype": options.kv_cache_dtype}
    if options.serve:
        serve(lambda: driver(options.model_dir, options.worker_threads, **types))
        return
    found = steps(options.model_dir, options.worker_threads, **types)
    if options.json:
        print(json.dumps(found))
        return
    print(f"{found['dtype']}, {options.worker_threads} threads; median decode step in ms")
    print("| streams | " + " | ".join(f"context {context:,}" for context in CONTEXTS) + " |")
    print("|---" * (1 + len(CONTEXTS)) + "|")
    for streams, row in found["step_ms"].items():
        print(f"| {streams} | " + " | ".join(f"{ms:.1f}" for ms in row.values()) + " |")


if __name__ == "__main__":
    main()
