"""How long health checks wait while every seat is taken: ``python -m bench.health``.

Starts a server on the random model and keeps as many streams running as it may serve at once, from
a process of its own. Meanwhile this one asks one health route after the other, each on a new
connection, as probes do. Prints milliseconds from before the connection to the end of the answer.
"""

import argparse
import http.client
import multiprocessing
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import cycle, islice
from pathlib import Path
from urllib.parse import urlsplit

import numpy as np

from bench import load
from bench.checkpoint import model_of
from bench.peers import registry
from bench.peers.contenders import ContenderError
from bench.stream_client import Client, request_bytes
from launcher.commands.own_flags import positive

ROUTES = ("/health", "/health/live", "/health/progress")
LIMIT_S = 10.0
"""After which an answer is not waited for."""
PAUSE_S = 0.02
"""Between two questions."""
RISE_S = 3.0
"""From the first request to the first question."""
PROMPTS = 512


@dataclass(frozen=True, slots=True)
class Work:
    """What keeps the server busy."""

    streams: int
    words: int
    """Of each prompt."""
    tokens: int
    """Of each answer."""


def ask(host: str, port: int, route: str) -> float:
    """Milliseconds until the whole answer was there. Raises ContenderError if it is not 200."""
    began = time.perf_counter()
    connection = http.client.HTTPConnection(host, port, timeout=LIMIT_S)
    try:
        connection.request("GET", route)
        answer = connection.getresponse()
        answer.read()
        if answer.status != 200:
            raise ContenderError(f"{route}: {answer.status}")
    finally:
        connection.close()
    return 1e3 * (time.perf_counter() - began)


@contextmanager
def busy(port: int, work: Work) -> Iterator[None]:
    """Put it under load from another process. Raises ContenderError if the load broke."""
    process = multiprocessing.get_context("spawn").Process(
        target=_stream_for_ever, args=(port, work), daemon=True
    )
    process.start()
    try:
        time.sleep(RISE_S)
        yield
        if process.exitcode is not None:
            raise ContenderError("the load ended before the questions did")
    finally:
        process.kill()
        process.join()


def _stream_for_ever(port: int, work: Work) -> None:
    prompts = load.random_prompts(PROMPTS, work.words, seed=0)
    parameters = {"max_new_tokens": work.tokens}
    requests = [
        request_bytes("/generate_stream", {"inputs": prompt, "parameters": parameters})
        for prompt in prompts
    ]
    client = Client(port, work.streams, lambda number: requests[number % PROMPTS])
    client.run(events=work.tokens)


def measure(url: str, work: Work, asked: int) -> dict[str, list[float]]:
    """Milliseconds of every answer by its route, of so many questions altogether."""
    parts = urlsplit(url)
    host, port = str(parts.hostname), int(parts.port or 0)
    found: dict[str, list[float]] = {route: [] for route in ROUTES}
    with busy(port, work):
        for route in islice(cycle(ROUTES), asked):
            found[route].append(ask(host, port, route))
            time.sleep(PAUSE_S)
    return found


def row(route: str, waits_ms: list[float]) -> str:
    """One line of the table."""
    p50, p99 = np.percentile(waits_ms, (50, 99))
    return f"| {route} | {len(waits_ms)} | {p50:.1f} | {p99:.1f} | {max(waits_ms):.1f} |"


def main() -> None:
    """Read the flags, start, ask, stop, print."""
    parser = argparse.ArgumentParser(description="health checks while every seat is taken")
    parser.add_argument("--size", default="135m")
    parser.add_argument("--model", type=Path, help="a model directory instead")
    parser.add_argument("--streams", type=positive, default=128)
    parser.add_argument("--words", type=positive, default=64, help="of each prompt")
    parser.add_argument("--tokens", type=positive, default=64, help="of each answer")
    parser.add_argument("--asked", type=positive, default=900)
    parser.add_argument("--server-arguments", default="", help="more flags for the server")
    options = parser.parse_args()
    work = Work(options.streams, options.words, options.tokens)
    places = registry.Places(
        registry.ENVIRONMENTS,
        options.model or model_of(options.size),
        registry.ENVIRONMENTS / "logs",
        f"--max-concurrent-requests {options.streams} {options.server_arguments}",
    )
    try:
        with registry.ours(places) as server:
            found = measure(server.target.url, work, options.asked)
    except ContenderError as error:
        sys.exit(str(error))
    print("| route | asked | p50, ms | p99, ms | worst, ms |\n|---|---|---|---|---|")
    for route, waits_ms in found.items():
        print(row(route, waits_ms))
    print(row("all", [wait for waits in found.values() for wait in waits]))


if __name__ == "__main__":
    main()
