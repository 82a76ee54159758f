"""The entry point: chooses the command, and turns every way to end into an exit status.

Everything that can go wrong ends in one sentence on standard error and exit status 1 (2 for flags
and values that cannot be understood). What the commands do stands in ``launcher/commands/``.
"""

import contextlib
import os
import signal
import sys
from collections.abc import Sequence
from types import FrameType
from typing import NoReturn

from common.errors import StartupError
from common.settings import environment
from launcher.commands.registry import choose
from launcher.resolve import UsageError


def main(arguments: Sequence[str] | None = None) -> NoReturn:
    """The entry point of ``millrace`` and ``text-generation-launcher``."""
    signal.signal(signal.SIGTERM, _stop)
    try:
        status = run(sys.argv[1:] if arguments is None else arguments, environment())
    except UsageError as error:
        status = _refuse(str(error), 2)
    except StartupError as error:
        status = _refuse(str(error), 1)
    except BrokenPipeError:  # who reads our output has seen enough
        status = 128 + signal.SIGPIPE
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
    command, rest = choose(arguments)
    return command.load()(rest, environ)
