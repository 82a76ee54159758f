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
    kept["HF_HUB_OFFLINE"] = "1"
    kept["MILLRACE_PYTHON"] = sys.executable
    if in_checkout():  # children run with -P: the current directory is not searched for packages
        paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
        kept["PYTHONPATH"] = os.pathsep.join([*paths, str(PACKAGES_ROOT)])
    return kept
