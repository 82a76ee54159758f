"""Checks of what the settings name outside: ports, directories, disks, the hub, a collector."""

import os
import shutil
import socket
import tempfile
import urllib.parse
from collections.abc import Iterator, Mapping
from pathlib import Path

from common.errors import StartupError
from common.options import OPTIONS
from common.sockets import check_runtime_dir
from launcher.doctor.finding import Finding, ok, problem, warning
from launcher.hub import open_hub
from launcher.progress import human
from launcher.resolve import Resolution, hub_token
from launcher.start import check_port

_LITTLE_BYTES = 10 * 10**9
_CONNECT_LIMIT_S = 2.0
_LONGEST_SOCKET_PATH = 107
"""Of a socket in the file system, in bytes (unix(7))."""
_LONGEST_NAME = len("/supervisor.sock.1234567")


def ports(resolution: Resolution) -> Iterator[Finding]:
    """Whether they can be listened on."""
    for name in ("port", "prometheus_port"):
        number, flag = resolution[name], OPTIONS[name].flags[0]
        if not number:
            continue
        try:
            check_port(resolution["hostname"], number, flag)
        except StartupError as error:
            yield problem("port", str(error))
        else:
            yield ok("port", f"Port {number} on {resolution['hostname']} is free ({flag}).")


def runtime_directory(resolution: Resolution) -> Iterator[Finding]:
    """Private, writable, and short enough for sockets."""
    given = resolution["runtime_dir"]
    place = Path(given).expanduser().absolute() if given else Path(tempfile.gettempdir())
    subject = "runtime dir"
    if not given or not place.exists():
        parent = next(path for path in (place, *place.parents) if path.exists())
        if not os.access(parent, os.W_OK | os.X_OK):
            yield problem(
                subject,
                f"{parent} cannot be written: choose another place with --runtime-dir, or TMPDIR.",
            )
            return
    else:
        try:
            check_runtime_dir(str(place))
        except (OSError, ValueError) as error:
            yield problem(subject, f"The runtime directory cannot be used: {error}.")
            return
    longest = len(os.fsencode(place)) + (0 if given else len("/millrace-12345678"))
    if longest + _LONGEST_NAME > _LONGEST_SOCKET_PATH:
        yield problem(
            subject, f"{place} is too long a path for sockets: give a shorter --runtime-dir."
        )
    else:
        yield ok(subject, f"Sockets go to {place if given else f'a new directory in {place}'}.")


def hub_cache(resolution: Resolution, environ: Mapping[str, str], here: bool) -> Iterator[Finding]:
    """Whether a model can be downloaded; ``here``: nothing has to be."""
    cache = open_hub(resolution["huggingface_hub_cache"], environ, lambda text: None).cache
    parent = next(path for path in (cache, *cache.parents) if path.exists())
    subject = "hub cache"
    if not parent.is_dir() or not os.access(parent, os.W_OK | os.X_OK):
        text = f"{cache} cannot be written: mount or make it, or set --huggingface-hub-cache."
        yield warning(subject, f"{text} The model is here.") if here else problem(subject, text)
        return
    if resolution["huggingface_hub_cache"] and not cache.exists():
        yield warning(subject, f"{cache} is not there and will be made: is a volume missing?")
    free = shutil.disk_usage(parent).free
    text = f"{human(free)} are free in {cache}"
    if free < _LITTLE_BYTES and not here:
        yield warning(subject, f"{text}, which is little for a model: make room.")
    else:
        yield ok(subject, f"{text}.")


def token(environ: Mapping[str, str]) -> Iterator[Finding]:
    """Present or not: it is never shown."""
    if hub_token(environ):
        yield ok("hub token", "A token for the hub is set.")
    else:
        yield ok("hub token", "No token for the hub is set; only gated and private models need it.")


def collector(resolution: Resolution) -> Iterator[Finding]:
    """Whether traces arrive. The server starts without it all the same."""
    endpoint = resolution["otlp_endpoint"]
    if not endpoint:
        return
    named = resolution.named("otlp_endpoint")
    try:
        parts = urllib.parse.urlsplit(endpoint if "//" in endpoint else f"//{endpoint}")
        port = parts.port or (443 if parts.scheme == "https" else 4317)
        socket.create_connection((parts.hostname or "", port), _CONNECT_LIMIT_S).close()
    except (OSError, ValueError) as error:
        yield warning(
            "collector",
            f"{named}: {endpoint} cannot be reached ({error}): the server runs, and traces are "
            "lost until it can be.",
        )
    else:
        yield ok("collector", f"The collector at {endpoint} can be reached.")
