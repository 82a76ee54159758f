"""Two trees of this server in turns: ``python -m bench.turns --against DIR``.

Both pipelines run, with a fake worker each and a step every so often; one load after the other goes
to the one and then to the other, turn by turn, so that whatever the machine does meanwhile it does
to both. Prints microseconds of processor time per token of each process, means over the turns, and
the ratio. The client is this tree's for both, and does the same work for both.
"""

import argparse
import itertools
import statistics
from pathlib import Path
from typing import Any

from bench.pipeline import BLOCKS, OPENAI, measure
from bench.processes import ROOT, Pipeline

PARTS = ("front end", "scheduler", "worker", "client")
HEAD = (
    "| load | front end, before / after | ratio | scheduler | ratio | worker | client |\n"
    "|---|---|---|---|---|---|---|"
)


def cost(found: dict[str, Any], part: str) -> float:
    """Microseconds per token of all processes of one kind."""
    costs: dict[str, float] = found["us_per_token"]
    return sum(us for name, us in costs.items() if name.startswith(part))


def row(name: str, before: list[dict[str, Any]], after: list[dict[str, Any]]) -> str:
    """One line of the table."""
    cells = []
    for part in PARTS:
        old = statistics.mean(cost(found, part) for found in before)
        new = statistics.mean(cost(found, part) for found in after)
        cells.append(f"{old:.1f} / {new:.1f}")
        if part in PARTS[:2]:
            cells.append(f"{new / old:.2f}")
    return f"| {name} | {' | '.join(cells)} |"


def main() -> None:
    """Read the flags, measure in turns, print."""
    parser = argparse.ArgumentParser(description="what a token costs, in two trees in turns")
    parser.add_argument("--against", type=Path, required=True, help="the tree of before")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 8, 32, 128])
    parser.add_argument("--apis", nargs="+", choices=["native", *OPENAI], default=["native"])
    parser.add_argument("--step-ms", type=float, default=25.0)
    parser.add_argument("--tokens", type=int, default=128, help="of each answer")
    parser.add_argument("--seconds", type=float, default=1.0, help="of each load, and its end")
    parser.add_argument("--turns", type=int, default=3)
    options = parser.parse_args()
    asked: dict[str, Any] = {"frontends": 1, "step_ms": options.step_ms, "blocks": BLOCKS}
    print(HEAD, flush=True)
    with (
        Pipeline(root=options.against.resolve(), **asked) as before,
        Pipeline(root=ROOT, **asked) as after,
    ):
        for api, pipeline in itertools.product(options.apis, (before, after)):
            measure(pipeline, api=api, streams=1, tokens=32, seconds=1.0, warmup_s=0.0)
        for api in options.apis:
            for streams in options.streams:
                load = {"api": api, "streams": streams, "tokens": options.tokens}
                found: tuple[list[dict[str, Any]], list[dict[str, Any]]] = ([], [])
                for turn in range(options.turns):
                    order = (0, 1) if turn % 2 == 0 else (1, 0)
                    for side in order:
                        pipeline = (before, after)[side]
                        found[side].append(
                            measure(pipeline, seconds=options.seconds, warmup_s=0.0, **load)
                        )
                print(row(f"{api}, {streams} streams", *found), flush=True)


if __name__ == "__main__":
    main()
