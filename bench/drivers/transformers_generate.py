"""``transformers``' ``generate`` under load: static batches, as many sequences as streams.

usage: python -m bench.drivers.transformers_generate MODEL_DIR

Runs in the peer's interpreter; see ``exchange``.
"""

import sys
import time
from typing import Any

import torch
import transformers
from transformers import AutoModelForCausalLM, AutoTokenizer

from bench.drivers.exchange import Run, serve


def load() -> tuple[str, Run]:
    """The model in its own dtype, and how to run it."""
    tokenizer: Any = AutoTokenizer.from_pretrained(sys.argv[1], padding_side="left")
    tokenizer.pad_token = tokenizer.eos_token
    model: Any = AutoModelForCausalLM.from_pretrained(sys.argv[1], dtype="auto")
    model.eval()

    def run(prompts: list[str], streams: int, new_tokens: list[int]) -> dict[str, Any]:
        (tokens,) = set(new_tokens)  # a static batch has answers of one length
        began = time.perf_counter()
        for start in range(0, len(prompts), streams):
            batch = tokenizer(prompts[start : start + streams], return_tensors="pt", padding=True)
            with torch.inference_mode():
                model.generate(
                    **batch,
                    do_sample=False,
                    min_new_tokens=tokens,
                    max_new_tokens=tokens,
                    pad_token_id=tokenizer.pad_token_id,
                )
        return {"wall_s": time.perf_counter() - began, "tokens": sum(new_tokens)}

    return f"transformers {transformers.__version__}, torch {torch.__version__}", run


if __name__ == "__main__":
    serve(load)
