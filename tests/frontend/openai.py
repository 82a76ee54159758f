"""What the tests of the OpenAI routes share: asking, and what the model was asked."""

from typing import Any

from common.messages import Submit
from tests.frontend.fakes import Server

MESSAGES = [{"role": "user", "content": "hello"}]
CHAT = "/v1/chat/completions"


def prompt(server: Server) -> str:
    """The text of the latest prompt."""
    spec = server.pipeline.of(Submit)[-1].spec
    return server.services.tokenizer.decode(spec.prompt_ids, skip_special_tokens=False)


def chat(server: Server, **fields: Any) -> Any:
    return server.post(CHAT, {"messages": MESSAGES, **fields})
