"""The checkpoint as GGUF in bfloat16, by the converter in llama.cpp's source.

usage: python -m bench.peers.gguf LLAMA_CPP_SOURCE MODEL_DIR OUT.gguf

The converter knows pre-tokenizers by a hash over the vocabulary, which says nothing about one that
was just trained: ours splits as GPT-2's does, and is said to.
"""

import importlib
import runpy
import sys
from pathlib import Path
from typing import Any


def convert(source: Path, model: str, out: str) -> None:
    """Run the converter with our answer to its question."""
    sys.path[:0] = [str(source), str(source / "gguf-py")]
    base: Any = importlib.import_module("conversion.base")
    base.TextModel.get_vocab_base_pre = lambda model, tokenizer: "gpt-2"
    sys.argv = ["convert_hf_to_gguf.py", model, "--outtype", "bf16", "--outfile", out]
    runpy.run_path(str(source / "convert_hf_to_gguf.py"), run_name="__main__")


if __name__ == "__main__":
    convert(Path(sys.argv[1]), sys.argv[2], sys.argv[3])
