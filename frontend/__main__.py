"""``python -m frontend``: look whether there can be a front end, then become gunicorn.

Tokenizer, template and address are tried first, so that a bad one is told at once and not after the
model has loaded, which gunicorn waits for (``frontend.patience``).
"""

import errno
import os
import socket
import sys
import time
from pathlib import Path
from typing import NoReturn

from common.errors import StartupError
from common.failure import EXIT_CONFIGURATION, record_failure
from common.logs import set_up
from common.settings import Settings, environment, load
from frontend.wiring import load_text

PORT_PATIENCE_S = 5.0
"""So long a taken port is tried again …"""
PORT_RETRY_S = 0.2
"""… each time after so long."""
_FOREIGN_VARIABLES = ("SCRIPT_NAME", "WEB_CONCURRENCY")
"""What gunicorn would take from the environment behind the settings' back."""
_PACKAGES_ROOT = Path(__file__).resolve().parents[1]


def main() -> NoReturn:
    """Start the front end, or exit with ``EXIT_CONFIGURATION`` and a sentence."""
    settings: Settings | None = None
    try:
        settings = load()
        set_up("frontend", json_output=settings.json_output, level=settings.log_level)
        check_address(settings.hostname, settings.port)
        load_text(settings)
    except StartupError as error:
        record_failure(settings, "frontend", str(error))
        sys.exit(EXIT_CONFIGURATION)
    become_gunicorn()


def become_gunicorn() -> NoReturn:
    """Replace this process; nothing of it, no socket and no model file, stays behind."""
    given = environment().items()
    environ = {name: text for name, text in given if name not in _FOREIGN_VARIABLES}
    paths = [environ["PYTHONPATH"]] if environ.get("PYTHONPATH") else []
    environ["PYTHONPATH"] = os.pathsep.join([*paths, str(_PACKAGES_ROOT)])
    command = [sys.executable, "-P", "-m", "frontend.serve"]
    os.execve(sys.executable, command, environ)  # noqa: S606 - this very interpreter


def check_address(hostname: str, port: int, patience_s: float = PORT_PATIENCE_S) -> None:
    """Raises StartupError if nobody can listen there, also not a little later.

    RACE: after our predecessor was killed, its children hold the port until they notice.
    """
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    end = time.monotonic() + patience_s
    while True:
        with socket.socket(family, socket.SOCK_STREAM) as probe:
            probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
            try:
                probe.bind((hostname, port))
                return
            except OSError as error:
                if error.errno != errno.EADDRINUSE or time.monotonic() >= end:
                    reason = error.strerror or str(error)
                    raise StartupError(
                        f"cannot listen on {hostname}:{port}: {reason}; "
                        "choose another --port or --hostname"
                    ) from None
        time.sleep(PORT_RETRY_S)


if __name__ == "__main__":
    main()
