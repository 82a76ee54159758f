"""What each format's reader makes of what models write, well and badly."""

import json

import pytest

from frontend.text.deltas import CallArguments, CallStart, Content
from frontend.text.tools import registry

JSON, HERMES, LLAMA, LIST, ARGS = (
    registry.by_name(name) for name in ("json", "hermes", "llama3", "mistral_list", "mistral")
)
CITY = '{"city": "Köln {\\"}\\"}", "days": 2}'
CALL = f'{{"name": "get_weather", "arguments": {CITY}}}'
CLOCK_CALL = '{"name": "get", "arguments": {}}'

ONE = {
    "json": (JSON, CALL),
    "json, blanks": (JSON, f"\n\n {CALL}\n"),
    "json, wide": (JSON, CALL.replace('"name": ', '\n "name" :\n').replace(', "arg', '\n,\t"arg')),
    "hermes": (HERMES, f"<tool_call>\n{CALL}\n</tool_call>"),
    "hermes, tight": (HERMES, f"\n<tool_call>{CALL}</tool_call>\n"),
    "hermes, end lost": (HERMES, f"<tool_call>\n{CALL}\n</tool_"),
    "hermes, arguments first": (
        HERMES,
        f'<tool_call>\n{{"arguments": {CITY}, "name": "get_weather"}}\n</tool_call>',
    ),
    "hermes, quoted arguments first": (
        HERMES,
        f'<tool_call>\n{{"arguments": {json.dumps(CITY)}, "name": "get_weather"}}\n</tool_call>',
    ),
    "llama": (LLAMA, CALL.replace("arguments", "parameters")),
    "llama, type": (LLAMA, CALL.replace('{"name"', '{"type": "function", "name"')),
    "llama, tag": (LLAMA, f"<|python_tag|>{CALL}; "),
    "mistral list": (LIST, f"[TOOL_CALLS] [{CALL}]"),
    "mistral list, id": (LIST, f'[TOOL_CALLS][{CALL[:-1]}, "id": "x[y"}}]'),
    "mistral list, end lost": (LIST, f"[TOOL_CALLS][{CALL}"),
    "mistral": (ARGS, f"[TOOL_CALLS]get_weather[ARGS]{CITY}"),
    "mistral, id": (ARGS, f"[TOOL_CALLS]get_weather[CALL_ID]a1B2[ARGS]{CITY}"),
    "mistral, hidden token": (ARGS, f"[TOOL_CALLS] get_weather {CITY}\n"),
    "mistral, the older form": (ARGS, f"[TOOL_CALLS] [{CALL}]"),
}
SEVERAL = {
    "json": (JSON, "{}\n{}"),
    "hermes": (HERMES, "<tool_call>\n{}\n</tool_call>\n<tool_call>\n{}\n</tool_call>"),
    "hermes, no end": (HERMES, "<tool_call>{}\n<tool_call>{}"),
    "llama": (LLAMA, "{}; {}"),
    "llama, lines": (LLAMA, "{}\n{}"),
    "llama, tags": (LLAMA, "<|python_tag|>{}<|python_tag|>{}"),
    "mistral list": (LIST, "[TOOL_CALLS][{}, {}]"),
    "mistral list, marker again": (LIST, "[TOOL_CALLS][{}][TOOL_CALLS][{}]"),
}
NO_CALLS = {
    "plain": "Hello {there}, 1 < 2\n",
    "nothing": "",
    "blank": " \n",
    "other JSON": '{"answer": "get_weather", "n": [1]}',
    "a name": '{"name": "Alice", "arguments": {"city": "x"}}',
    "a number": '{"name": 3}',
    "no arguments": '{"name": "get_weather"}',
    "null arguments": '{"name": "get_weather", "arguments": null}',
    "a list": '{"name": "get_weather", "arguments": [1]}',
    "a text": '{"name": "get_weather", "arguments": "Köln"}',
    "arguments of nobody": '{"arguments": {}, "name": "Alice"}',
    "arguments alone": '{"arguments": {"city": "a\nb"}}',
    "arguments twice": '{"arguments": {}, "parameters": {}, "name": "get"}',
    "a schema": '{"name": "get_weather", "description": "x", "arguments": {}}',
    "not JSON": "{name: get_weather}",
    "broken": '{"name": "get_weather" "arguments": {}}',
    "cut in the name": '{"name": "get_wea',
    "cut after the name": '{"name": "get_weather", "argu',
    "a bad escape": '{"name": "get\\x"}',
    "cut in an escape": '{"name": "get\\',
    "a list of lists": f"[[{CALL}]]",
    "many blanks": " " * 300 + CALL,
    "many blanks inside": CALL.replace(" ", " " * 300),
}
MARKED = {
    "json": (JSON, "%s"),
    "hermes": (HERMES, "<tool_call>\n%s\n</tool_call>"),
    "llama": (LLAMA, "<|python_tag|>%s"),
    "mistral list": (LIST, "[TOOL_CALLS][%s]"),
    "mistral": (ARGS, "[TOOL_CALLS]%s"),
}


