"""Any calls, written in any format and cut anywhere, are read as they were written."""

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from frontend.text.deltas import CallArguments, CallStart, Content
from frontend.text.tools import registry
from frontend.text.tools.json_scan import ObjectScanner
from frontend.text.tools.tool import Tool

MARKERS = [token for style in registry.FORMATS for token in style.marker_tokens]
TEXTS = st.text(max_size=12) | st.sampled_from([*MARKERS, '"', "\\", "}}", '{"name": "f"', "\n"])
VALUES = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False)
    | TEXTS,
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(TEXTS, inner, max_size=3),
    max_leaves=6,
)  # fmt: skip
OBJECTS = st.dictionaries(TEXTS, VALUES, max_size=3)
NAMES = st.text(st.characters(exclude_categories=["Cc", "Cs"]), min_size=1, max_size=8).filter(
    lambda name: name.strip() == name and "[" not in name
)
STYLES = st.sampled_from(["json", "hermes", "llama3", "mistral_list", "mistral"])
ALL_STYLES = STYLES | st.just("harmony")
FRAGMENTS = st.sampled_from(
    [
        *MARKERS,
        *'{}[]:,; \n"\\',
        '{"name": "f", ',
        '"arguments": {',
        '"parameters": {}}',
        '{"arguments": {"a": 1}, "name": "f"}',
        '{"name": "f", "arguments": {"a": "\\u00e9"}}',
        '"arguments": "{\\"a\\": 1}"}',
        "f",
        "</",
        "\\u00",
        "1e",
    ]
)


def write(style: str, calls: list[tuple[str, str]]) -> str:
    """As a model would."""
    key = "parameters" if style == "llama3" else "arguments"
    objects = [
        f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}": {text}}}'
        for name, text in calls
    ]
    if style == "json":
        return "\n".join(objects)
    if style == "hermes":
        return "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in objects)
    if style == "llama3":
        return "; ".join(objects)
    if style == "mistral_list":
        return f"[TOOL_CALLS][{', '.join(objects)}]"
    if style == "harmony":
        head = "<|start|>assistant<|channel|>commentary to=functions."
        return "".join(f"{head}{name} json<|message|>{text}<|call|>" for name, text in calls)
    return "".join(f"[TOOL_CALLS]{name}[ARGS]{text}" for name, text in calls)


def cut(data, text: str) -> list[str]:
    """The text in pieces, some of them empty."""
    at = sorted(data.draw(st.lists(st.integers(0, len(text)), max_size=8)))
    return [text[a:b] for a, b in zip([0, *at], [*at, len(text)], strict=True)]


@given(
    style=ALL_STYLES,
    calls=st.lists(st.tuples(NAMES, OBJECTS), min_size=1, max_size=3),
    ascii_only=st.booleans(),
    indent=st.sampled_from([None, None, 1]),
    quoted=st.booleans(),
    data=st.data(),
)
def test_calls_are_read_as_they_were_written(kit, style, calls, ascii_only, indent, quoted, data):
    texts = [json.dumps(value, ensure_ascii=ascii_only, indent=indent) for _, value in calls]
    names = [name for name, _ in calls]
    written = [json.dumps(text, ensure_ascii=ascii_only) if quoted else text for text in texts]
    tools = [Tool(name, "", {}) for name in dict.fromkeys(names)]
    text = write(style, list(zip(names, written, strict=True)))
    reader = registry.by_name(style).reader(kit.choice(tools=tools))
    assert kit.read(reader, cut(data, text)) == kit.calls(*zip(names, texts, strict=True))


@given(style=STYLES, fragments=st.lists(FRAGMENTS | TEXTS, max_size=12), data=st.data())
@settings(max_examples=300)
def test_cuts_make_no_difference_and_nothing_is_made_up(kit, style, fragments, data):
    text = "".join(fragments)
    choice = kit.choice(tools=[Tool("f", "", {})], parallel=data.draw(st.booleans()))
    whole = kit.read(registry.by_name(style).reader(choice), [text])
    assert kit.read(registry.by_name(style).reader(choice), cut(data, text)) == whole
    at = 0
    for delta in whole:
        if isinstance(delta, Content) or (
            isinstance(delta, CallArguments) and delta.text in text[at:]  # else it was quoted
        ):
            assert delta.text in text[at:]
            at = text.index(delta.text, at) + len(delta.text)
    starts = [delta for delta in whole if isinstance(delta, CallStart)]
    assert starts == [CallStart(index, "f") for index in range(len(starts))]
    if not starts:
        assert whole == ([Content(text)] if text else [])


@given(value=OBJECTS, data=st.data())
def test_the_scanner_agrees_with_a_json_parser(value, data):
    text = json.dumps(value, ensure_ascii=data.draw(st.booleans()))
    if data.draw(st.booleans()):  # spoil it
        at = data.draw(st.integers(1, len(text) - 1))
        text = text[:at] + data.draw(st.sampled_from('{}[]:,"\\ 01-.eEtn')) + text[at + 1 :]
    scanner = ObjectScanner()
    at = 0
    for piece in cut(data, text):
        at += scanner.scan(piece, 0)
        if scanner.done or scanner.broken:
            break
    try:
        _, end = json.JSONDecoder(strict=False).raw_decode(text)
    except ValueError:
        assert not scanner.done
    else:
        assert scanner.done
        assert at == end


@pytest.mark.parametrize("number", ["0", "-0", "10", "1.50", "-1e5", "2E+03", "0.1e-1"])
def test_numbers(number):
    scanner = ObjectScanner()
    assert scanner.scan(f'{{"a":{number}}}', 0) == len(number) + 6
    assert scanner.done


@pytest.mark.parametrize("number", ["00", "+1", ".5", "1.", "1.e1", "1e", "--1", "0x1", "1e+"])
def test_no_numbers(number):
    scanner = ObjectScanner()
    scanner.scan(f'{{"a":{number}}}', 0)
    assert scanner.broken
