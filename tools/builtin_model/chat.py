"""The built-in model's special tokens and chat template, and the rendering of one dialogue.

The template file is copied into `tokenizer_config.json`, so training and serving render alike.
"""

from __future__ import annotations

import json
from functools import cache
from pathlib import Path
from typing import Any, Final

from jinja2 import Template
from jinja2.sandbox import ImmutableSandboxedEnvironment

BOS: Final = "<|bos|>"
EOS: Final = "<|eos|>"
SYSTEM: Final = "<|system|>"
USER: Final = "<|user|>"
ASSISTANT: Final = "<|assistant|>"
TOOL: Final = "<|tool|>"
PAD: Final = "<|pad|>"
SPECIAL_TOKENS: Final = (BOS, EOS, SYSTEM, USER, ASSISTANT, TOOL, PAD)  # ids 0, 1, 2, ...

TEMPLATE_PATH: Final = Path(__file__).with_name("chat_template.jinja")

Message = dict[str, Any]


@cache
def _template() -> Template:
    environment = ImmutableSandboxedEnvironment(trim_blocks=True, lstrip_blocks=True)
    environment.filters["tojson"] = lambda value: json.dumps(value, ensure_ascii=False)
    return environment.from_string(TEMPLATE_PATH.read_text(encoding="utf-8"))


def render(
    messages: list[Message],
    tools: list[dict[str, Any]] | None = None,
    *,
    add_generation_prompt: bool = False,
) -> str:
    """Render a dialogue as transformers and the front end do, BOS first."""
    return _template().render(
        messages=messages,
        tools=tools,
        add_generation_prompt=add_generation_prompt,
        bos_token=BOS,
        eos_token=EOS,
    )


def user(text: str) -> Message:
    """One message of the user."""
    return {"role": "user", "content": text}


def assistant(text: str) -> Message:
    """One message of the assistant."""
    return {"role": "assistant", "content": text}
