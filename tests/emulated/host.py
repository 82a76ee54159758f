"""``make gpu-host``: what a step costs the host on a GPU, on a device that computes nothing.

usage: python -m tests.emulated.host [--shape 1b] [--streams 1 32 256] [--no-graphs]

The emulated device without ``computing``: torch's and Triton's launchers run in earnest, kernels do
nothing. So a step takes as long as the host takes to launch it and to read what comes back. These
are no GPU's figures: on one, the device's time lies beside them, and hides them where it is longer.
"""

import argparse
import logging
import statistics
import subprocess
import sys
import tempfile
from pathlib import Path

from bench.engine import InstantScheduler
from bench.gpu import checkpoint
from bench.gpu.engine import prompts_of, ready_engine
from bench.gpu.load import PROMPT_TOKENS
from bench.gpu.shapes import SHAPES
from tests.emulated.__main__ import ROOT, emulated, missing
from tests.worker.ahead.fake_numbers import tops
from worker import sampler

_INSIDE = "--inside"
_BYTES = 16 << 30
_TOKENS = 60
_FIRST_TOKENS = 7
"""Tries of a prompt."""


def measure(model_dir: str, size: str, streams: list[int], *, graphs: bool) -> None:
    """Print milliseconds of the median step."""
    sampler._tops = tops
    shape = SHAPES[size]
    engine = ready_engine(model_dir, "cuda", max(streams), graphs=graphs)
    kind = "recorded" if graphs else "not recorded"
    print(f"shape {size}, {shape.layers} layers, steps {kind}; milliseconds of the host")
    for count in streams:
        prompts = prompts_of(count, 16, shape.vocabulary, seed=count)
        record = InstantScheduler(engine).run(prompts, count, _TOKENS)
        print(f"a step of {count} that decode: {1e3 * statistics.median(record.decode_s):.3f}")
    prompts = prompts_of(_FIRST_TOKENS, PROMPT_TOKENS, shape.vocabulary, seed=0)
    taken = [InstantScheduler(engine).run([prompt], 1, 1).first_s[0] for prompt in prompts]
    print(f"a prompt of {PROMPT_TOKENS} tokens: {1e3 * statistics.median(taken):.3f}")
    engine.close()


def main() -> int:
    """Read the flags; begin again on the device, and measure there."""
    parser = argparse.ArgumentParser(prog="tests.emulated.host", description="the host's time")
    parser.add_argument("--shape", choices=list(SHAPES), default="1b")
    parser.add_argument("--streams", type=int, nargs="+", default=[1, 32, 256])
    parser.add_argument("--no-graphs", action="store_true", help="record no steps")
    parser.add_argument(_INSIDE, metavar="MODEL_DIR", help="what this program calls itself with")
    options = parser.parse_args()
    if options.inside is not None:
        logging.basicConfig(level=logging.WARNING)
        graphs = not options.no_graphs
        measure(options.inside, options.shape, options.streams, graphs=graphs)
        return 0
    lacks = missing()
    if lacks is not None:
        print(lacks, file=sys.stderr)
        return 1
    with emulated() as environ, tempfile.TemporaryDirectory(prefix="host-") as place:
        checkpoint.write(Path(place), options.shape)
        command = [sys.executable, "-m", "tests.emulated.host", _INSIDE, place, *sys.argv[1:]]
        # Of zeros, which nothing overwrites, all is finite.
        environ |= {"EMULATED_SMS": "132", "EMULATED_BYTES": str(_BYTES), "EMULATED_EMPTY": "0"}
        return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main())
