"""Where the random model of a comparison is kept; written at first use, by a process of its own."""

import subprocess
import sys
from pathlib import Path

MODELS = Path(__file__).resolve().parent / "models"


def model_of(size: str) -> Path:
    """The directory of a size of ``bench.random_model``."""
    path = MODELS / size
    if not (path / "tokenizer_config.json").exists():
        subprocess.run([sys.executable, "-m", "bench.random_model", path, size], check=True)
    return path
