"""``python -m launcher.convert_tokenizer MODEL_DIR OUTPUT``: a slow tokenizer as tokenizer.json.

A process of its own, because transformers is slow to import and must not live in the launcher.
Runs no code from the model's directory. On failure the last line of stderr says why.
"""

import fcntl
import sys
from pathlib import Path


def main(model_dir: str, output: str) -> int:
    """Convert; the exit status."""
    sys.modules["torch"] = None  # type: ignore[assignment] # PERF: not needed, 3 s to import
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_dir, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} exists only as Python code")
        _write(tokenizer.backend_tokenizer.to_str(), Path(output))
    except Exception as error:  # whatever transformers raises becomes one line
        print(" ".join(str(error).split())[:500] or type(error).__name__, file=sys.stderr)
        return 1
    return 0


def _write(text: str, output: Path) -> None:
    """Write beside it and move into place: a half-written file is never found there.

    Whoever is killed meanwhile leaves a file that the next one writes anew. Two launchers that
    convert the same tokenizer do so one after the other, and the second finds it done.
    """
    unfinished = Path(f"{output}.unfinished")
    with unfinished.open("a", encoding="utf-8") as file:
        fcntl.flock(file, fcntl.LOCK_EX)
        if output.exists():
            unfinished.unlink(missing_ok=True)
            return
        file.truncate(0)
        file.write(text)
        file.flush()
        unfinished.replace(output)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
