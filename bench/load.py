"""Closed-loop load on a server's streams, the same work for every server measured.

usage: python -m bench.load --url http://127.0.0.1:8080 -c 8 -n 32 [--api tgi|openai]

Random-word prompts, a fixed number of new tokens, greedy. Prints one JSON line of figures.
"""

import argparse
import asyncio
import json
import random
import statistics
import time
from dataclasses import dataclass, field
from typing import Any

import aiohttp

WORDS = (
    *("import", "self", "return", "value", "class", "model", "token", "queue", "batch", "stream"),
    *("worker", "request", "server", "python", "code", "data", "list", "dict", "set", "name"),
)
LIMIT_S = 600


@dataclass
class Outcome:
    """What one request saw; seconds."""

    first_s: float = 0.0
    total_s: float = 0.0
    tokens: int = 0
    gaps_s: list[float] = field(default_factory=list)
    failure: str = ""


def body_of(options: argparse.Namespace, prompt: str) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request."""
    if options.api == "tgi":
        return "/generate_stream", {
            "inputs": prompt,
            "parameters": {"max_new_tokens": options.max_tokens},
        }
    return "/v1/completions", {
        "model": options.model,
        "prompt": prompt,
        "max_tokens": options.max_tokens,
        "temperature": 0.0,
        "stream": True,
        "ignore_eos": True,
        "stream_options": {"include_usage": True},
    }


async def one(session: aiohttp.ClientSession, options: argparse.Namespace, prompt: str) -> Outcome:
    """One streamed request. Failures are counted with their text."""
    outcome = Outcome()
    path, body = body_of(options, prompt)
    began = last = time.perf_counter()
    try:
        async with session.post(options.url + path, json=body) as answer:
            if answer.status != 200:
                outcome.failure = f"{answer.status} {(await answer.text())[:200]}"
                return outcome
            async for line in answer.content:
                if not line.startswith(b"data:") or line[5:].strip() == b"[DONE]":
                    continue
                event = json.loads(line[5:])
                if "error" in event:
                    outcome.failure = str(event)[:200]
                    return outcome
                if event.get("usage"):
                    outcome.tokens = event["usage"]["completion_tokens"]
                if options.api == "openai" and not event.get("choices"):
                    continue
                now = time.perf_counter()
                if outcome.first_s:
                    outcome.gaps_s.append(now - last)
                else:
                    outcome.first_s = now - began
                last = now
    except (aiohttp.ClientError, TimeoutError) as error:
        outcome.failure = repr(error)[:200]
    outcome.total_s = last - began
    outcome.tokens = outcome.tokens or len(outcome.gaps_s) + 1
    return outcome


def quantile_ms(values: list[float], quantile: float) -> float:
    """A quantile of seconds, in milliseconds."""
    ordered = sorted(values)
    if not ordered:
        return 0.0
    return round(1e3 * ordered[min(len(ordered) - 1, int(quantile * len(ordered)))], 2)


async def run(options: argparse.Namespace) -> dict[str, Any]:
    """The whole load; the figures."""
    rng = random.Random(options.seed)
    shared = " ".join(WORDS[i % len(WORDS)] for i in range(options.shared_prefix))
    prompts = [
        " ".join([shared, *rng.choices(WORDS, k=options.prompt_words)]).strip()
        for _ in range(options.warmup + options.num)
    ]
    waiting = iter(prompts[options.warmup :])
    outcomes: list[Outcome] = []
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:
        await asyncio.gather(*[one(session, options, p) for p in prompts[: options.warmup]])

        async def client() -> None:
            for prompt in waiting:
                outcomes.append(await one(session, options, prompt))

        began = time.perf_counter()
        await asyncio.gather(*[client() for _ in range(options.concurrency)])
        wall_s = time.perf_counter() - began
    good = [outcome for outcome in outcomes if not outcome.failure]
    gaps = [gap for outcome in good for gap in outcome.gaps_s]
    first = [outcome.first_s for outcome in good]
    tokens = sum(outcome.tokens for outcome in good)
    return {
        "ok": len(good),
        "fail": len(outcomes) - len(good),
        "wall_s": round(wall_s, 2),
        "tok_s": round(tokens / wall_s, 1),
        "ttft_ms_p50": quantile_ms(first, 0.5),
        "ttft_ms_p99": quantile_ms(first, 0.99),
        "itl_ms_p50": quantile_ms(gaps, 0.5),
        "itl_ms_p99": quantile_ms(gaps, 0.99),
        "itl_ms_mean": round(1e3 * statistics.fmean(gaps), 2) if gaps else 0.0,
        "tokens": tokens,
        "failures": [outcome.failure for outcome in outcomes if outcome.failure][:2],
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
    print(json.dumps(asyncio.run(run(read_arguments()))))


if __name__ == "__main__":
    main()
