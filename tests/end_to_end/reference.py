"""What transformers says that the answer is."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

import torch


@dataclass(frozen=True)
class Expected:
    """Greedy continuation of a prompt."""

    ids: list[int]
    logprobs: list[float]


class Reference:
    """A model in transformers, float32 on the CPU."""

    def __init__(self, directory: Path) -> None:
        from transformers import AutoModelForCausalLM, AutoTokenizer

        self.tokenizer: Any = AutoTokenizer.from_pretrained(directory)
        self.model: Any = AutoModelForCausalLM.from_pretrained(directory, dtype=torch.float32)
        self.model.eval()

    def ids(self, text: str) -> list[int]:
        """The prompt as the server tokenizes it: with special tokens."""
        return list(self.tokenizer(text).input_ids)

    def greedy(self, prompt_ids: list[int], new_tokens: int) -> Expected:
        """``generate`` without sampling, up to and including the end token."""
        with torch.inference_mode():
            out = self.model.generate(
                torch.tensor([prompt_ids]),
                attention_mask=torch.ones(1, len(prompt_ids), dtype=torch.long),
                max_new_tokens=new_tokens,
                do_sample=False,
                return_dict_in_generate=True,
                output_logits=True,
            )
        ids = out.sequences[0, len(prompt_ids) :].tolist()
        rows = torch.stack([row[0] for row in out.logits]).float().log_softmax(-1)
        return Expected(ids, [rows[i, token].item() for i, token in enumerate(ids)])

    def prompt_logprobs(self, prompt_ids: list[int]) -> list[float]:
        """Log-probability of prompt tokens 1 … n-1."""
        with torch.inference_mode():
            rows = self.model(torch.tensor([prompt_ids])).logits[0].float().log_softmax(-1)
        return [rows[i, token].item() for i, token in enumerate(prompt_ids[1:])]
