"""The command ``millrace``, run to its end."""

import os
import subprocess
import sys
from pathlib import Path

from tests.launcher.standins import ROOT


def millrace(
    home: Path, *arguments: str, cwd: Path = ROOT, **environ: str
) -> subprocess.CompletedProcess[str]:
    command = [sys.executable, "-m", "launcher", *arguments]
    kept = {"PATH": os.environ["PATH"], "HOME": str(home), "PYTHONPATH": str(ROOT)}
    return subprocess.run(
        command, capture_output=True, text=True, env={**kept, **environ}, cwd=cwd, timeout=60,
        check=False,
    )  # fmt: skip


def last(text: str) -> str:
    return text.strip().splitlines()[-1]
