"""Gives a model without ``tokenizer.json`` one, in a directory beside the original.

The conversion runs once, in a process of its own that may import transformers
(``launcher/convert_tokenizer.py``); the launcher itself never does.
"""

import contextlib
import hashlib
import subprocess
import sys
from pathlib import Path

from common.errors import StartupError
from common.settings import environment
from launcher.children import child_environment

_LIMIT_S = 600
_SOURCES = ("*.json", "*.model", "*.txt", "*.tiktoken", "*.jinja")
_TOKENIZERS = ("*token*", "*vocab*", "*.model", "*.tiktoken", "merges.txt", "*.bpe")
"""A directory with nothing of that kind has no tokenizer in any form."""


def prepared_directory(model_dir: Path, place: Path) -> Path:
    """Where the prepared copy belongs: a new place when the tokenizer's files change."""
    marks = [
        f"{path.name}:{path.stat().st_size}:{path.stat().st_mtime_ns}"
        for pattern in _SOURCES
        for path in sorted(model_dir.glob(pattern))
    ]
    digest = hashlib.sha256("\n".join([str(model_dir.resolve()), *marks]).encode()).hexdigest()
    return place / f"prepared-{digest[:24]}"


def check_sources(model_dir: Path) -> None:
    """Raises StartupError if there is nothing that a ``tokenizer.json`` could be made of."""
    if not any(any(model_dir.glob(pattern)) for pattern in _TOKENIZERS):
        raise StartupError(
            f"{model_dir} has no tokenizer: there is no tokenizer.json, nor what one could be made "
            "of (tokenizer.model, vocab.json …); fetch the repository whole"
        )


def prepare(model_dir: Path, place: Path) -> Path:
    """A directory with links to the model's files and a converted ``tokenizer.json``.

    Raises StartupError if the tokenizer cannot be converted.
    """
    target = prepared_directory(model_dir, place)
    if (target / "tokenizer.json").exists():
        return target
    check_sources(model_dir)
    target.mkdir(parents=True, exist_ok=True)
    for path in model_dir.iterdir():
        if path.is_file() and path.name != "tokenizer.json":
            with contextlib.suppress(FileExistsError):
                (target / path.name).symlink_to(path.resolve())
    _convert(model_dir, target)  # last: who finds its result has all the rest
    return target


def _convert(model_dir: Path, target: Path) -> None:
    command = [sys.executable, "-P", "-m", "launcher.convert_tokenizer"]
    try:
        answer = subprocess.run(  # noqa: S603 - our own module
            [*command, str(model_dir), str(target / "tokenizer.json")],
            capture_output=True, text=True, timeout=_LIMIT_S, check=False,
            env=child_environment(environment()),
        )  # fmt: skip
    except subprocess.TimeoutExpired:
        raise StartupError(f"converting the tokenizer of {model_dir} took too long") from None
    if answer.returncode != 0:
        lines = [line.strip() for line in answer.stderr.splitlines() if line.strip()]
        why = lines[-1] if lines else f"exit status {answer.returncode}"
        raise StartupError(
            f"{model_dir} has no tokenizer.json, and its tokenizer cannot be converted: {why}"
        )
