"""The environment of started processes: nothing secret, nothing that steers them by chance."""

import importlib.util
import os
import shlex
import sys
from collections.abc import Mapping
from pathlib import Path

from common.options import SECRET_NAMES

PACKAGES_ROOT = Path(__file__).resolve().parents[1]
"""The checkout, or site-packages."""
_MEDDLERS = frozenset({"GUNICORN_CMD_ARGS", "WEB_CONCURRENCY"})
WAITING = {"GOMP_SPINCOUNT": "10000"}
"""How often computing threads look whether there is work again, before they sleep: for 0.2 ms.

PERF: left to itself libgomp looks for 6 ms, on processors that others may want. Threads that wait
for each other in the midst of a step are not meant: see ``meeting.h`` of the kernels in C."""
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
    kept["MILLRACE_PYTHON"] = shlex.quote(sys.executable)  # a part of supervisord's commands
    if in_checkout():  # children run with -P: the current directory is not searched for packages
        paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
        kept["PYTHONPATH"] = os.pathsep.join([*paths, str(PACKAGES_ROOT)])
    return kept
