"""What everything around the model costs: ``python -m bench.pipeline``.

Starts a scheduler, front ends and a fake worker that answers at once, streams over real HTTP, and
prints tokens per second and microseconds of processor time per token of each process.

The loads: *at once* (the worker never waits, the front end falls behind and writes several tokens
together), *paced* (a step every so often, so that every token is an event and a packet of its own,
as with a model that keeps up), the same through ``/v1/chat/completions``, and *one* stream, whose
cost is that of a step. Then what a step costs the scheduler, over running and waiting sequences.
The client does the same work whatever the server does: where the machine is shared, compare the
ratio of the others to it.
"""

import argparse
import json
import os
import statistics
import time
from pathlib import Path
from typing import Any

from bench.fake_worker import token_at
from bench.processes import Pipeline, cpu_s
from bench.stream_client import BrokenAnswerError, Client, Load, request_bytes, unchunked
from tests.scheduler import step_cost

RESULTS = Path(__file__).resolve().parent / "results"
BLOCKS = 60_000
WARMUP_S = 2.0
OPENAI = {"chat": "/v1/chat/completions", "completions": "/v1/completions"}
PROMPT = "The quick brown fox jumps over the lazy dog, and then it does it again: "


def request(api: str, number: int, tokens: int) -> bytes:
    """The n-th request."""
    prompt = f"{PROMPT}{number}"
    if api in OPENAI:
        asked = (
            {"messages": [{"role": "user", "content": prompt}]}
            if api == "chat"
            else {"prompt": prompt}
        )
        wanted = {"max_tokens": tokens, "temperature": 0, "stream": True, "model": "tgi"}
        return request_bytes(OPENAI[api], {**asked, **wanted})
    return request_bytes(
        "/generate_stream", {"inputs": prompt, "parameters": {"max_new_tokens": tokens}}
    )


def check(load: Load, api: str, tokens: int) -> None:
    """Whether the kept answers are what the worker made, token by token."""
    for answer in load.kept:
        events = [
            json.loads(part[6:])
            for part in unchunked(answer).split(b"\n\n")
            if part.startswith(b"data: {")
        ]
        if api == "native":
            wanted = [(n + 1, token_at(n)) for n in range(tokens)]
            if [(event["index"], event["token"]["id"]) for event in events] != wanted:
                raise BrokenAnswerError("tokens were lost, repeated or reordered")
        elif events[-1]["choices"][0]["finish_reason"] != "length":
            raise BrokenAnswerError("an answer did not end by its length")


def measure(
    pipeline: Pipeline,
    *,
    api: str,
    streams: int,
    tokens: int,
    seconds: float,
    warmup_s: float = WARMUP_S,
) -> dict[str, Any]:
    """One load on a running pipeline."""
    client = Client(pipeline.port, streams, lambda number: request(api, number, tokens))
    if warmup_s:
        client.run(events=tokens, seconds=warmup_s)
        client.load = Load()
    pids = {**pipeline.pids(), "client": os.getpid()}
    before = {name: cpu_s(pid) for name, pid in pids.items()}
    began = time.monotonic()
    load = client.run(events=tokens, seconds=seconds)
    wall_s = time.monotonic() - began
    spent = {name: cpu_s(pid) - before[name] for name, pid in pids.items()}
    client.close()
    check(load, api, tokens)
    return {
        "api": api,
        "streams": streams,
        "tokens_per_answer": tokens,
        "requests": load.requests,
        "tok_s": round(load.events / wall_s),
        "events_per_read": round(load.events / load.reads, 2),
        "ttft_ms_p50": round(1e3 * statistics.median(load.first_s), 1),
        "us_per_token": {name: round(1e6 * s / load.events, 1) for name, s in spent.items()},
        "cores": {name: round(s / wall_s, 2) for name, s in spent.items()},
    }


def row(name: str, found: dict[str, Any]) -> str:
    """One line of the table."""
    costs = found["us_per_token"]
    front = sum(value for key, value in costs.items() if key.startswith("front end"))
    busy = max(value for key, value in found["cores"].items() if key.startswith("front end"))
    return (
        f"| {name} | {found['tok_s']:,} | {front:.1f} ({busy:.0%}) | {costs['scheduler']:.1f} | "
        f"{costs['worker']:.1f} | {costs['client']:.1f} | {found['events_per_read']:.2f} | "
        f"{found['ttft_ms_p50']:.0f} |"
    )


HEAD = (
    "| load | tok/s | front end, µs/token (busy) | scheduler | worker | client | events/read | "
    "TTFT p50, ms |\n|---|---|---|---|---|---|---|---|"
)


def main() -> None:
    """Read the flags, measure, print, keep."""
    parser = argparse.ArgumentParser(description="what everything around the model costs")
    parser.add_argument("--frontends", type=int, default=1)
    parser.add_argument("--streams", type=int, default=256)
    parser.add_argument("--tokens", type=int, default=256, help="of each answer")
    parser.add_argument("--seconds", type=float, default=8.0, help="of each load")
    parser.add_argument("--only", default="", help="at-once, paced, chat, one or steps")
    parser.add_argument("--keep", action="store_true", help="write bench/results/pipeline-….json")
    options = parser.parse_args()
    streams = options.streams
    loads = {
        "at-once": ("native", 0.0, streams),
        "paced": ("native", 25.0, max(1, streams // 2)),
        "chat": ("chat", 25.0, max(1, streams // 2)),
        "one": ("native", 8.0, 1),
    }
    print(HEAD)
    results: dict[str, Any] = {}
    for name, (api, step_ms, count) in loads.items():
        if options.only not in ("", name):
            continue
        with Pipeline(frontends=options.frontends, step_ms=step_ms, blocks=BLOCKS) as pipeline:
            results[name] = measure(
                pipeline, api=api, streams=count, tokens=options.tokens, seconds=options.seconds
            )
        what = f"{name}, {count} streams" + (f", {step_ms:g} ms a step" if step_ms else "")
        print(row(what, results[name]), flush=True)
    if options.only in ("", "steps"):
        results["steps"] = [cost._asdict() for cost in step_cost.table()]
    if options.keep:
        kept = RESULTS / f"pipeline-{time.strftime('%Y-%m-%d-%H%M')}.json"
        kept.write_text(json.dumps(results, indent=1) + "\n")


if __name__ == "__main__":
    main()
