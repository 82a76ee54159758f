"""Answers in channels: what is read of them, whole and broken, and what grammars demand."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from common.errors import ErrorKind, RequestError
from frontend.guidance.compile import compile_grammar
from frontend.guidance.source import GrammarSource
from frontend.guidance.trial import try_grammar
from frontend.text.deltas import CallArguments, CallStart, Content, Reasoning
from frontend.text.tools.harmony import Harmony
from tests.frontend.text.tools.vocabulary import Vocabulary

HARMONY = Harmony()
ASSISTANT = "<|start|>assistant"
ANALYSIS = "<|channel|>analysis<|message|>"
FINAL = "<|channel|>final<|message|>"
COMMENTARY = "<|channel|>commentary<|message|>"
THOUGHT = f"{ANALYSIS}Hm {{1}} < 2<|end|>{ASSISTANT}"
CITY = '{"city": "Köln", "days": 2}'
CALL = f"<|channel|>commentary to=functions.get_weather <|constrain|>json<|message|>{CITY}<|call|>"
MARKERS = (*HARMONY.marker_tokens, *HARMONY.end_tokens)

TO = "to=functions.get_weather"
CALLS = {
    "as trained": CALL,
    "as templates write it": f" {TO}<|channel|>commentary json<|message|>{CITY}",
    "without a type": f"<|channel|>commentary {TO}<|message|>{CITY}",
    "no blank": f"<|channel|>commentary {TO}<|constrain|>json<|message|>{CITY}",
    "without a prefix": f"<|channel|>commentary to=get_weather json<|message|>{CITY}",
    "without a channel": f" {TO} json<|message|>{CITY}<|call|>",
    "in the wrong channel": f"<|channel|>analysis {TO} json<|message|>{CITY}",
    "blanks": f"<|channel|>commentary {TO} json<|message|>\n{CITY}\n<|call|>\n",
    "without a marker": f"<|channel|>commentary {TO} {CITY}",
    "the role again": f"{ASSISTANT}{CALL}",
    "quoted": CALL.replace(CITY, json.dumps(CITY)),
}
BROKEN = {
    "plain text": ("Hello <b> {1}\n", [Content("Hello <b> {1}\n")]),
    "nothing": ("", []),
    "blank": (" \n", [Content(" \n")]),
    "a type alone": ("json", [Content("json")]),
    "a type and more": (" json is", [Content(" json is")]),
    "no marker before the text": ("<|channel|>final Well then", [Content(" Well then")]),
    "no end": (f"{ANALYSIS}Hm{FINAL}Yes", [Reasoning("Hm"), Content("Yes")]),
    "a marker inside": (f"{ANALYSIS}A<|message|>B<|constrain|>C", [Reasoning("ABC")]),
    "text after the end": (f"{FINAL}Yes<|return|> more", [Content("Yes\n\nmore")]),
    "blanks after the end": (f"{FINAL}Yes<|return|> \n", [Content("Yes")]),
    "another role": (
        f"{FINAL}Yes<|end|><|start|>user<|message|>Why?<|end|>",
        [Content("Yes"), Reasoning("Why?")],
    ),
    "an unknown channel": ("<|channel|>other<|message|>Yes", [Content("Yes")]),
    "a tool that there is not": (
        f"<|channel|>commentary to=functions.get_wether json<|message|>{CITY}<|call|>",
        [Content(CITY)],
    ),
    "a tool of the server": (
        "<|channel|>analysis to=python code<|message|>1 + 1<|call|>",
        [Reasoning("1 + 1")],
    ),
    "no arguments": (
        "<|channel|>commentary to=functions.get json<|message|>Berlin<|call|>",
        [Content("Berlin")],
    ),
    "text in a call": (
        f"{CALL[:-8]} Well<|call|>",
        [CallStart(0, "get_weather"), CallArguments(0, CITY), Content(" Well")],
    ),
    "text after a call": (
        f"{CALL} Well",
        [CallStart(0, "get_weather"), CallArguments(0, CITY), Content(" Well")],
    ),
}
CUTS = {
    "in the role": ("<|start|>assi", []),
    "in the channel": ("<|channel|>ana", []),
    "in the recipient": ("<|channel|>commentary to=functions.get_wea", []),
    "in the type": ("<|channel|>commentary to=functions.get_weather <|constrain|>js", []),
    "before the text": ("<|channel|>commentary to=functions.get_weather json<|message|>", []),
    "in the reasoning": (f"{ANALYSIS}Hm", [Reasoning("Hm")]),
    "in the arguments": (
        CALL[: CALL.index(CITY) + 8],
        [CallStart(0, "get_weather"), CallArguments(0, CITY[:8])],
    ),
}


@pytest.fixture
def reads(kit):
    """What is made of a text; the same whole and character by character."""

    def _reads(text: str, *, opened: str = ASSISTANT, tools: bool = True, **changes):
        choice = kit.choice(**changes) if tools else None
        whole = kit.read(HARMONY.reader(choice, opened=opened), [text])
        assert kit.read(HARMONY.reader(choice, opened=opened), list(text)) == whole
        return whole

    return _reads


@pytest.fixture(scope="module", params=["absent", "special", "added"])
def vocabulary(request) -> Vocabulary:
    return Vocabulary(request.param)


# --- reading --------------------------------------------------------------------------------------


@pytest.mark.parametrize("tools", [True, False])
def test_reasoning_and_an_answer(reads, tools):
    said = [Reasoning("Hm {1} < 2"), Content("Four.")]
    assert reads(f"{THOUGHT}{FINAL}Four.<|return|>", tools=tools) == said
    assert reads(f"{FINAL}Four.", tools=tools) == said[1:]


@pytest.mark.parametrize("case", CALLS)
def test_a_call(case, kit, reads):
    assert reads(CALLS[case]) == kit.calls(("get_weather", CITY))
    assert reads(THOUGHT + CALLS[case])[1:] == kit.calls(("get_weather", CITY))


def test_calls_of_any_names(kit, reads):
    for name in ("get", kit.odd.name):
        text = f"<|channel|>commentary to=functions.{name} json<|message|>{{}}<|call|>"
        assert reads(text) == kit.calls((name, "{}"))


def test_several_calls(kit, reads):
    text = f"{CALL}{ASSISTANT}{CALL.replace('get_weather', 'get').replace(CITY, '{}')}"
    both = kit.calls(("get_weather", CITY), ("get", "{}"))
    assert reads(text) == both
    assert reads(text, parallel=False) == [*both[:2], Content("{}")]


def test_markers_in_the_strings_of_arguments_stay(kit, reads):
    arguments = '{"city": "<|end|><|start|>assistant"}'
    assert reads(CALL.replace(CITY, arguments)) == kit.calls(("get_weather", arguments))


def test_arguments_come_as_they_are_written(kit):
    reader = HARMONY.reader(kit.choice(), opened=ASSISTANT)
    begin = CALL.index(CITY)
    assert reader.push(CALL[: begin + 1]) == [CallStart(0, "get_weather"), CallArguments(0, "{")]
    assert reader.push('"city": "K') == [CallArguments(0, '"city": "K')]


def test_a_preamble_is_content(kit, reads):
    text = f"{THOUGHT}{COMMENTARY}I will look.<|end|>{ASSISTANT}{CALL}"
    assert reads(text)[1:] == [Content("I will look."), *kit.calls(("get_weather", CITY))]


def test_messages_of_a_kind_stand_apart(reads):
    text = f"{COMMENTARY}Plan<|end|>{ASSISTANT}{THOUGHT}{THOUGHT}{FINAL}Done"
    assert reads(text) == [
        Content("Plan"),
        Reasoning("Hm {1} < 2\n\nHm {1} < 2"),
        Content("\n\nDone"),
    ]


def test_without_tools_there_are_no_calls(reads):
    assert reads(CALL, tools=False) == [Content(CITY)]


@pytest.mark.parametrize("case", BROKEN)
def test_what_breaks_the_format_is_not_lost(case, reads):
    text, said = BROKEN[case]
    assert reads(text) == said


@pytest.mark.parametrize("case", CUTS)
def test_nothing_is_made_of_markup_that_is_cut_off(case, reads):
    text, said = CUTS[case]
    assert reads(text) == said


@pytest.mark.parametrize(
    ("prompt", "opened", "said"),
    [
        (f"<|start|>user<|message|>Hi<|end|>{ASSISTANT}", ASSISTANT, [Content("more")]),
        ("<|start|>user<|message|>Hi<|end|>", "", [Content("more")]),
        ("", "", [Content("more")]),
        (f"{ASSISTANT}{FINAL}Well <", ASSISTANT + FINAL, [Content("more")]),
        (f"{ASSISTANT}{ANALYSIS}Hm", ASSISTANT + ANALYSIS, [Reasoning("more")]),
        (f"{ASSISTANT}{FINAL}Well<|return|>", "", [Content("more")]),
        (CALL[:9], "", [Content("more")]),
        (ASSISTANT + CALL[:-20], ASSISTANT + CALL[: CALL.index(CITY)], [Content("more")]),
    ],
)
def test_an_answer_goes_on_where_the_prompt_has_ended(reads, prompt, opened, said):
    assert HARMONY.opening(prompt) == opened
    assert reads("more", opened=opened) == said
    assert reads(f"<|end|>{ASSISTANT}{FINAL}Yes", opened=opened) == [Content("Yes")]


FRAGMENTS = st.sampled_from(
    [
        *MARKERS,
        *"{} \n",
        "assistant",
        "analysis",
        "final",
        "commentary",
        " to=functions.get",
        " to=",
        "_weather",
        " json",
        '{"a": 1}',
        "text",
        "<|",
    ]
)


@given(
    fragments=st.lists(FRAGMENTS, max_size=14),
    opened=st.sampled_from(["", ASSISTANT, ASSISTANT + ANALYSIS, ASSISTANT + FINAL]),
    cuts=st.lists(st.integers(0, 60), max_size=8),
)
@settings(max_examples=300)
def test_cuts_make_no_difference_and_no_markup_is_shown(kit, fragments, opened, cuts):
    text = "".join(fragments)
    at = sorted(min(cut, len(text)) for cut in cuts)
    pieces = [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]
    whole = kit.read(HARMONY.reader(kit.choice(), opened=opened), [text])
    assert kit.read(HARMONY.reader(kit.choice(), opened=opened), pieces) == whole
    shown = [delta.text for delta in whole if isinstance(delta, Content | Reasoning)]
    assert not any(marker in part for part in shown for marker in MARKERS)
    if not any(marker in text for marker in MARKERS) and text and not opened:
        assert whole == [Content(text)]


# --- grammars -------------------------------------------------------------------------------------


def follow(vocabulary: Vocabulary, source: GrammarSource, text: str) -> bool | str:
    return vocabulary.follow(compile_grammar(source), text)


def test_grammars_pass_their_check(kit, vocabulary):
    token_id = vocabulary.tokenizer.token_to_id
    for opened in ("", ASSISTANT, ASSISTANT + ANALYSIS, ASSISTANT + FINAL):
        for source in (
            HARMONY.demanded(kit.choice("required"), opened, token_id),
            HARMONY.final(SCHEMA, opened, token_id),
        ):
            assert try_grammar(source, vocabulary.guidance).error == ""
    wrong = GrammarSource("json_schema", '{"type": "house"}')
    verdict = try_grammar(HARMONY.final(wrong, ASSISTANT, token_id), vocabulary.guidance)
    assert "Invalid type: house" in verdict.error


@pytest.mark.parametrize("case", ["as trained", "as templates write it", "without a type"])
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_calls_pass_and_are_read_back(kit, vocabulary, case, mode):
    choice = kit.choice(mode)
    source = HARMONY.demanded(choice, ASSISTANT, vocabulary.tokenizer.token_to_id)
    call = CALLS[case].removesuffix("<|call|>")
    for text in (call, THOUGHT + call, call.replace("_weather", "").replace(CITY, "{}")):
        assert follow(vocabulary, source, text) is True
        assert follow(vocabulary, source, text[:-1]) is not True
        reader = HARMONY.reader(choice, opened=ASSISTANT)
        assert any(isinstance(delta, CallStart) for delta in kit.read(reader, [text]))
    wrong = call.replace("get_weather", "get_wether")
    assert str(follow(vocabulary, source, wrong)).endswith(("get_w", "get_", "get"))


def test_text_passes_where_the_model_may_choose(kit, vocabulary):
    token_id = vocabulary.tokenizer.token_to_id
    text = f"{THOUGHT}{FINAL}Hello {{1}} <"
    assert follow(vocabulary, HARMONY.demanded(kit.choice(), ASSISTANT, token_id), text) is True
    required = HARMONY.demanded(kit.choice("required"), ASSISTANT, token_id)
    assert follow(vocabulary, required, text) not in (True, False)
    assert follow(vocabulary, required, "") is False


SCHEMA = GrammarSource(
    "json_schema", '{"type": "object", "properties": {"a": {"type": "integer"}}}'
)
SOURCES = {
    "schema": SCHEMA,
    "regex": GrammarSource("regex", r"\{.*\}"),
    "lark": GrammarSource("lark", r"start: /\{.*\}/"),
    "gbnf": GrammarSource("gbnf", 'root ::= "{" [^}]* "}"'),
}


@pytest.mark.parametrize("kind", SOURCES)
def test_a_grammar_is_that_of_the_final_message(vocabulary, kind):
    source = HARMONY.final(SOURCES[kind], ASSISTANT, vocabulary.tokenizer.token_to_id)
    answer = '{"a":1}'
    assert follow(vocabulary, source, f"{FINAL}{answer}") is True
    assert follow(vocabulary, source, f"{THOUGHT}{FINAL}{answer}") is True
    assert follow(vocabulary, source, f"{THOUGHT}{FINAL}Hello") not in (True, False)
    assert follow(vocabulary, source, f"{THOUGHT}{COMMENTARY}") not in (True, False)
    assert follow(vocabulary, source, answer) == ""
    assert follow(vocabulary, source, THOUGHT) is False


@pytest.mark.parametrize(
    ("opened", "before"),
    [
        ("", f"{ASSISTANT}{THOUGHT}"),
        ("", ASSISTANT),
        (ASSISTANT + ANALYSIS, f"Hm<|end|>{ASSISTANT}"),
        (ASSISTANT + COMMENTARY, f"Hm<|end|>{ASSISTANT}"),
    ],
)
def test_what_is_demanded_follows_what_the_prompt_has_begun(kit, vocabulary, opened, before):
    token_id = vocabulary.tokenizer.token_to_id
    call = CALL.removesuffix("<|call|>")
    demanded = HARMONY.demanded(kit.choice("required"), opened, token_id)
    assert follow(vocabulary, demanded, before + call) is True
    assert follow(vocabulary, demanded, call) is not True
    final = HARMONY.final(SCHEMA, opened, token_id)
    assert follow(vocabulary, final, f'{before}{FINAL}{{"a":1}}') is True


def test_a_final_message_that_is_begun_is_constrained_itself(vocabulary):
    token_id = vocabulary.tokenizer.token_to_id
    assert HARMONY.final(SCHEMA, ASSISTANT + FINAL, token_id) == SCHEMA


def test_no_grammar_begins_inside_of_a_header(kit):
    with pytest.raises(RequestError, match="header") as refused:
        HARMONY.final(SCHEMA, f"{ASSISTANT}<|channel|>final", lambda _: None)
    assert refused.value.kind is ErrorKind.VALIDATION
