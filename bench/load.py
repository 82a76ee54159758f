"""The same work for every server that is compared: words in, so many tokens out, closed loop.

usage: python -m bench.load --url http://127.0.0.1:8080 -c 8 -n 32 [--api tgi|openai]

The load generator is ``launcher/bench``, as in ``millrace bench``; here prompts are counted in
words, greedy, and one JSON line of the figures that the tables of this directory show is printed.
"""

import argparse
import json
import random
from typing import Any

from launcher.bench.client import Client, Target
from launcher.bench.figures import figures
from launcher.bench.generator import Closed
from launcher.bench.generator import run as generate
from launcher.bench.protocols import PROTOCOLS, Asking
from launcher.bench.scenarios import WORDS, Work

_PROTOCOLS = {"tgi": "tgi", "openai": "completions"}


def works(options: argparse.Namespace) -> list[Work]:
    """The prompts, those of the warm-up first."""
    rng = random.Random(options.seed)
    shared = " ".join(WORDS[i % len(WORDS)] for i in range(options.shared_prefix))
    prompts = [
        " ".join([shared, *rng.choices(WORDS, k=options.prompt_words)]).strip()
        for _ in range(options.warmup + options.num)
    ]
    return [Work((prompt,), options.max_tokens) for prompt in prompts]


def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole load; the figures."""
    protocol = PROTOCOLS[_PROTOCOLS[options.api]]
    client = Client(Target(options.url), protocol, Asking(options.model))
    prompts = works(options)
    generate(Closed(max(1, options.warmup)), prompts[: options.warmup], client.send)
    found = figures(generate(Closed(options.concurrency), prompts[options.warmup :], client.send))
    return {
        "ok": found["completed"],
        "fail": found["failed"],
        "wall_s": round(found["duration"], 2),
        "tok_s": round(found["output_throughput"], 1),
        "ttft_ms_p50": round(found["median_ttft_ms"], 2),
        "ttft_ms_p99": round(found["p99_ttft_ms"], 2),
        "itl_ms_p50": round(found["median_itl_ms"], 2),
        "itl_ms_p99": round(found["p99_itl_ms"], 2),
        "itl_ms_mean": round(found["mean_itl_ms"], 2),
        "tokens": found["total_output_tokens"],
        "failures": list(found["failures"])[:2],
    }


def read_arguments(arguments: list[str] | None = None) -> argparse.Namespace:
    """The options, from these arguments or from the command line."""
    parser = argparse.ArgumentParser(description="closed-loop load on a server's streams")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--api", choices=["tgi", "openai"], default="tgi")
    parser.add_argument("--model", default="tgi")
    parser.add_argument("-c", "--concurrency", type=int, default=8)
    parser.add_argument("-n", "--num", type=int, default=32)
    parser.add_argument("--prompt-words", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--shared-prefix", type=int, default=0, help="words that all prompts share")
    parser.add_argument("--warmup", type=int, default=2)
    parser.add_argument("--seed", type=int, default=0)
    return parser.parse_args(arguments)


def main() -> None:
    """Read the flags, run, print."""
    print(json.dumps(run(read_arguments())))


if __name__ == "__main__":
    main()
