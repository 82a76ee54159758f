"""Cases that run in another interpreter and report one JSON line each.

Runs in the tests' process. A line is ``{"case": name, "passed": bool, "error": text}``. Knows the
commands and the lines, nothing of the cases.
"""

import json
import os
import subprocess
from pathlib import Path
from typing import Any

LIMIT_S = 100
"""Below the time limit of a test, so that what was printed is seen."""
_KEPT = ("PATH", "HOME", "LANG", "TMPDIR")


def run(command: list[str], url: str, folder: Path) -> dict[str, Any]:
    """Run all cases of one file against ``url``; case to its line. Raises AssertionError."""
    environment = {name: os.environ[name] for name in _KEPT if name in os.environ}
    done = subprocess.run(
        command,
        cwd=folder,
        env={**environment, "MILLRACE_URL": url, "HF_HUB_DISABLE_TELEMETRY": "1"},
        stdin=subprocess.DEVNULL,
        capture_output=True,
        text=True,
        timeout=LIMIT_S,
        check=False,
    )
    lines = [json.loads(line) for line in done.stdout.splitlines() if line.startswith("{")]
    assert lines, f"no case was reported:\n{done.stdout}\n{done.stderr}"
    return {line["case"]: line for line in lines}


def check(results: dict[str, Any], case: str) -> None:
    """The case was reported, and passed. Raises AssertionError with what the client said."""
    assert case in results, f"{case} was not reported, only {sorted(results)}"
    assert results[case]["passed"] is True, results[case]["error"]
