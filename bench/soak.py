"""Many requests through the whole pipeline, and what every process holds meanwhile and at the end.

usage: python -m bench.soak [--requests 1000000] [--seconds 600]

A fake worker answers at once. Between rounds of short streamed answers over connections that stay
open, all connections are made anew and some clients leave in the middle of long answers. Prints
resident memory over time; fails if anything is left at the end: a sequence, a block, a descriptor,
a greenlet, or memory that still grows.
"""

import argparse
import json
import socket
import sys
import time
from functools import partial
from pathlib import Path
from typing import Any

from bench.pipeline import request
from bench.processes import Pipeline, open_files, rss_mb
from bench.stream_client import Client

STREAMS = 64
ROUND = 5_000
"""Requests between two looks."""
TOKENS = 3
LEAVERS = 8
BLOCKS = 20_000
SETTLE_S = 12.0
"""Until the last front-end note and heartbeat have come after the load."""
SHARE_WARM = 0.3
"""Of all requests: caches fill and heaps find their size until then."""
SHARES = (0.1, 0.3, 0.6, 1.0)
"""Of the load, after which memory is told at the end."""
MOST_GROWTH = 0.05
"""Of memory after that."""


def numbered(base: int, number: int) -> bytes:
    """A request that nobody has made before."""
    return request("native", base + number, TOKENS)


def leave_early(port: int, base: int) -> None:
    """Clients that ask for a long answer and are gone after its first bytes."""
    for number in range(base, base + LEAVERS):
        with socket.create_connection(("127.0.0.1", port)) as leaver:
            leaver.sendall(request("native", number, 1500))
            leaver.recv(1000)


def holds(pipeline: Pipeline) -> dict[str, dict[str, float]]:
    """What every process holds at the moment."""
    found: dict[str, dict[str, float]] = {}
    for name, pid in pipeline.pids().items():
        found[name] = {"rss_mb": round(rss_mb(pid), 1), "files": open_files(pid)}
        noted = Path(pipeline.runtime_dir / f"holds-{pid}")
        if noted.exists():
            found[name] |= json.loads(noted.read_text())
    return found


def settled(pipeline: Pipeline) -> dict[str, dict[str, float]]:
    """The same with nobody asking anything."""
    time.sleep(SETTLE_S)
    return holds(pipeline)


def left_over(pipeline: Pipeline) -> list[str]:
    """What the scheduler has not got back."""
    metrics = pipeline.metrics()
    wrong = [
        f"{name} is {metrics[name]:g}"
        for name in ("millrace_live_sequences", "tgi_batch_current_size", "tgi_queue_size")
        if metrics[name]
    ]
    blocks = {
        state: metrics[f'millrace_kv_blocks{{replica="0",state="{state}"}}']
        for state in ("free", "cached", "used")
    }
    print(f"blocks: {blocks}, of {BLOCKS - 1}")
    if blocks["used"] or sum(blocks.values()) != BLOCKS - 1:
        wrong.append(f"blocks are missing: {blocks}")
    if metrics["millrace_broken_leases_total"]:
        wrong.append("a check of the leases failed")
    return wrong


def grown(before: dict[str, Any], after: dict[str, Any]) -> list[str]:
    """Descriptors, greenlets and sequences that there were not before."""
    return [
        f"{name}: {what} went from {before[name][what]:g} to {after[name][what]:g}"
        for name in after
        for what in ("files", "greenlets", "sequences")
        if after[name].get(what, 0) > before[name].get(what, 0)
    ]


def load(
    pipeline: Pipeline, requests: int, seconds: float, before: int = 0
) -> list[tuple[int, dict[str, Any]]]:
    """Everything asked, in rounds; (requests so far, what was held) after each.

    None is like one of those made ``before``, whose prompts may be cached.
    """
    until = time.monotonic() + seconds
    asked = 0
    looks = []
    while asked < requests and time.monotonic() < until:
        client = Client(pipeline.port, STREAMS, partial(numbered, before + asked))
        client.run(events=TOKENS, requests=ROUND)
        client.close()
        leave_early(pipeline.port, before + asked + ROUND)
        asked += ROUND + LEAVERS
        looks.append((asked, holds(pipeline)))
        if len(looks) % 4 == 1:
            memory = {name: held["rss_mb"] for name, held in looks[-1][1].items()}
            print(f"{asked:>9,} requests, RSS in MB: {memory}", flush=True)
    return looks


def table(looks: list[tuple[int, dict[str, Any]]]) -> str:
    """Resident memory after shares of the load, in MB."""
    lines = []
    for share in SHARES:
        asked, held = looks[max(int(share * len(looks)) - 1, 0)]
        memory = {name: found["rss_mb"] for name, found in held.items()}
        lines.append(f"{share:>4.0%}: {asked:>9,} requests, RSS in MB: {memory}")
    return "\n".join(lines)


def main() -> None:
    """Read the flags, run, print; exit status 1 if anything was left."""
    parser = argparse.ArgumentParser(description="memory over many requests")
    parser.add_argument("--requests", type=int, default=1_000_000)
    parser.add_argument("--seconds", type=float, default=600.0)
    parser.add_argument("--frontends", type=int, default=1)
    options = parser.parse_args()
    with Pipeline(
        frontends=options.frontends,
        step_ms=0.0,
        blocks=BLOCKS,
        frontend="bench.watched_frontend",
        log_level="WARNING",
    ) as pipeline:
        asked, _ = load(pipeline, ROUND, 60.0)[-1]
        before = settled(pipeline)
        began = time.monotonic()
        looks = load(pipeline, options.requests, options.seconds, asked)
        took_s = time.monotonic() - began
        after = settled(pipeline)
        wrong = left_over(pipeline) + grown(before, after)
        warm = looks[int(len(looks) * SHARE_WARM)][1]
        print(table(looks))
        for name, held in after.items():
            was, now = warm[name]["rss_mb"], held["rss_mb"]
            print(
                f"{name}: {was} MB after {SHARE_WARM:.0%} of the load, {now} MB at the end; {held}"
            )
            if now > was * (1 + MOST_GROWTH):
                wrong.append(f"{name} grew from {was} to {now} MB")
        print(f"{looks[-1][0]:,} requests in {took_s:.0f} s")
    if wrong:
        sys.exit("left at the end:\n" + "\n".join(wrong))
    print("nothing is left: no sequence, block, descriptor or greenlet")


if __name__ == "__main__":
    main()
