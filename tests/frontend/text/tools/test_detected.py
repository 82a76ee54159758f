"""Which format and tags a model has, from its template."""

from pathlib import Path

import pytest

from frontend.text.deltas import Content, PlainReader, Reasoning
from frontend.text.reasoning import ReasoningReader
from frontend.text.template import ChatTemplate
from frontend.text.tokenizer import Tokenizer
from frontend.text.tools import registry
from frontend.text.tools.detected import OutputStyle

BUILTIN = Path("common/models/builtin")
CALL = "{{ '{\"name\": ' + call.name + ', \"%s\": ' + call.arguments + '}' }}"
TEMPLATES = {
    "harmony": "{{ tools }}<|start|>assistant to=functions.{{ name }}<|channel|>x<|message|>",
    "hermes": "{{ tools }}<tool_call>\n" + CALL % "arguments" + "\n</tool_call>",
    "llama3": "<|start_header_id|>{{ tools }}" + CALL % "parameters",
    "mistral_list": "{{ tools }}[TOOL_CALLS][" + CALL % "arguments" + "]",
    "mistral": "{{ tools }}[TOOL_CALLS]{{ call.name }}[ARGS]{{ call.arguments }}",
    "json": "{{ tools }}" + CALL % "arguments",
}
OTHERS = {
    "functions between the same tags": "{{ tools }}<tool_call>\n<function={{ name }}>",
    "keys between the same tags": "{{ tools }}<tool_call>{{ name }}<arg_key>",
    "lists in a plural tag": "{{ tools }}within <tool_call> tags: <tool_calls>[",
    "parameters of another family": "{{ tools }}" + CALL % "parameters",
    "no tools": "{{ messages }}",
}


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.load(BUILTIN)


@pytest.mark.parametrize("name", TEMPLATES)
def test_templates_show_their_format(name):
    assert registry.detect(TEMPLATES[name]).name == name


@pytest.mark.parametrize("case", OTHERS)
def test_other_templates_are_generic(case):
    assert registry.detect(OTHERS[case]) is registry.GENERIC


def test_formats_have_names_of_their_own():
    assert [registry.by_name(found.name) for found in registry.FORMATS] == [*registry.FORMATS]
    assert registry.by_name("morse") is None


def test_llama_by_its_tag():
    assert registry.detect("<|python_tag|>").name == "llama3"


def test_the_built_in_model_writes_generic_calls(tokenizer, kit):
    style = OutputStyle.of(ChatTemplate.load(BUILTIN), tokenizer)
    assert style.format is registry.GENERIC
    assert style.needs_grammar
    assert style.reasoning is None
    assert style.opening("<think>") == ""
    assert style.shown_special_ids(kit.choice()) == frozenset()
    assert isinstance(style.reader(None), PlainReader)


def test_no_template(tokenizer):
    style = OutputStyle.of(None, tokenizer)
    assert style.format is registry.GENERIC
    assert style.reasoning_end == ("", None)


def test_a_template_that_knows_no_tools_leads_to_generic_calls(tokenizer):
    style = OutputStyle.of(ChatTemplate({"default": "<tool_call>{{ messages }}"}), tokenizer)
    assert style.format is registry.GENERIC


def test_the_template_for_tools_counts(tokenizer):
    sources = {"default": "{{ messages }}", "tool_use": TEMPLATES["hermes"]}
    style = OutputStyle.of(ChatTemplate(sources), tokenizer)
    assert style.format.name == "hermes"
    assert not style.needs_grammar
    assert OutputStyle.of(ChatTemplate({"rag": "{{ tools }}"}), tokenizer).needs_grammar


def test_markers_that_are_tokens_are_found(kinds, kit):
    raw = kinds.raw["byte_fallback"]()
    raw.add_special_tokens(["<tool_call>", "<think>"])
    raw.add_tokens(["</think>"])
    source = TEMPLATES["hermes"] + "{{ '</think>' }}"
    style = OutputStyle.of(ChatTemplate({"default": source}), Tokenizer(raw))
    call, think, end = (raw.token_to_id(text) for text in ("<tool_call>", "<think>", "</think>"))
    assert style.token_ids == {"<tool_call>": call, "<think>": think, "</think>": end}
    assert style.reasoning_end == ("</think>", end)
    assert style.shown_special_ids(None) == {think, end}
    assert style.shown_special_ids(kit.choice()) == {call, think, end}
    assert f"<[{call}]>" in style.grammar(kit.choice())
    assert f"<[{think}]>" in style.grammar(kit.choice())


def test_channels_are_read_without_tools_too(kinds, kit):
    raw = kinds.raw["byte_fallback"]()
    raw.add_special_tokens(["<|start|>", "<|channel|>", "<|message|>", "<|end|>", "<|call|>"])
    source = "{{ messages }}<|start|>assistant<|channel|>final<|message|></think>"
    style = OutputStyle.of(ChatTemplate({"default": source}), Tokenizer(raw))
    assert style.format.name == "harmony"
    assert style.reasoning is None
    assert style.end_ids == [raw.token_to_id("<|call|>")]
    shown = {raw.token_to_id(text) for text in ("<|start|>", "<|channel|>", "<|message|>")}
    shown.add(raw.token_to_id("<|end|>"))
    assert style.shown_special_ids(None) == style.shown_special_ids(kit.choice()) == shown
    opened = style.opening("<|start|>user<|message|>Hi<|end|><|start|>assistant")
    text = "<|channel|>analysis<|message|>Hm<|end|><|start|>assistant<|channel|>final<|message|>Yes"
    assert kit.read(style.reader(None, opened=opened), [text]) == [Reasoning("Hm"), Content("Yes")]
    demanded = style.reader(kit.choice("required"), opened=opened)
    assert kit.read(demanded, [text]) == [Reasoning("Hm")]


def test_other_models_end_by_their_own_tokens(tokenizer):
    style = OutputStyle.of(ChatTemplate({"default": TEMPLATES["hermes"]}), tokenizer)
    assert style.end_ids == []


def test_readers_fit_the_prompt(tokenizer, kit):
    source = TEMPLATES["hermes"] + "{{ '</think>' }}"
    style = OutputStyle.of(ChatTemplate({"default": source}), tokenizer)
    call = '<tool_call>\n{"name": "get", "arguments": {}}\n</tool_call>'
    said = kit.read(style.reader(kit.choice(), opened="<think>"), [f"Hm.</think>\n\n{call}"])
    assert said == [Reasoning("Hm."), *kit.calls(("get", "{}"))]
    plain = style.reader(None)
    assert isinstance(plain, ReasoningReader)
    assert kit.read(plain, [call]) == [Content(call)]
