"""The commands: ``serve`` (which needs not be said), ``download``, ``env``, ``print-schema``.

Reads top down: take the command line apart, resolve, find the model, derive, start. Everything that
can go wrong ends in one sentence on standard error and exit status 1 (2 for flags and values that
cannot be understood).
"""

import contextlib
import logging
import os
import signal
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import FrameType
from typing import NoReturn

from common import logs
from common.errors import StartupError
from common.settings import environment
from launcher.arguments import CommandLine, parse_arguments
from launcher.children import child_environment
from launcher.limits import check_combinations, derive, read_context
from launcher.machine import look_around
from launcher.model import Model, find, find_downloaded, make_ready
from launcher.reference import help_text
from launcher.report import dry_run, environment_report, version
from launcher.resolve import Resolution, UsageError, resolve
from launcher.runtime import open_runtime_directory
from launcher.start import become_supervisor, build_settings, check_ports

_LOGGER = logging.getLogger("launcher")


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of ``millrace`` and ``text-generation-launcher``."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = run(sys.argv[1:] if arguments is None else arguments, environment())
    except UsageError as error:
        status = _refuse(str(error), 2)
    except StartupError as error:
        status = _refuse(str(error), 1)
    except _StoppedError:
        status = 128 + signal.SIGTERM
    except KeyboardInterrupt:
        status = 128 + signal.SIGINT
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(OSError):
            stream.flush()
    os._exit(status)  # threads of an interrupted download must not hold up the end


class _StoppedError(BaseException):
    """SIGTERM."""


def _stop(number: int, frame: FrameType | None) -> None:
    """As the first process of a container we would be deaf to SIGTERM without a handler."""
    raise _StoppedError


def _refuse(sentence: str, status: int) -> int:
    with contextlib.suppress(OSError):
        sys.stdout.flush()
    print(f"millrace: {sentence}", file=sys.stderr)
    return status


def run(arguments: Sequence[str], environ: dict[str, str]) -> int:
    """One command; the exit status. ``serve`` does not return if all is well."""
    line = parse_arguments(arguments)
    if line.help or line.version:
        print(help_text() if line.help else f"millrace {version()}")
        return 0
    if line.command == "print-schema":
        return print_schema(line, environ)
    resolution = resolve(line.given, environ)
    logs.set_up("launcher", json_output=resolution["json_output"], level=resolution["log_level"])
    if line.command == "env" or resolution["env"]:
        print(environment_report(look_around(environ), environ), flush=True)
    if line.command == "env":
        return 0
    _tell(resolution)
    if line.command == "download":
        return download(resolution, environ)
    if resolution["dry_run"]:
        return show(resolution, environ)
    return serve(line, resolution, environ)


def print_schema(line: CommandLine, environ: Mapping[str, str]) -> int:
    """The OpenAPI document, which only front ends know. It is the same for all settings."""
    if line.given:
        raise UsageError(f"print-schema takes no flags: {line.given[0].flag} has no meaning")
    answer = subprocess.run(
        [sys.executable, "-P", "-m", "frontend.openapi"],
        env=child_environment(environ),
        check=False,
    )
    return answer.returncode


def _tell(resolution: Resolution) -> None:
    for note in resolution.notes:
        _LOGGER.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s", note.text)
    resolution.notes.clear()


def download(resolution: Resolution, environ: Mapping[str, str]) -> int:
    """Fetch and verify, so that a later start needs no network."""
    model = find(resolution, environ, _LOGGER.info)
    directory = make_ready(model, lambda: [_tokenizers(resolution, environ)], _LOGGER.info)
    print(directory)
    return 0


def show(resolution: Resolution, environ: dict[str, str]) -> int:
    """``--dry-run``."""
    model = find_downloaded(resolution, environ)
    context = read_context(model.directory, resolution) if model else None
    derive(resolution, context, look_around(environ))
    _tell(resolution)
    lines = [f"{resolution['model_id']} is not on this machine: the start would download it;"]
    lines.append("its context is not known yet and may lower the limits below")
    if model:
        lines = [f"directory  {model.directory}", f"commit     {model.sha or '-'}"]
    print(dry_run(resolution, lines))
    return 0


def serve(line: CommandLine, resolution: Resolution, environ: dict[str, str]) -> int:
    """Check everything that can be checked, then become supervisord."""
    if line.secrets:
        _LOGGER.warning(
            "%s on the command line can be seen by other users of this machine for a moment: "
            "better use the environment",
            line.secrets[0].flag,
        )
    check_combinations(resolution)
    check_ports(resolution)
    machine = look_around(environ)
    model = find(resolution, environ, _LOGGER.info)
    context = read_context(model.directory, resolution)
    derive(resolution, context, machine)
    _tell(resolution)
    runtime = open_runtime_directory(resolution["runtime_dir"])
    try:
        directory = make_ready(
            model, lambda: [_tokenizers(resolution, environ), runtime.path], _LOGGER.info
        )
        check_ports(resolution)
        places = str(directory), str(runtime.path), kernel_cache(environ)
        settings = build_settings(resolution, model, *places)
        _LOGGER.info("starting; %s", _summary(model, resolution, runtime.path))
        become_supervisor(settings, runtime, environ)
    finally:  # only after a failure: exec leaves nothing behind
        runtime.remove()


def _summary(model: Model, resolution: Resolution, runtime: Path) -> str:
    names = ("max_input_tokens", "max_total_tokens", "max_batch_prefill_tokens", "num_replicas",
             "num_frontends", "worker_threads")  # fmt: skip
    values = ", ".join(f"{name} {resolution[name]}" for name in names)
    return f"model {model.model_id}, {values}, runtime directory {runtime}"


def kernel_cache(environ: Mapping[str, str]) -> str | None:
    """Where this user's compiled kernels are kept; None without a home."""
    if environ.get("XDG_CACHE_HOME"):
        return str(Path(environ["XDG_CACHE_HOME"], "millrace", "kernels").absolute())
    return (
        str(Path(environ["HOME"], ".cache", "millrace", "kernels")) if environ.get("HOME") else None
    )


def _tokenizers(resolution: Resolution, environ: Mapping[str, str]) -> Path:
    """Where converted tokenizers are kept from one start to the next."""
    from launcher.hub import open_hub

    return open_hub(resolution["huggingface_hub_cache"], environ, _LOGGER.info).cache / "millrace"
