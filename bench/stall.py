"""How long running streams wait while long prompts are read: ``python -m bench.stall``.

Starts a server on the random model, lets some streams run, and sends long prompts one after another
meanwhile. Prints the streams' gaps and the prompts' times to the first token, once for each
``--max-stall-ms``; 0 is what it would be without.
"""

import argparse
import statistics
import sys
from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import gevent
from gevent.event import Event

from bench import load
from bench.checkpoint import model_of
from bench.peers import registry
from bench.peers.contenders import ContenderError
from launcher.bench import figures
from launcher.bench.client import Outcome
from launcher.bench.scenarios import Work as Request
from launcher.commands.own_flags import positive, whole


@dataclass(frozen=True, slots=True)
class Beside:
    """Streams, and the prompts that are sent while they run."""

    streams: int
    tokens: int
    """Of each stream."""
    prompts: int
    words: int
    """Of each prompt."""


def measure(target: load.Target, work: Beside) -> dict[str, Any]:
    """The load; milliseconds. Raises ContenderError if a request fails."""
    client = load.client_of(target)
    _check([client.send(Request(("warm",), 1))])
    begun = [Event() for _ in range(work.streams)]
    running = []
    for number, event in enumerate(begun):
        request = Request((f"{number} " + "import " * 15,), work.tokens)
        running.append(gevent.spawn(load.client_of(target, event.set).send, request))
        running[-1].link(lambda _, event=event: event.set())  # where it failed at once
    gevent.wait(begun)
    asked = [
        client.send(Request((f"{number} " + "class token " * (work.words // 2),), 1))
        for number in range(work.prompts)
    ]
    beside = sum(not stream.ready() for stream in running)
    gevent.joinall(running, raise_error=True)
    outcomes = [stream.value for stream in running]
    _check([*asked, *outcomes])
    gaps_ms = figures.samples(outcomes)["itl"]
    found = figures.summary("itl", gaps_ms)
    return {
        "streams_still_running": beside,
        "gap_ms_p50": round(found["median_itl_ms"], 2),
        "gap_ms_p99": round(found["p99_itl_ms"], 2),
        "gap_ms_worst": round(max(gaps_ms, default=0.0), 2),
        "prompt_ttft_ms": round(1e3 * statistics.fmean(outcome.first_s for outcome in asked)),
    }


def _check(outcomes: Iterable[Outcome]) -> None:
    for reason, times in figures.failures(list(outcomes)):
        raise ContenderError(f"requests failed ({times}): {reason}")


def main() -> None:
    """Read the flags, start, measure, stop, print."""
    parser = argparse.ArgumentParser(description="gaps of streams beside long prompts")
    parser.add_argument("--size", default="135m")
    parser.add_argument("--model", type=Path, help="a model directory instead")
    parser.add_argument("--streams", type=positive, default=20)
    parser.add_argument("--tokens", type=positive, default=400)
    parser.add_argument("--words", type=positive, default=3000)
    parser.add_argument("--prompts", type=positive, default=3)
    parser.add_argument("--max-stall-ms", type=whole, nargs="+", default=[0, 200])
    options = parser.parse_args()
    model = options.model or model_of(options.size)
    work = Beside(options.streams, options.tokens, options.prompts, options.words)
    logs = registry.ENVIRONMENTS / "logs"
    for stall_ms in options.max_stall_ms:
        flags = f"--max-stall-ms {stall_ms}"
        places = registry.Places(registry.ENVIRONMENTS, model, logs, flags)
        try:
            with registry.ours(places) as server:
                found = measure(server.target, work)
        except ContenderError as error:
            sys.exit(str(error))
        print(f"{flags}: {found}", flush=True)


if __name__ == "__main__":
    main()
