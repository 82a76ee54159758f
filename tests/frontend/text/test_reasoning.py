"""Reasoning is told from the answer."""

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from frontend.text.deltas import Content, PlainReader, Reasoning
from frontend.text.reasoning import (
    KNOWN_TAGS,
    ReasoningReader,
    ReasoningTags,
    detect_reasoning,
    is_open,
)

THINK = ReasoningTags("<think>", "</think>")


def split(deltas) -> tuple[str, str]:
    """Reasoning and content."""
    reasoning = "".join(delta.text for delta in deltas if isinstance(delta, Reasoning))
    return reasoning, "".join(delta.text for delta in deltas if isinstance(delta, Content))


def read(text: str, *, opened: bool = False, tags: ReasoningTags = THINK):
    """Reasoning and content of a text, the same whole and by characters."""
    results = []
    for part in ([text], list(text)):
        reader = ReasoningReader(PlainReader(), *tags, opened=opened)
        deltas = [*(d for piece in part for d in reader.push(piece)), *reader.finish()]
        kinds = (
            "".join(d.text for d in deltas if isinstance(d, kind)) for kind in (Reasoning, Content)
        )
        results.append(tuple(kinds))
    assert results[0] == results[1]
    return results[0]


@pytest.mark.parametrize("tags", KNOWN_TAGS)
def test_a_section_at_the_beginning(tags):
    text = f"\n {tags.start}I think {{}} < 3.\n{tags.end}\n\nYes.\n"
    assert read(text, tags=tags) == ("I think {} < 3.\n", "Yes.\n")


def test_the_prompt_may_have_opened_it():
    assert read("Hm.</think>\n\nYes", opened=True) == ("Hm.", "Yes")
    assert read("\n<think>Hm.</think>Yes", opened=True) == ("Hm.", "Yes")
    assert read("\n\n", opened=True) == ("\n\n", "")


def test_an_empty_section_leaves_nothing():
    assert read("<think></think>Yes") == ("", "Yes")
    assert read("</think>Yes", opened=True) == ("", "Yes")


def test_an_unfinished_section_is_reasoning_to_the_end():
    assert read("<think>Hm. </thi") == ("Hm. </thi", "")
    assert read("Hm.", opened=True) == ("Hm.", "")


@pytest.mark.parametrize(
    "text",
    ["Yes <think>no</think>", "<thi", "</think>", "<thinking>x", "\n", "", " " * 300 + "<think>"],
)
def test_everything_else_is_content(text):
    assert read(text) == ("", text)


def test_only_the_first_section_and_only_newlines_after_it_go():
    assert read("<think>a</think>\n <think>b</think>") == ("a", " <think>b</think>")


def test_it_comes_as_it_is_written():
    reader = ReasoningReader(PlainReader(), *THINK, opened=False)
    assert reader.push(" <th") == []
    assert reader.push("ink>a <") == [Reasoning("a ")]
    assert reader.push("b</th") == [Reasoning("<b")]
    assert reader.push("ink>\n") == []
    assert reader.push("\nc") == [Content("c")]


@given(
    pieces=st.lists(st.sampled_from(["<think>", "</think>", "<th", "ink>", "\n", " ", "a", "<"])),
    opened=st.booleans(),
)
def test_any_pieces_say_what_the_whole_says(pieces, opened):
    text = "".join(pieces)
    reader = ReasoningReader(PlainReader(), *THINK, opened=opened)
    deltas = [*(d for piece in pieces for d in reader.push(piece)), *reader.finish()]
    begun = re.match(r"\s*<think>", text)
    expected = ("", text)
    if begun or opened:
        body = text[begun.end() :] if begun else text
        reasoning, _, rest = body.partition("</think>")
        expected = (reasoning, rest.lstrip("\n"))
    assert split(deltas) == expected


def test_templates_show_their_tags():
    for tags in KNOWN_TAGS:
        assert detect_reasoning("{{ x.split('" + tags.end + "') }}") == tags
        assert detect_reasoning("{{ '" + tags.start + "' }}") == tags
    assert detect_reasoning("{{ messages }} I think") is None


def test_a_prompt_that_ends_with_the_tag_is_open():
    assert is_open("<|assistant|>\n<think>\n", THINK)
    assert is_open("<think>", THINK)
    assert not is_open("<think>\n\n</think>\n\n", THINK)
    assert not is_open("<think> so", THINK)


def test_a_message_to_be_continued_may_be_inside():
    prompt = "<|assistant|>\n<think>\nI"
    assert is_open(prompt, THINK, "\n<think>\nI")
    assert not is_open(prompt, THINK, "I <think> so")
    assert not is_open(prompt, THINK, "<think>I</think>I")
