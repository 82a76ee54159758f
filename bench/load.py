"""Closed-loop load on a server's streams, the same work for every server measured.

usage: python -m bench.load --url http://127.0.0.1:8080 -c 8 -n 32 [--api tgi|openai]

Random-word prompts, a fixed number of new tokens, greedy. Prints one JSON line of figures. Knows
servers by their URL alone, not how they are started.
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


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked for: every prompt once, so many streams at a time."""

    prompts: list[str]
    streams: int
    max_tokens: int
    """New tokens of each; the text's own end does not end it sooner where the API allows that."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask."""

    url: str
    api: str = "openai"
    model: str = "tgi"
    ignores_eos: bool = True
    """Whether it knows ``ignore_eos``; some servers refuse what they do not know."""


@dataclass
class Outcome:
    """What one request saw; seconds."""

    first_s: float = 0.0
    total_s: float = 0.0
    tokens: int = 0
    gaps_s: list[float] = field(default_factory=list)
    failure: str = ""


def random_prompts(number: int, words: int, *, seed: int, shared_words: int = 0) -> list[str]:
    """So many prompts of random words; the first ``shared_words`` are the same in all of them."""
    rng = random.Random(seed)
    shared = rng.choices(WORDS, k=shared_words)
    return [" ".join([*shared, *rng.choices(WORDS, k=words)]) for _ in range(number)]


def body_of(target: Target, prompt: str, max_tokens: int) -> tuple[str, dict[str, Any]]:
    """The path and the body of a request."""
    if target.api == "tgi":
        return "/generate_stream", {
            "inputs": prompt,
            "parameters": {"max_new_tokens": max_tokens},
        }
    body = {
        "model": target.model,
        "prompt": prompt,
        "max_tokens": max_tokens,
        "temperature": 0.0,
        "stream": True,
        "stream_options": {"include_usage": True},
    }
    if target.ignores_eos:
        body["ignore_eos"] = True
    return "/v1/completions", body


async def one(
    session: aiohttp.ClientSession, target: Target, prompt: str, max_tokens: int
) -> Outcome:
    """One streamed request. Failures are counted with their text."""
    outcome = Outcome()
    path, body = body_of(target, prompt, max_tokens)
    began = last = time.perf_counter()
    try:
        async with session.post(target.url + path, json=body) as answer:
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
                if target.api == "openai" and not event.get("choices"):
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


def summary(
    wall_s: float, tokens: int, first_s: list[float], gaps_s: list[float]
) -> dict[str, float]:
    """The figures of a load from what its requests saw."""
    return {
        "wall_s": round(wall_s, 3),
        "tok_s": round(tokens / wall_s, 1),
        "ttft_ms_p50": quantile_ms(first_s, 0.5),
        "ttft_ms_p99": quantile_ms(first_s, 0.99),
        "itl_ms_p50": quantile_ms(gaps_s, 0.5),
        "itl_ms_p99": quantile_ms(gaps_s, 0.99),
        "itl_ms_mean": round(1e3 * statistics.fmean(gaps_s), 2) if gaps_s else 0.0,
        "tokens": tokens,
    }


async def run(target: Target, work: Work) -> dict[str, Any]:
    """The whole load; the figures."""
    waiting = iter(work.prompts)
    outcomes: list[Outcome] = []
    timeout = aiohttp.ClientTimeout(total=LIMIT_S)
    connector = aiohttp.TCPConnector(limit=0, force_close=True)
    async with aiohttp.ClientSession(timeout=timeout, connector=connector) as session:

        async def client() -> None:
            for prompt in waiting:
                outcomes.append(await one(session, target, prompt, work.max_tokens))

        began = time.perf_counter()
        await asyncio.gather(*[client() for _ in range(work.streams)])
        wall_s = time.perf_counter() - began
    good = [outcome for outcome in outcomes if not outcome.failure]
    return {
        "ok": len(good),
        "fail": len(outcomes) - len(good),
        **summary(
            wall_s,
            sum(outcome.tokens for outcome in good),
            [outcome.first_s for outcome in good],
            [gap for outcome in good for gap in outcome.gaps_s],
        ),
        "failures": [outcome.failure for outcome in outcomes if outcome.failure][:2],
    }


def main() -> None:
    """Read the flags, run, print."""
    parser = argparse.ArgumentParser(description="closed-loop load on a server's streams")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--api", choices=["tgi", "openai"], default="tgi")
    parser.add_argument("--model", default="tgi")
    parser.add_argument("-c", "--concurrency", type=int, default=8)
    parser.add_argument("-n", "--num", type=int, default=32)
    parser.add_argument("--prompt-words", type=int, default=64)
    parser.add_argument("--max-tokens", type=int, default=64)
    parser.add_argument("--shared-prefix", type=int, default=0, help="words that all prompts share")
    parser.add_argument("--warmup", type=int, default=2, help="requests before, not counted")
    parser.add_argument("--seed", type=int, default=0)
    options = parser.parse_args()
    prompts = random_prompts(
        options.warmup + options.num,
        options.prompt_words,
        seed=options.seed,
        shared_words=options.shared_prefix,
    )
    target = Target(options.url, options.api, options.model)
    before, counted = prompts[: options.warmup], prompts[options.warmup :]
    if before:
        asyncio.run(run(target, Work(before, len(before), options.max_tokens)))
    print(
        json.dumps(asyncio.run(run(target, Work(counted, options.concurrency, options.max_tokens))))
    )


if __name__ == "__main__":
    main()
