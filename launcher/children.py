"""The environment of started processes: nothing secret, nothing that steers them by chance."""

import importlib.util
import os
import sys
from collections.abc import Mapping
from pathlib import Path

from common.options import SECRET_NAMES

PACKAGES_ROOT = Path(__file__).resolve().parents[1]
"""The checkout, or site-packages."""
_MEDDLERS = frozenset({"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"})
WAITING = {"GOMP_SPINCOUNT": "1000"}
"""How computing threads wait for each other: so many looks (20 to 50 µs), then they sleep.

PERF: by libgomp's own 300,000 looks a thread waits on a core that the other may need. Beside the
front end, the scheduler and anybody else on two cores, that is 4 times as slow at load 5."""
_OWN_WAITING = ("OMP_WAIT_POLICY", *WAITING)
"""Whoever sets one of these has decided."""


def in_checkout() -> bool:
    """Whether this code runs from its source tree."""
    return (PACKAGES_ROOT / "pyproject.toml").is_file()


def can_trace() -> bool:
    """Whether the packages that send traces are installed."""
    try:
        return importlib.util.find_spec("opentelemetry.exporter.otlp.proto") is not None
    except ModuleNotFoundError:
        return False


def child_environment(environ: Mapping[str, str]) -> dict[str, str]:
    """``environ`` without secrets; models come from local files."""
    kept = {
        name: text
        for name, text in environ.items()
        if name not in SECRET_NAMES and name not in _MEDDLERS
    }
    if not any(name in environ for name in _OWN_WAITING):
        kept |= WAITING
    kept["HF_HUB_OFFLINE"] = "1"
    kept["MILLRACE_PYTHON"] = sys.executable
    if in_checkout():  # children run with -P: the current directory is not searched for packages
        paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
        kept["PYTHONPATH"] = os.pathsep.join([*paths, str(PACKAGES_ROOT)])
    return kept
