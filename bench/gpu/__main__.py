"""``make gpu-bench``: what a GPU gives over HTTP, what its engine gives alone, what it could give.

usage: python -m bench.gpu [--shape 8b] [--streams 1 32 64 256] [--device cuda] [--keep DIR]
                           [--seconds S] [--results DIR] [--no-graphs]

Random weights of Llama 3.1 8B's shape, bfloat16, prompts of 512 tokens, 256 new ones, greedy,
streamed. First the engine in a process of its own, with ceilings and profiles, then the server.
Writes bench/results/<device>-<date>.json, anew after each measurement, and prints it as tables.
After S seconds nothing more is begun. ``--device cpu`` is a trial of all of it with a tiny model:
its figures mean nothing.
"""

import argparse
import json
import math
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import torch

from bench.gpu import checkpoint, load
from bench.gpu.pieces import Budget, Result
from bench.gpu.report import text_of
from bench.gpu.shapes import DEFAULT, SHAPES
from bench.peers.contenders import ContenderError, Server, Start

ROOT = Path(__file__).resolve().parents[2]
RESULTS = ROOT / "bench" / "results"
NO_GPU = (
    "no GPU that torch can use was found, so nothing is measured: run this on a machine with one;"
    " --device cpu tries all of it with a tiny model"
)
ROUNDS = 2
TRIES = 7
MOST_FRONTENDS = 8
ENGINE_SHARE = 0.5
"""Of the time, for the engine alone."""


def server_of(options: argparse.Namespace, model_dir: Path, log: Path) -> Server:
    """The whole server, as users start it."""
    device, streams = options.device, max(options.streams)
    frontends = max(1, min(MOST_FRONTENDS, len(os.sched_getaffinity(0)) // 2))
    flags = {
        "--model-id": str(model_dir),
        "--device": device,
        "--dtype": "bfloat16" if device == "cuda" else "auto",
        "--max-input-tokens": "2048",
        "--max-total-tokens": "4096",
        "--max-batch-size": str(streams),
        "--max-concurrent-requests": str(2 * streams),
        "--num-frontends": str(frontends),
        "--hostname": "127.0.0.1",
        "--prometheus-port": "0",
    }
    if options.no_graphs:
        flags["--cuda-graphs"] = "0"
    command = [sys.executable, "-m", "launcher", "--port", "{port}"]
    command += [word for pair in flags.items() for word in pair]
    return Server("the server", Start(tuple(command)), log)


def over_http(server: Server, streams: list[int], budget: Budget) -> Iterator[dict[str, Any]]:
    """The first token of an idle server, and all loads that there is time for."""
    url = server.target.url
    load.run(url, 1, checkpoint.prompts_of(2, load.PROMPT_TOKENS, seed=1), load.NEW_TOKENS)
    yield {"first_token_ms": load.first_token_ms(url, TRIES)}
    for count in streams:
        if budget.over:
            yield {"left_out": [f"{count} streams"]}
            continue
        prompts = checkpoint.prompts_of(ROUNDS * count, load.PROMPT_TOKENS, seed=100 + count)
        yield {"streams": {str(count): load.run(url, count, prompts, load.NEW_TOKENS)}}


def bare_engine(
    options: argparse.Namespace, model_dir: Path, budget: Budget
) -> Iterator[dict[str, Any]]:
    """``bench.gpu.engine``, in a process of its own. Raises CalledProcessError."""
    command = [sys.executable, "-m", "bench.gpu.engine", str(model_dir), options.shape]
    command += ["--device", options.device, "--streams", *map(str, options.streams)]
    if options.no_graphs:
        command.append("--no-graphs")
    if math.isfinite(budget.left_s):
        command += ["--seconds", str(budget.left_s)]
    with subprocess.Popen(command, cwd=ROOT, stdout=subprocess.PIPE, text=True) as run:
        assert run.stdout is not None
        try:
            for line in run.stdout:
                if line.startswith("{"):
                    yield json.loads(line)
                else:
                    sys.stderr.write(line)  # some library's: NCCL and profilers say theirs there
        except BaseException:  # an interrupt, too: the engine holds the whole GPU
            run.terminate()
            raise
    if run.returncode:
        raise subprocess.CalledProcessError(run.returncode, command)


def measure(options: argparse.Namespace, result: Result, model_dir: Path, log: Path) -> bool:
    """Everything that there is time for, into the result; whether the engine alone came to its end.

    If it did not, the server is measured all the same.
    """
    budget = Budget(options.seconds)
    began = time.monotonic()
    if not (model_dir / "tokenizer_config.json").exists():
        checkpoint.write(model_dir, options.shape)
    result.add({"checkpoint_s": round(time.monotonic() - began, 1)})
    # What the server gives matters as much as the engine: half of the time is its.
    own = Budget(budget.left_s * ENGINE_SHARE)
    whole = True
    try:
        for piece in bare_engine(options, model_dir, own):
            result.add({"engine": piece})
    except subprocess.CalledProcessError as error:
        print(f"the engine alone ended early: {error}", file=sys.stderr)
        result.add({"engine": {"left_out": ["what came after its process had failed"]}})
        whole = False
    if budget.over:
        result.add({"http": {"left_out": ["everything"]}})
        return whole
    with server_of(options, model_dir, log) as server:
        result.add({"server_start_s": server.start_s})
        for piece in over_http(server, options.streams, budget):
            result.add({"http": piece})
    return whole


def main() -> int:
    """Read the flags, measure, write, print."""
    parser = argparse.ArgumentParser(prog="bench.gpu", description="speed on a GPU")
    parser.add_argument("--device", choices=["cuda", "cpu"], default="cuda")
    parser.add_argument("--shape", choices=list(SHAPES))
    parser.add_argument("--streams", type=int, nargs="+")
    parser.add_argument("--keep", type=Path, help="where the checkpoint is kept, or is already")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where the figures go")
    parser.add_argument(
        "--seconds", type=float, default=math.inf, help="after so many, nothing more is begun"
    )
    parser.add_argument("--no-graphs", action="store_true", help="record no steps: what that costs")
    options = parser.parse_args()
    on_gpu = options.device == "cuda"
    if on_gpu and not torch.cuda.is_available():
        print(NO_GPU, file=sys.stderr)
        return 1
    options.shape = options.shape or (DEFAULT if on_gpu else "tiny")
    options.streams = options.streams or ([1, 32, 64, 256] if on_gpu else [1, 4])
    began = {
        "date": time.strftime("%Y-%m-%d"),
        "shape": options.shape,
        "prompt_tokens": load.PROMPT_TOKENS,
        "new_tokens": load.NEW_TOKENS,
        "graphs": not options.no_graphs,
    }
    result, failed = Result(options.results, began), False
    with tempfile.TemporaryDirectory(prefix="bench-gpu-") as place:
        log = Path(place) / "server.log"
        try:
            failed = not measure(options, result, options.keep or Path(place) / "model", log)
        except (ContenderError, RuntimeError, KeyboardInterrupt) as error:
            print(log.read_text()[-4000:] if log.exists() else "", file=sys.stderr)
            print(f"the measurement ended early: {error or 'interrupted'}", file=sys.stderr)
            failed = True
    if result.path is not None:
        print(text_of(result.found))
        print(f"written to {result.path}")
    return int(failed)


if __name__ == "__main__":
    sys.exit(main())
