"""``make gpu-all``: the tests on a GPU, then its figures, in one command with a limit.

usage: python -m bench.gpu.all [--seconds 560] [--tests 0.4] [--results DIR] [-- flags of bench.gpu]

For machines that are there for minutes. Tests run in the order of what they say, for their share
of the time at most; then ``bench.gpu`` has the rest. Everything is in DIR as it comes:
``tests.log``, ``bench.log`` and the result, whole after each measurement. The status is that of
whatever failed, 124 for tests that did not end in time.
"""

import argparse
import signal
import subprocess
import sys
import time
from pathlib import Path

from bench.gpu.__main__ import RESULTS, ROOT
from bench.gpu.pieces import Budget

TESTS = (
    "transfers",
    "start",
    "steps",
    "graphs",
    "overlap",
    "attention",
    "operations",
    "shards",
    "models",
)
"""Of tests/gpu. What says most in the least time comes first: what everything else rests on, which
compiles nothing; the whole path of one tiny model, whose kernels are compiled once; then each
kernel by itself at real sizes, where many are."""
GRACE_S = 10.0
"""To write a summary, after an interrupt."""
TOO_LATE = 124


def run(command: list[str], log: Path, seconds: float) -> int:
    """The status of a command, whose output goes to the log and here; stopped when time is up."""
    with log.open("w") as file:
        file.write(f"$ {' '.join(command)}\n")
        file.flush()
        with subprocess.Popen(command, cwd=ROOT, stdout=file, stderr=subprocess.STDOUT) as process:
            try:
                return process.wait(seconds)
            except subprocess.TimeoutExpired:
                process.send_signal(signal.SIGINT)
                try:
                    process.wait(GRACE_S)
                except subprocess.TimeoutExpired:
                    process.kill()
                return TOO_LATE


def tests_command() -> list[str]:
    """pytest over ``TESTS``, a line a test."""
    files = [f"tests/gpu/test_{name}.py" for name in TESTS]
    return [sys.executable, "-m", "pytest", "-v", "--tb=short", "--durations=10", *files]


def main() -> int:
    """Read the flags, run both."""
    parser = argparse.ArgumentParser(prog="bench.gpu.all", description="tests and figures")
    parser.add_argument("--seconds", type=float, default=560.0, help="of all of it")
    parser.add_argument("--tests", type=float, default=0.4, help="share of the tests at most")
    parser.add_argument("--results", type=Path, default=RESULTS, help="where everything goes")
    parser.add_argument("rest", nargs="*", help="flags of bench.gpu, after --")
    options = parser.parse_args()
    results = options.results.resolve()
    results.mkdir(parents=True, exist_ok=True)
    budget, began = Budget(options.seconds), time.monotonic()
    tested = run(tests_command(), results / "tests.log", options.seconds * options.tests)
    print((results / "tests.log").read_text()[-3000:])
    print(f"tests: status {tested} after {time.monotonic() - began:.0f} s", flush=True)
    # It begins nothing beyond its own limit; the last thing begun has the grace beside.
    own = max(1.0, budget.left_s - 6 * GRACE_S)
    command = [sys.executable, "-m", "bench.gpu", "--results", str(results)]
    command += ["--seconds", f"{own:.0f}", *options.rest]
    measured = run(command, results / "bench.log", budget.left_s)
    print((results / "bench.log").read_text()[-8000:])
    print(f"figures: status {measured} after {time.monotonic() - began:.0f} s")
    return tested or measured


if __name__ == "__main__":
    sys.exit(main())
