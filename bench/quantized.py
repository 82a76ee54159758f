"""One model with weights of several kinds, in turns: steps, prompts, and what weights take.

usage: python -m bench.quantized MODEL_DIR [--quantize none,eetq,…] [--rounds 5] [--streams 1,8,32]
                                 [--worker-threads 2] [--context 64]

All engines live side by side in one process and take turns, round after round, so that whatever
slows the machine slows all of them: the ratios are what counts. A floor is what reading all
matrices once would take, as fast as memory was read in the same minute.
"""

import argparse
import os
import statistics
import time
from dataclasses import dataclass, field

import torch

from bench.engine import InstantScheduler, started, step_ms
from bench.machine import read_gb_s
from common.messages import BLOCK_TOKENS
from launcher.commands.serve import kernel_cache
from worker.engine import Engine
from worker.layers.layer import Layer
from worker.layers.linear import matrices

PROMPT_TOKENS = 1000
PROMPTS = 2
ARRAY_BYTES = 1 << 29


@dataclass
class Contender:
    """An engine with weights of one kind, and its figures, round by round."""

    name: str
    engine: Engine
    scheduler: InstantScheduler
    steps_ms: dict[int, list[float]] = field(default_factory=dict)
    prompt_tokens_s: list[float] = field(default_factory=list)

    @property
    def weights_bytes(self) -> int:
        """Of all matrices that a step reads."""
        model = self.engine.model
        assert isinstance(model, Layer)  # native: no other has weights in codes
        return sum(matrix.weight_bytes for matrix in matrices(model))


def contender(model_dir: str, name: str, threads: int, tokens: int) -> Contender:
    """``none``: weights as they are."""
    engine = started(
        model_dir,
        kernel_cache=kernel_cache(os.environ),
        worker_threads=threads,
        max_batch_total_tokens=tokens,
        quantize=None if name == "none" else name,
    )
    return Contender(name, engine, InstantScheduler(engine))


def prompts_per_s(scheduler: InstantScheduler, seed: int) -> float:
    """Prompt tokens a second, of prompts that are read together."""
    ids = [
        [(7 * i + 31 * (seed + p)) % 1000 + 3 for i in range(PROMPT_TOKENS)] for p in range(PROMPTS)
    ]
    began = time.perf_counter()
    scheduler.run(ids, PROMPTS, 1)
    return PROMPTS * PROMPT_TOKENS / (time.perf_counter() - began)


def measure(contenders: list[Contender], streams: list[int], context: int, rounds: int) -> None:
    """Everybody's turn, round after round; the first round is not counted."""
    for turn in range(rounds + 1):
        for one in contenders:
            for count in streams:
                ms = step_ms(one.scheduler, count, context)
                if turn:
                    one.steps_ms.setdefault(count, []).append(ms)
            speed = prompts_per_s(one.scheduler, turn)
            if turn:
                one.prompt_tokens_s.append(speed)


def table(contenders: list[Contender], streams: list[int], read: float) -> list[str]:
    """Medians; ratios are to the first of the same round."""
    first = contenders[0]
    titles = [f"step, {count} stream{'s' * (count > 1)} (ms)" for count in streams]
    lines = [f"| weights | MiB | floor (ms) | {' | '.join(titles)} | prompts (tokens/s) |"]
    lines.append("|---" * (len(streams) + 4) + "|")
    for one in contenders:
        cells = [
            one.name,
            f"{one.weights_bytes / 2**20:.0f}",
            f"{one.weights_bytes / read / 1e6:.1f}",
        ]
        for count in streams:
            pairs = zip(first.steps_ms[count], one.steps_ms[count], strict=True)
            ratio = statistics.median(base / own for base, own in pairs)
            cells.append(f"{statistics.median(one.steps_ms[count]):.2f} ({ratio:.2f}x)")
        pairs = zip(first.prompt_tokens_s, one.prompt_tokens_s, strict=True)
        ratio = statistics.median(own / base for base, own in pairs)
        cells.append(f"{statistics.median(one.prompt_tokens_s):.0f} ({ratio:.2f}x)")
        lines.append(f"| {' | '.join(cells)} |")
    return lines


def main() -> None:
    """Read the flags, measure, print."""
    parser = argparse.ArgumentParser(description="one model with weights of several kinds")
    parser.add_argument("model_dir")
    parser.add_argument("--quantize", default="none,eetq,bitsandbytes,fp8,bitsandbytes-nf4")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--streams", default="1,8,32")
    parser.add_argument("--context", type=int, default=64)
    parser.add_argument("--worker-threads", type=int, default=len(os.sched_getaffinity(0)))
    options = parser.parse_args()
    threads, streams = options.worker_threads, [int(n) for n in options.streams.split(",")]
    torch.set_num_threads(threads)
    torch.set_num_interop_threads(1)
    tokens = max(max(streams) * (options.context + 64), PROMPTS * (PROMPT_TOKENS + BLOCK_TOKENS))
    tokens = max(tokens, 4096)
    contenders = [
        contender(options.model_dir, name, threads, tokens) for name in options.quantize.split(",")
    ]
    read = read_gb_s(torch.ones(ARRAY_BYTES // 8, dtype=torch.int64), threads)
    measure(contenders, streams, options.context, options.rounds)
    print(f"{contenders[0].engine.dtype}, {threads} threads, memory read at {read} GB/s")
    print("\n".join(table(contenders, streams, read)))


if __name__ == "__main__":
    main()
