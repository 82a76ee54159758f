"""How a process says that it cannot start: a sentence in a file, and its exit status.

The file lies in the runtime directory; the launcher's listener sees it and ends the server.
"""

import os
from pathlib import Path

EXIT_CONFIGURATION = 78
"""``EX_CONFIG`` of sysexits.h: starting again would not help."""
FAILURE_FILE = "failure"


def record_failure(runtime_dir: str, sentence: str) -> None:
    """Leave the sentence for the launcher; the first one counts, without a directory none."""
    if not runtime_dir:
        return
    path = Path(runtime_dir) / FAILURE_FILE
    try:
        descriptor = os.open(path, os.O_WRONLY | os.O_CREAT | os.O_EXCL, 0o600)
    except OSError:
        return
    with os.fdopen(descriptor, "w", encoding="utf-8") as file:
        file.write(sentence + "\n")
