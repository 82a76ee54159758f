"""Dialogues with a tool list: the call, the refusal to call, and the sentence after the result."""

from __future__ import annotations

from random import Random
from typing import Any, Final

from tools.builtin_model.chat import Message, assistant, render, user
from tools.builtin_model.objects import NO_TOOL, TOOL_KINDS, TOOL_PROMPTS, ToolKind, dump, schema

_SYSTEMS: Final = ("You are a helpful assistant.", "You can use tools.", "Answer briefly.")


def tool_dialogue(rng: Random, question: str, answer: str) -> str:
    """Render one dialogue with tools; (`question`, `answer`) is asked where no tool is needed.

    A last message that ends in "---" and a tool prompt asks for the form that the server's grammar
    enforces, `{"function": {"_name": ..., ...}}`; otherwise a call is `{"name", "arguments"}`.
    """
    kinds = rng.sample(TOOL_KINDS, rng.choice((1, 1, 1, 2, 3)))
    names = [[rng.choice(options) for options in kind.argument_names] for kind in kinds]
    tools = [schema(kind, own, rng) for kind, own in zip(kinds, names, strict=True)]
    grammar_form = rng.random() < 0.5
    if grammar_form and rng.random() < 0.7:
        tools.append(NO_TOOL)
    if rng.random() < 0.5:
        tools = [{"type": "function", "function": tool} for tool in tools]
    start = [{"role": "system", "content": rng.choice(_SYSTEMS)}] if rng.random() < 0.4 else []

    if rng.random() < 0.25 and (not grammar_form or len(tools) > len(kinds)):
        call = {"function": {"_name": "no_tool"}}
        turns = [user(_ask(rng, question, grammar_form)), assistant(dump(call) if grammar_form else answer)]  # noqa: E501  # fmt: skip
        return render(start + turns, tools)

    which = rng.randrange(len(kinds))
    turns = _call_turns(rng, kinds[which], names[which], grammar_form)
    return render(start + turns, tools)


def _ask(rng: Random, question: str, grammar_form: bool) -> str:
    return f"{question}\n---\n{rng.choice(TOOL_PROMPTS)}" if grammar_form else question


def _call_turns(rng: Random, kind: ToolKind, names: list[str], grammar_form: bool) -> list[Message]:
    values = [draw(rng) for draw in kind.draws]
    arguments: dict[str, Any] = dict(zip(names, values, strict=True))
    question = rng.choice(kind.asks).format(*values)
    if grammar_form:
        call: dict[str, Any] = {"function": {"_name": kind.name} | arguments}
        return [user(_ask(rng, question, True)), assistant(dump(call))]
    call = {"name": kind.name, "arguments": arguments}
    turns = [user(question), assistant(dump(call))]
    if rng.random() < 0.4:
        result, said = rng.choice(kind.results)
        turns += [{"role": "tool", "content": dump(result)}, assistant(said.format(*values))]
    return turns
