"""How much memory loading takes beside the weights themselves, and how long it takes.

usage: python -m bench.loading MODEL_DIR [SHARDS]

A thread reads RssAnon of /proc/self/status every millisecond: resident memory without mapped files,
which are the kernel's to drop. Its peak less its end is what loading needed for a while.
"""

import argparse
import threading
import time
from pathlib import Path

import torch

from worker.loading import load_model
from worker.sharding import Sharding

_EVERY_S = 0.001


def anonymous_bytes() -> int:
    """Of this process, at present."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) * 1024 for line in lines if line.startswith("RssAnon:"))


class Peak:
    """The most that was seen while it was open."""

    def __init__(self) -> None:
        self.bytes = anonymous_bytes()
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._watch)

    def __enter__(self) -> "Peak":
        self._thread.start()
        return self

    def __exit__(self, *error: object) -> None:
        self._over.set()
        self._thread.join()

    def _watch(self) -> None:
        while not self._over.wait(_EVERY_S):
            self.bytes = max(self.bytes, anonymous_bytes())


def main(model_dir: str, shards: int) -> None:
    """Load and print; of several shards, the first."""
    before, began = anonymous_bytes(), time.perf_counter()
    sharding = Sharding(0, shards)
    with Peak() as peak:
        model = load_model(model_dir, device=torch.device("cpu"), dtype=None, sharding=sharding)
    seconds, after = time.perf_counter() - began, anonymous_bytes()
    dtype = model.configuration.dtype
    print(
        f"{dtype}: {seconds:.1f} s, weights {after - before >> 20} MiB,"
        f" at the peak {peak.bytes - after >> 20} MiB more"
    )


if __name__ == "__main__":
    parser = argparse.ArgumentParser(
        prog="bench.loading", description="What loading a model takes."
    )
    parser.add_argument("model_dir", metavar="MODEL_DIR")
    parser.add_argument("shards", nargs="?", type=int, default=1, metavar="SHARDS")
    chosen = parser.parse_args()
    main(chosen.model_dir, chosen.shards)
