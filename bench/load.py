"""The same work for every server that is compared: words in, so many tokens out, closed loop.

usage: python -m bench.load --url http://127.0.0.1:8080 -c 8 -n 32 [--api tgi|openai]

The load generator is ``launcher/bench``, as in ``millrace bench``. Here prompts are counted in
words, answers are greedy, and one JSON line has the figures that the tables of this directory show.
"""

import argparse
import json
import random
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any

from launcher.bench import client, figures, generator
from launcher.bench.protocols import PROTOCOLS, Asking
from launcher.bench.scenarios import WORDS
from launcher.bench.scenarios import Work as Request
from launcher.commands.own_flags import positive, whole

APIS = {"tgi": "tgi", "openai": "completions"}
"""By their names here: protocols of the load generator."""
LIMIT_S = 600.0
"""After which a request has failed."""


@dataclass(frozen=True, slots=True)
class Work:
    """What is asked for: every prompt once, so many streams at a time."""

    prompts: list[str]
    streams: int
    new_tokens: list[int]
    """By prompt; the text's own end does not end it sooner where the API allows that."""


@dataclass(frozen=True, slots=True)
class Target:
    """Whom to ask."""

    url: str
    api: str = "openai"
    model: str = "tgi"
    ignores_eos: bool = True
    """Whether it knows ``ignore_eos``; some servers refuse what they do not know."""


def random_prompts(number: int, words: int, *, seed: int, shared_words: int = 0) -> list[str]:
    """So many prompts of random words; the first ``shared_words`` are the same in all of them."""
    rng = random.Random(seed)
    shared = rng.choices(WORDS, k=shared_words)
    return [" ".join([*shared, *rng.choices(WORDS, k=words)]) for _ in range(number)]


def client_of(target: Target, on_piece: Callable[[], None] = lambda: None) -> client.Client:
    """Sends requests to it; ``on_piece`` is called at every event that carries a token."""
    return client.Client(
        client.Target(target.url, timeout_s=LIMIT_S),
        PROTOCOLS[APIS[target.api]],
        Asking(target.model, target.ignores_eos),
        on_piece=on_piece,
    )


def summary(
    wall_s: float, tokens: int, first_s: Sequence[float], gaps_s: Sequence[float]
) -> dict[str, float]:
    """The figures of a load from what its requests saw; 0 for what nothing is known of."""
    first = figures.summary("ttft", [1e3 * value for value in first_s])
    gaps = figures.summary("itl", [1e3 * value for value in gaps_s])
    return {
        "wall_s": round(wall_s, 3),
        "tok_s": round(tokens / wall_s, 1),
        "ttft_ms_p50": round(first["median_ttft_ms"], 2),
        "ttft_ms_p99": round(first["p99_ttft_ms"], 2),
        "itl_ms_p50": round(gaps["median_itl_ms"], 2),
        "itl_ms_p99": round(gaps["p99_itl_ms"], 2),
        "itl_ms_mean": round(gaps["mean_itl_ms"], 2),
        "tokens": tokens,
    }


def run(target: Target, work: Work) -> dict[str, Any]:
    """The whole load; the figures, and the two most frequent reasons of failures."""
    asked = zip(work.prompts, work.new_tokens, strict=True)
    requests = [Request((prompt,), tokens) for prompt, tokens in asked]
    done = generator.run(generator.Closed(work.streams), requests, client_of(target).send)
    good = figures.good(done.outcomes)
    return {
        "ok": len(good),
        "fail": len(done.outcomes) - len(good),
        **summary(
            done.wall_s,
            sum(outcome.output_tokens for outcome in good),
            [outcome.first_s for outcome in good],
            [gap for outcome in good for gap in outcome.gaps_s],
        ),
        "failures": [reason for reason, _ in figures.failures(done.outcomes)[:2]],
    }


def main() -> None:
    """Read the flags, run, print."""
    parser = argparse.ArgumentParser(description="closed-loop load on a server's streams")
    parser.add_argument("--url", default="http://127.0.0.1:8080")
    parser.add_argument("--api", choices=list(APIS), default="tgi")
    parser.add_argument("--model", default="tgi")
    parser.add_argument("-c", "--concurrency", type=positive, default=8)
    parser.add_argument("-n", "--num", type=positive, default=32)
    parser.add_argument("--prompt-words", type=positive, default=64)
    parser.add_argument("--max-tokens", type=positive, default=64)
    parser.add_argument("--shared-prefix", type=whole, default=0, help="words that all share")
    parser.add_argument("--warmup", type=whole, default=2, help="requests before, not counted")
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
    tokens = options.max_tokens
    if before:
        run(target, Work(before, len(before), [tokens] * len(before)))
    print(json.dumps(run(target, Work(counted, options.concurrency, [tokens] * len(counted)))))


if __name__ == "__main__":
    main()
