"""The load over HTTP, from as many processes as it takes: one would be slower than the server.

usage: python -m bench.gpu.load      one JSON order on standard input, one JSON answer

Each process has its share of the streams. All read the same clock, so that the whole lasts from the
first one's beginning to the last one's end.
"""

import json
import subprocess
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from bench import load
from bench.gpu.checkpoint import prompts_of
from launcher.bench import figures, generator
from launcher.bench.scenarios import Work as Request

ROOT = Path(__file__).resolve().parents[2]
PROMPT_TOKENS, NEW_TOKENS = 512, 256
STREAMS_EACH = 32
"""Of a process."""


def run(url: str, streams: int, prompts: Sequence[str], new_tokens: int) -> dict[str, Any]:
    """So many streams at a time over all prompts; the figures of ``bench.load.summary``."""
    count = -(-streams // STREAMS_EACH)
    clients = [
        subprocess.Popen(
            [sys.executable, "-m", "bench.gpu.load"],
            cwd=ROOT,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            text=True,
        )
        for _ in range(count)
    ]
    for number, client in enumerate(clients):
        own = len(range(number, streams, count))
        order = {"url": url, "prompts": prompts[number::count], "streams": own, "new": new_tokens}
        assert client.stdin is not None
        client.stdin.write(json.dumps(order))
        client.stdin.close()
    answers = []
    for client in clients:
        assert client.stdout is not None
        text = client.stdout.read()
        if client.wait() or not text:
            raise RuntimeError("a client of the load generator failed; its words are above")
        answers.append(json.loads(text))
    failures = [failure for answer in answers for failure in answer["failures"]]
    if failures:
        raise RuntimeError(f"{len(failures)} requests failed: {failures[0]}")
    return load.summary(
        max(answer["ended_s"] for answer in answers) - min(answer["began_s"] for answer in answers),
        sum(answer["tokens"] for answer in answers),
        [value for answer in answers for value in answer["first_s"]],
        [value for answer in answers for value in answer["gaps_s"]],
    )


def first_token_ms(url: str, tries: int) -> float:
    """Of a prompt, with nothing else to do: the median."""
    prompts = prompts_of(tries, PROMPT_TOKENS, seed=77)
    return float(run(url, 1, prompts, 1)["ttft_ms_p50"])


def main() -> None:
    """Do one order."""
    order = json.load(sys.stdin)
    requests = [Request((prompt,), order["new"]) for prompt in order["prompts"]]
    send = load.client_of(load.Target(order["url"])).send
    began_s = time.monotonic()
    done = generator.run(generator.Closed(order["streams"]), requests, send)
    ended_s = time.monotonic()
    good = figures.good(done.outcomes)
    answer = {
        "began_s": began_s,
        "ended_s": ended_s,
        "tokens": sum(outcome.output_tokens for outcome in good),
        "first_s": [outcome.first_s for outcome in good],
        "gaps_s": [gap for outcome in good for gap in outcome.gaps_s],
        "failures": [outcome.failure for outcome in done.outcomes if outcome.failure],
    }
    print(json.dumps(answer))


if __name__ == "__main__":
    main()
