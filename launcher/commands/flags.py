"""What the commands that take the server's flags have in common. Starts nothing."""

import logging
from collections.abc import Mapping
from pathlib import Path

from common import logs
from launcher.arguments import CommandLine
from launcher.reference import help_text
from launcher.report import version
from launcher.resolve import Resolution, resolve

LOGGER = logging.getLogger("launcher")


def answered(line: CommandLine, command: str) -> bool:
    """Print what ``--help`` or ``--version`` asks a command for; whether one of them was given."""
    if line.help or line.version:
        print(help_text(command) if line.help else f"millrace {version()}")
    return line.help or line.version


def settle(line: CommandLine, environ: Mapping[str, str]) -> Resolution:
    """Resolve the settings, and set up the log as they say. Raises StartupError."""
    resolution = resolve(line.given, environ)
    logs.set_up("launcher", json_output=resolution["json_output"], level=resolution["log_level"])
    return resolution


def tell(resolution: Resolution) -> None:
    """Log what has been noticed so far, once."""
    for note in resolution.notes:
        LOGGER.log(logging.WARNING if note.level == "warning" else logging.INFO, "%s", note.text)
    resolution.notes.clear()


def tokenizers(resolution: Resolution, environ: Mapping[str, str]) -> Path:
    """Where converted tokenizers are kept from one start to the next."""
    from launcher.hub import open_hub

    return open_hub(resolution["huggingface_hub_cache"], environ, LOGGER.info).cache / "millrace"
