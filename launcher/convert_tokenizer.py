"""``python -m launcher.convert_tokenizer MODEL_DIR OUTPUT``: a slow tokenizer as tokenizer.json.

A process of its own, because transformers is slow to import and must not live in the launcher.
Runs no code from the model's directory. On failure the last line of stderr says why.
"""

import os
import sys
from pathlib import Path


def main(model_dir: str, output: str) -> int:
    """Convert, then move into place, so that a half-written file is never found."""
    sys.modules["torch"] = None  # type: ignore[assignment] # PERF: not needed, 3 s to import
    from transformers import AutoTokenizer

    try:
        tokenizer = AutoTokenizer.from_pretrained(
            model_dir, use_fast=True, trust_remote_code=False, local_files_only=True
        )
        if not tokenizer.is_fast:
            raise ValueError(f"{type(tokenizer).__name__} exists only as Python code")
        unfinished = Path(f"{output}.{os.getpid()}")  # another launcher may convert the same one
        tokenizer.backend_tokenizer.save(str(unfinished))
        unfinished.replace(output)
    except Exception as error:  # whatever transformers raises becomes one line
        print(" ".join(str(error).split())[:500] or type(error).__name__, file=sys.stderr)
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1], sys.argv[2]))