@pytest.mark.parametrize("case", ONE)
def test_one_call(case, kit, says):
    style, text = ONE[case]
    assert says(style, text) == kit.calls(("get_weather", CITY))


@pytest.mark.parametrize("case", SEVERAL)
def test_several_calls(case, kit, says):
    style, text = SEVERAL[case]
    text = text.replace("{}", CALL, 1).replace("{}", CLOCK_CALL, 1)
    assert says(style, text) == kit.calls(("get_weather", CITY), ("get", "{}"))


def test_several_calls_after_their_names(kit, says):
    text = f"[TOOL_CALLS]get[ARGS]{{}}[TOOL_CALLS]get_weather[ARGS]{CITY}"
    assert says(ARGS, text) == kit.calls(("get", "{}"), ("get_weather", CITY))


@pytest.mark.parametrize("case", NO_CALLS)
@pytest.mark.parametrize("form", MARKED)
def test_what_is_no_call_is_content_to_the_last_character(case, form, says):
    style, pattern = MARKED[form]
    text = pattern.replace("%s", NO_CALLS[case])
    assert says(style, text) == ([Content(text)] if text else [])


@pytest.mark.parametrize("form", [form for form in MARKED if form not in ("json",)])
def test_text_around_calls(form, kit, says):
    style, pattern = MARKED[form]
    inner = f"get_weather[ARGS]{CITY}" if form == "mistral" else CALL
    text = "Let me look.\n" + pattern.replace("%s", inner) + "\n\nDone."
    assert says(style, text) == [
        Content("Let me look.\n"),
        *kit.calls(("get_weather", CITY)),
        Content("\n\nDone."),
    ]


def test_a_bare_object_after_text_is_text(says):
    for style in (JSON, LLAMA):
        assert says(style, f"Look: {CALL}") == [Content(f"Look: {CALL}")]


def test_text_after_a_bare_call_is_content(kit, says):
    assert says(JSON, f"{CALL} Done {CALL}") == [
        *kit.calls(("get_weather", CITY)),
        Content(f" Done {CALL}"),
    ]


@pytest.mark.parametrize("form", MARKED)
def test_one_call_only_if_calls_are_not_parallel(form, kit, says):
    style, pattern = MARKED[form]
    one = pattern.replace("%s", f"get[ARGS]{CITY}" if form == "mistral" else CLOCK_CALL)
    said = says(style, f"{one}\n{one}", parallel=False)
    expected = CITY if form == "mistral" else "{}"
    assert said == [*kit.calls(("get", expected)), Content(f"\n{one}")]
    assert says(style, f"{one}\n", parallel=False) == said[:-1]


@pytest.mark.parametrize("form", MARKED)
def test_what_a_cut_off_call_has_said_stays_and_nothing_is_made_up(form, kit):
    style, pattern = MARKED[form]
    whole = pattern.replace("%s", f"get_weather[ARGS]{CITY}" if form == "mistral" else CALL)
    begin = whole.index(CITY)
    for end in range(begin + 1, len(whole)):
        said = kit.read(style.reader(kit.choice()), [whole[:end]])
        assert said == kit.calls(("get_weather", CITY[: end - begin]))


