"""The command: ours and the installed peers side by side, a table, a JSON file and a plot.

usage: python -m bench.peers [--only PIECE …] [--rounds 3] [--into FILE.json]

Pieces are ``machine`` (what it can do at best), ``steps`` (decode steps without the pipeline),
``engine`` (our engine without HTTP, text and scheduler, on the same work) and the peers, each with
our server beside it. ``--into`` names a file that is continued: what it has is not measured again.
So ``--only machine`` with a finished file measures nothing, and writes its table and its plot.
"""

import argparse
import json
import signal
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

from bench.checkpoint import model_of
from bench.peers import report, rounds
from bench.peers.contenders import ROOT, ContenderError
from bench.peers.registry import BENCH, ENVIRONMENTS, PEERS, Places
from bench.peers.results import Results

ROUNDS = 3
MACHINE, STEPS = "machine", "steps"


def commit() -> str:
    """Of the tree, with a mark if it has been changed since."""
    command = ["git", "describe", "--always", "--dirty"]
    done = subprocess.run(command, cwd=ROOT, capture_output=True, text=True, check=False)
    return done.stdout.strip()


def json_of(*command: str | Path) -> dict[str, Any]:
    """What a module of ours prints."""
    done = subprocess.run([sys.executable, "-m", *command], check=True, stdout=subprocess.PIPE)
    found: dict[str, Any] = json.loads(done.stdout)
    return found


def measure(options: argparse.Namespace, results: Results, places: Places) -> None:
    """All pieces that are asked for and not there yet."""
    if MACHINE in options.only and not results.machine:
        results.machine = json_of("bench.machine")
        results.write()
    if STEPS in options.only and not results.steps:
        results.steps = json_of("bench.engine", places.model, "--json")
        results.write()
    for peer in PEERS:
        if peer.name not in options.only:
            continue
        if not peer.is_installed(places):
            results.troubles[peer.name] = "not installed"
        else:
            results.troubles.pop(peer.name, None)
            try:
                rounds.compare(
                    peer,
                    places,
                    results,
                    rounds=options.rounds,
                    say=lambda line: print(line, file=sys.stderr, flush=True),
                )
            except ContenderError as error:
                results.troubles[peer.name] = str(error)
        results.write()


def read_arguments() -> argparse.Namespace:
    """The flags."""
    pieces = [MACHINE, STEPS, *(peer.name for peer in PEERS)]
    parser = argparse.ArgumentParser(description="ours and the installed peers side by side")
    parser.add_argument("--only", nargs="+", choices=pieces, default=pieces, metavar="PIECE",
                        help=", ".join(pieces))  # fmt: skip
    parser.add_argument("--rounds", type=int, default=ROUNDS, help="1 for a first look")
    parser.add_argument("--size", default="135m", help="of bench.random_model: 135m or 1b")
    parser.add_argument("--into", type=Path, help="the results; continued if it is there")
    parser.add_argument("--environments", type=Path, default=ENVIRONMENTS)
    parser.add_argument("--server-arguments", default="", help="more flags for our own server")
    parser.add_argument("--worker-threads", type=int, help="of our server and the engine beside it:"
                        " fewer than cores leave some to the pipeline and the clients")  # fmt: skip
    return parser.parse_args()


def main() -> int:
    """Measure, keep, print; 1 if a peer failed."""
    options = read_arguments()
    signal.signal(signal.SIGTERM, lambda *_: sys.exit(143))  # so that what was started is ended
    named = f"{options.size}-{time.strftime('%Y-%m-%d-%H%M')}.json"
    path = options.into or BENCH / "results" / named
    results = Results.read(path, options.size, commit())
    environments = options.environments.absolute()
    needs_model = set(options.only) != {MACHINE}
    model = model_of(options.size) if needs_model else Path()
    logs = environments / "logs"
    places = Places(environments, model, logs, options.server_arguments, options.worker_threads)
    measure(options, results, places)
    print(report.table(results))
    picture = path.with_suffix(".svg")
    try:
        report.plot(results, picture)
        print(f"\n{path}\n{picture}")
    except ImportError:
        print(f"\n{path}\nno plot: pip install -e '.[bench]' brings matplotlib")
    failed = [why for why in results.troubles.values() if why != "not installed"]
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
