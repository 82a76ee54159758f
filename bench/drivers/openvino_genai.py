"""OpenVINO GenAI's continuous batching under load, as a library.

usage: python -m bench.drivers.openvino_genai MODEL_DIR bf16|f32

Runs in the peer's interpreter; see ``exchange``. The pipeline's defaults stay as they are but
for what it computes in, the size of its cache and batches, and prefix caching (on).
"""

import sys
import time
from itertools import count
from typing import Any

import openvino_genai

from bench.drivers.exchange import Run, serve

CACHE_GB = 2
MOST_STREAMS = 64


def load() -> tuple[str, Run]:
    """The pipeline, and how to run it."""
    scheduler: Any = openvino_genai.SchedulerConfig()
    scheduler.cache_size = CACHE_GB
    scheduler.max_num_seqs = MOST_STREAMS
    scheduler.enable_prefix_caching = True
    pipeline: Any = openvino_genai.ContinuousBatchingPipeline(
        sys.argv[1], scheduler, "CPU", {"INFERENCE_PRECISION_HINT": sys.argv[2]}
    )
    numbers = count()

    def greedy(tokens: int) -> Any:
        wanted: Any = openvino_genai.GenerationConfig()
        wanted.max_new_tokens = tokens
        wanted.ignore_eos = True
        wanted.do_sample = False
        return wanted

    def run(prompts: list[str], streams: int, new_tokens: list[int]) -> dict[str, Any]:
        waiting = zip(prompts, new_tokens, strict=True)
        running: dict[int, Any] = {}
        asked: dict[int, float] = {}
        first_s: list[float] = []
        gaps_s: list[float] = []
        last: dict[int, float] = {}
        tokens = 0
        began = time.perf_counter()
        while True:
            while len(running) < streams:
                asking = next(waiting, None)
                if asking is None:
                    break
                number = next(numbers)
                asked[number] = time.perf_counter()
                running[number] = pipeline.add_request(number, asking[0], greedy(asking[1]))
            if not running:
                break
            pipeline.step()
            now = time.perf_counter()
            for number, handle in list(running.items()):
                while handle.can_read():
                    for output in handle.read().values():
                        tokens += len(output.generated_ids)
                    if number in last:
                        gaps_s.append(now - last[number])
                    else:
                        first_s.append(now - asked[number])
                    last[number] = now
                if handle.get_status() != openvino_genai.GenerationStatus.RUNNING:
                    del running[number]
        wall_s = time.perf_counter() - began
        return {"wall_s": wall_s, "tokens": tokens, "first_s": first_s, "gaps_s": gaps_s}

    return f"openvino-genai {openvino_genai.__version__}", run


if __name__ == "__main__":
    serve(load)
