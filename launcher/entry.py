"""The console script: loads the launcher in such a way that Ctrl-C ends it without a traceback."""

import importlib
import os
import signal
from collections.abc import Callable
from typing import NoReturn


def main() -> NoReturn:
    """``millrace`` and ``text-generation-launcher``."""
    try:
        # It is imported here because that takes a tenth of a second.
        command: Callable[[], NoReturn] = importlib.import_module("launcher.cli").main
        command()
    except KeyboardInterrupt:
        os._exit(128 + signal.SIGINT)