def test_a_call_starts_with_its_arguments_and_goes_on_as_they_come(kit):
    reader = HERMES.reader(kit.choice())
    assert reader.push('<tool_call>\n{"name": "get_weather", "arguments": ') == []
    assert reader.push('{"city"') == [CallStart(0, "get_weather"), CallArguments(0, '{"city"')]
    assert reader.push(': "<tool_') == [CallArguments(0, ': "<tool_')]
    assert reader.push('"}') == [CallArguments(0, '"}')]
    assert reader.push("}\n</tool_call>") == []


def test_text_is_given_as_it_comes(kit):
    reader = HERMES.reader(kit.choice())
    assert reader.push("1 <") == [Content("1 ")]
    assert reader.push(" 2 <tool") == [Content("< 2 ")]
    assert reader.push("s>") == [Content("<tools>")]
    reader = JSON.reader(kit.choice())
    assert reader.push('{"name": "Ali') == []
    assert reader.push('ce"') == [Content('{"name": "Alice"')]
    assert reader.push(', "x') == [Content(', "x')]


@pytest.mark.parametrize(
    ("broken", "kept"),
    [
        ('{"city": nix}', '{"city": n'),
        ('{"city": "x",}', '{"city": "x",'),
        ('{"days": 01}', '{"days": 0'),
        ("{city: 1}", "{"),
        ('{"city" "x"}', '{"city" '),
        ('{"city": "\\q"}', '{"city": "\\'),
        ('{"days": [1}}', '{"days": [1'),
        ('{"days": -}', '{"days": -'),
    ],
)
def test_arguments_that_break_go_on_as_content(broken, kept, kit, says):
    text = CALL.replace(CITY, broken)
    rest = broken[len(kept) :] + "}"
    assert says(JSON, text) == [*kit.calls(("get_weather", kept)), Content(rest)]


def test_arguments_in_a_string(kit, says):
    def quoted(string: str) -> str:
        return CALL.replace(CITY, string)

    plain = '"{\\"city\\": \\"K\\u00f6ln \\\\\\" \\ud83d\\ude00\\/\\n\\", \\"days\\": 2} "'
    assert says(JSON, quoted(plain)) == kit.calls(
        ("get_weather", '{"city": "Köln \\" 😀/\\n", "days": 2}')
    )
    lone = '"{\\"city\\": \\"\\ud83d!\\"}"'
    assert says(JSON, quoted(lone))[:2] == kit.calls(("get_weather", '{"city": "'))
    after = '"{} {}"'
    assert says(JSON, quoted(after)) == [*kit.calls(("get_weather", "{}")), Content(' {}"}')]
    unfinished = '"{\\"days\\": 1"'
    assert says(JSON, quoted(unfinished)) == [
        *kit.calls(("get_weather", '{"days": 1')),
        Content('"}'),
    ]
    cut = kit.read(JSON.reader(kit.choice()), [quoted(plain).partition("00f6")[0]])
    assert cut == kit.calls(("get_weather", '{"city": "K'))


@pytest.mark.parametrize("character", ["\n", "\t", "\0", "\x1f", "\r\n\n"])
def test_control_characters_in_strings_are_given_as_json_writes_them(character, kit, says):
    city = f"a{character}b\x7f"
    for raw in (f'{{\n"city":\t"{city}"\n}}', f'{{"x{character}": "", "city": "{city}"}}'):
        (start, arguments) = says(JSON, CALL.replace(CITY, raw))
        assert start == CallStart(0, "get_weather")
        assert json.loads(arguments.text) == json.loads(raw, strict=False)
        for quoted in (json.dumps(raw), f'"{raw.replace(chr(34), chr(92) + chr(34))}"'):
            assert says(JSON, CALL.replace(CITY, quoted)) == [start, arguments]


def test_what_breaks_after_the_arguments_is_content(kit, says):
    for rest in ('"x"}', ', "name": "get"}', ', "arguments": {}}', ', "id": 3}', "]"):
        said = says(JSON, CALL[:-1] + rest)
        assert said[:-1] == kit.calls(("get_weather", CITY))
        assert said[-1] == Content(rest)
