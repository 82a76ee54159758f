"""Settings → file and environment → supervisord takes over this process.

The process keeps its pid, so that signals for the launcher reach supervisord. It is replaced
(``exec``) by ``launcher/supervise.py``: thereby keys given as flags leave the command line,
secrets leave the environment, and the hub client leaves the memory.
"""

import contextlib
import errno
import fcntl
import os
import resource
import signal
import socket
import sys
from collections.abc import Mapping, Sequence
from typing import NoReturn

import msgspec

from common.adapters import Adapter
from common.errors import StartupError
from common.options import OPTIONS
from common.settings import SETTINGS_VARIABLE, Settings
from launcher.children import child_environment
from launcher.keys import key_settings
from launcher.model import Model
from launcher.resolve import Resolution
from launcher.runtime import SETTINGS, STOP_SIGNALS, RuntimeDirectory, write_private

_MOST_FILES = 1 << 20
_AFTER_DRAINING_S = 10
"""Seconds between the end of draining and SIGKILL for the front ends; more than their last words
take (``frontend/wiring.py``)."""


def build_settings(
    resolution: Resolution,
    model: Model,
    model_dir: str,
    runtime_dir: str,
    kernel_cache: str | None = None,
    adapters: Sequence[Adapter] = (),
) -> Settings:
    """The frozen structure that every process loads."""
    fields = {
        name: resolution[name] for name in Settings.__struct_fields__ if name in resolution.values
    }
    fields |= {
        "model_id": model.model_id,
        "model_dir": model_dir,
        "model_sha": model.sha,
        "model_pipeline_tag": model.pipeline_tag,
        "runtime_dir": runtime_dir,
        "kernel_cache": kernel_cache,
        "adapters": list(adapters),
    }
    fields |= key_settings(resolution)
    if fields["tokenizer_config_path"] is not None:
        fields["tokenizer_config_path"] = os.path.abspath(fields["tokenizer_config_path"])
    return Settings(**fields)


def check_ports(resolution: Resolution) -> None:
    """Raises StartupError for a port that cannot be listened on."""
    for name in ("port", "prometheus_port"):
        if resolution[name]:
            check_port(resolution["hostname"], resolution[name], OPTIONS[name].flags[0])


def check_port(hostname: str, port: int, flag: str) -> None:
    """Raises StartupError unless ``port`` can be listened on."""
    family = socket.AF_INET6 if ":" in hostname else socket.AF_INET
    with socket.socket(family, socket.SOCK_STREAM) as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind((hostname, port))
            probe.listen(1)
        except OSError as error:
            advice = {
                errno.EADDRINUSE: f"stop what uses it, or choose another one with {flag}",
                errno.EADDRNOTAVAIL: "--hostname has to be an address of this machine",
            }.get(error.errno or 0, f"choose another one with {flag}")
            raise StartupError(
                f"port {port} on {hostname} cannot be used ({error.strerror}): {advice}"
            ) from None


def raise_file_limit() -> None:
    """Every stream is an open file: allow as many as the system lets us."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    wanted = _MOST_FILES if hard == resource.RLIM_INFINITY else min(hard, _MOST_FILES)
    if soft != resource.RLIM_INFINITY and soft < wanted:
        with contextlib.suppress(OSError, ValueError):
            resource.setrlimit(resource.RLIMIT_NOFILE, (wanted, hard))


def become_supervisor(
    settings: Settings, runtime: RuntimeDirectory, environ: Mapping[str, str]
) -> NoReturn:
    """Write the settings and replace this process. Does not return."""
    path = runtime.path / SETTINGS
    write_private(path, msgspec.json.encode(settings))
    environment = child_environment(environ) | {
        SETTINGS_VARIABLE: str(path),
        "MILLRACE_RUNTIME_DIR": str(runtime.path),
        "MILLRACE_WORKERS": str(settings.num_replicas * settings.num_shard),
        "MILLRACE_TRACERS": str(int(settings.otlp_endpoint is not None)),
        "MILLRACE_STOP_S": str(settings.graceful_termination_timeout + _AFTER_DRAINING_S),
    }
    raise_file_limit()
    for stream in (1, 2):
        _append(stream)
    # A signal that arrives during exec waits until the supervisor can clean up after itself.
    signal.pthread_sigmask(signal.SIG_BLOCK, STOP_SIGNALS)
    arguments = [sys.executable, "-P", "-m", "launcher.supervise", str(runtime.lock)]
    if runtime.temporary:
        arguments.append("--remove")
    os.execve(sys.executable, arguments, environment)  # noqa: S606 - our own module


def _append(stream: int) -> None:
    """Logs in a file are written through several descriptors: none may overwrite another."""
    with contextlib.suppress(OSError):
        flags = fcntl.fcntl(stream, fcntl.F_GETFL)
        fcntl.fcntl(stream, fcntl.F_SETFL, flags | os.O_APPEND)
