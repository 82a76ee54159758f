"""``make gpu-emulate``: the GPU path without a GPU, on an emulated device (``device.cpp``).

usage: python -m tests.emulated [pytest's arguments]

Needs torch's CUDA build, which needs no GPU to be installed, and g++: see bench/README.md.
"""

import os
import shutil
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import torch

from tests.emulated.build import build

ROOT = Path(__file__).resolve().parents[2]
TESTS = ("tests/emulated", "tests/gpu/test_transfers.py")
LIMIT_S = 900
"""Of a test: an interpreter runs the kernels."""


def missing() -> str | None:
    """What this needs and is not there."""
    if torch.version.cuda is None:
        return (
            f"torch {torch.__version__} is not its CUDA build, which needs no GPU to be installed:"
            " see bench/README.md"
        )
    tools = [name for name in ("g++", "nm") if shutil.which(name) is None]
    return f"not installed: {', '.join(tools)}" if tools else None


@contextmanager
def emulated() -> Iterator[dict[str, str]]:
    """The environment of programs whose device is emulated, built for them."""
    with tempfile.TemporaryDirectory(prefix="emulated-") as place:
        library = build(Path(place))
        environ = dict(os.environ)
        environ.setdefault("EMULATED_SMS", "2")  # attention is cut into fewer parts: see device.cpp
        yield environ | {
            "LD_PRELOAD": str(library),
            "LD_LIBRARY_PATH": f"{place}:{environ.get('LD_LIBRARY_PATH', '')}",
            "TRITON_LIBCUDA_PATH": place,
            "TRITON_INTERPRET": "0",
        }


def main(arguments: list[str]) -> int:
    """Build the device, run tests on it; the exit status."""
    lacks = missing()
    if lacks is not None:
        print(lacks, file=sys.stderr)
        return 1
    command = [sys.executable, "-m", "pytest", "-v", f"--timeout={LIMIT_S}"]
    command += ["-p", "tests.emulated.plugin", *(arguments or TESTS)]
    with emulated() as environ:
        return subprocess.run(command, cwd=ROOT, env=environ, check=False).returncode


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
