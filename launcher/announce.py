"""``python -m launcher.announce``: waits until ``/health`` answers 200, says so once, and ends.

Its end also tells the listener that the server has been ready.
"""

import http.client
import logging
import os
import time
from collections.abc import Callable
from contextlib import suppress

from common import logs
from common.settings import Settings, load

_FIRST_PAUSE_S = 0.2
_LONGEST_PAUSE_S = 1.0
_ANSWER_LIMIT_S = 5.0

_TEXT = """
Millrace is ready: {url} serves {model}

  curl {url}/generate -H 'content-type: application/json'{key} \\
    -d '{{"inputs": "The capital of France is", "parameters": {{"max_new_tokens": 20}}}}'

  curl -N {url}/v1/chat/completions -H 'content-type: application/json'{key} \\
    -d '{{"model": "tgi", "stream": true, "messages": [{{"role": "user", "content": "Hello"}}]}}'
{pages}"""
_KEY = " -H 'authorization: Bearer YOUR-KEY'"
_PAGES = ("/playground", "/docs")


def wait_until_healthy(
    healthy: Callable[[], bool], pause: Callable[[float], None] = time.sleep
) -> None:
    """Ask now and then, less often with time."""
    pause_s = _FIRST_PAUSE_S
    while not healthy():
        pause(pause_s)
        pause_s = min(pause_s * 1.2, _LONGEST_PAUSE_S)


def is_healthy(host: str, port: int) -> bool:
    """Whether the server says that it can serve."""
    connection = http.client.HTTPConnection(host, port, timeout=_ANSWER_LIMIT_S)
    try:
        connection.request("GET", "/health")
        return connection.getresponse().status == 200
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()


def reachable(hostname: str) -> str:
    """An address at which a server that listens on ``hostname`` answers."""
    return {"0.0.0.0": "127.0.0.1", "::": "::1"}.get(hostname, hostname)  # noqa: S104


def announcement(settings: Settings) -> str:
    """What to try."""
    host = reachable(settings.hostname)
    shown = "localhost" if host in ("127.0.0.1", "::1") else f"[{host}]" if ":" in host else host
    url = f"http://{shown}:{settings.port}"
    pages = [f"{url}{path}" for path in _PAGES if _opens(settings, path)]
    return _TEXT.format(
        url=url,
        model=settings.model_id,
        key=_KEY if settings.needs_key else "",
        pages=f"\n  in a browser: {', '.join(pages)}\n" if pages else "",
    )


def _opens(settings: Settings, path: str) -> bool:
    """Whether a browser, which brings no key, sees the page."""
    is_there = settings.playground or path != "/playground"
    return is_there and (not settings.needs_key or path in settings.open_routes)


def write(descriptor: int, text: str) -> None:
    """Say it if it can be written: a server whose log has no room is ready all the same."""
    with suppress(OSError):
        os.write(descriptor, f"{text}\n".encode())


def main() -> None:
    """Wait, then speak."""
    settings = load()
    logs.set_up("launcher", json_output=settings.json_output, level=settings.log_level)
    host = reachable(settings.hostname)
    wait_until_healthy(lambda: is_healthy(host, settings.port))
    if settings.json_output:
        logging.getLogger("launcher").info(
            "ready: port %d serves %s", settings.port, settings.model_id
        )
    else:
        write(1, announcement(settings))


if __name__ == "__main__":
    main()
