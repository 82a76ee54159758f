"""How a process says that it cannot start: a sentence, also in a file, and its exit status.

The file lies in the runtime directory; the launcher's listener sees it and ends the server.
"""

import os
import sys
from contextlib import suppress
from pathlib import Path

from common.logs import say
from common.settings import Settings

EXIT_CONFIGURATION = 78
"""``EX_CONFIG`` of sysexits.h: starting again would not help."""
FAILURE_FILE = "failure"


def record_failure(settings: Settings | None, process: str, sentence: str) -> None:
    """Say the sentence on standard error, and leave it for the launcher: the first one counts.

    The shards of a model fail alike: what has been left already is not said again. Without settings
    there is no place to leave it.
    """
    as_json = settings is not None and settings.json_output
    if settings is not None and settings.runtime_dir:
        path = Path(settings.runtime_dir) / FAILURE_FILE
        if not _leave(path, sentence) and _has(path, sentence):
            return
    sys.stderr.write(say(process, sentence, json_output=as_json) + "\n")


def _leave(path: Path, sentence: str) -> bool:
    """Whether nobody was before us."""
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return False
    with suppress(OSError), os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(sentence + "\n")  # without room for the words, the file says enough
    return True


def _has(path: Path, sentence: str) -> bool:
    try:
        return path.read_text(encoding="utf-8").strip() == sentence.strip()
    except OSError:
        return False
