"""Grammars, followed by llguidance over real tokens: they let calls through and nothing else."""

import json

import pytest
from llguidance import LLMatcher

from frontend.text.reasoning import ReasoningTags
from frontend.text.tools import registry
from frontend.text.tools.detected import OutputStyle
from frontend.text.tools.tool import Tool
from tests.frontend.text.tools.vocabulary import Vocabulary

NESTED = Tool(
    "nested",
    "",
    {
        "properties": {"tree": {"$ref": "#/$defs/Tree"}, "note": {"type": "string"}},
        "required": ["tree"],
        "$defs": {
            "Tree": {
                "type": "object",
                "properties": {"leaves": {"type": "array", "items": {"$ref": "#/$defs/Tree"}}},
                "additionalProperties": False,
            }
        },
    },
)
CITY = '{"city": "Köln {}\\"", "days": 2}'
NAMES = ("json", "hermes", "llama3", "mistral_list", "mistral")


@pytest.fixture(scope="module", params=["absent", "special", "added"])
def vocabulary(request) -> Vocabulary:
    return Vocabulary(request.param)


@pytest.fixture(scope="module")
def bare() -> Vocabulary:
    return Vocabulary("absent")


def write(style: str, *calls: tuple[str, str]) -> str:
    key = "parameters" if style == "llama3" else "arguments"
    objects = [
        f'{{"name": {json.dumps(name, ensure_ascii=False)}, "{key}": {text}}}'
        for name, text in calls
    ]
    return {
        "json": "\n".join(objects),
        "hermes": "\n".join(f"<tool_call>\n{text}\n</tool_call>" for text in objects),
        "llama3": "; ".join(objects),
        "mistral_list": f"[TOOL_CALLS][{', '.join(objects)}]",
        "mistral": "".join(f"[TOOL_CALLS]{name}[ARGS]{text}" for name, text in calls),
    }[style]


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_calls_pass_and_are_read_back(name, mode, kit, vocabulary):
    style = registry.by_name(name)
    choice = kit.choice(mode, tools=[*kit.tools, NESTED])
    grammar = style.grammar(choice, vocabulary.tokenizer.token_to_id)
    tree = '{"tree": {"leaves": [{}, {"leaves": []}]}, "note": ""}'
    calls = [("get_weather", CITY), ("get", "{}"), (kit.odd.name, "{}"), ("nested", tree)]
    for some in (calls[:1], calls, calls[2:]):
        text = write(name, *some)
        assert vocabulary.follow(grammar, text) is True
        assert kit.read(style.reader(choice), [text]) == kit.calls(*some)
        assert vocabulary.follow(grammar, text[:-1]) is not True


@pytest.mark.parametrize("name", NAMES)
def test_required_calls_let_no_text_pass(name, kit, vocabulary):
    grammar = registry.by_name(name).grammar(
        kit.choice("required"), vocabulary.tokenizer.token_to_id
    )
    call = write(name, ("get", "{}"))
    assert vocabulary.follow(grammar, "Hello") == ""
    assert vocabulary.follow(grammar, "") is False
    assert vocabulary.follow(grammar, f"{call} Hello") not in (True, False)


@pytest.mark.parametrize("name", NAMES)
def test_where_the_model_may_choose_text_passes(name, kit, vocabulary):
    grammar = registry.by_name(name).grammar(kit.choice(), vocabulary.tokenizer.token_to_id)
    for text in ("Hello {name}, 1 < 2 [3]\n\nYes.", "", "\n Well", "<tool [TOOL"):
        assert vocabulary.follow(grammar, text) is True


@pytest.mark.parametrize("name", ["hermes", "llama3", "mistral_list", "mistral"])
def test_after_text_a_marker_begins_calls_and_nothing_else(name, kit, vocabulary):
    grammar = registry.by_name(name).grammar(kit.choice(), vocabulary.tokenizer.token_to_id)
    tag = "<|python_tag|>" if name == "llama3" else ""
    good = f"Let me look. {tag}{write(name, ('get_weather', CITY), ('get', '{}'))}"
    assert vocabulary.follow(grammar, good) is True
    bad = good.replace("get_weather", "get_wether")
    assert str(vocabulary.follow(grammar, bad)).endswith(("get_w", "get_", "get", '"'))


@pytest.mark.parametrize("name", ["json", "llama3"])
def test_text_does_not_begin_like_a_call(name, kit, bare):
    grammar = registry.by_name(name).grammar(kit.choice(), bare.tokenizer.token_to_id)
    assert bare.follow(grammar, ' {"answer": 1}').strip() == ""
    assert bare.follow(grammar, '{"answer": 1}') in ("{", '{"')


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_one_call_where_calls_are_not_parallel(name, mode, kit, bare):
    style = registry.by_name(name)
    one, two = write(name, ("get", "{}")), write(name, ("get", "{}"), ("get", "{}"))
    single = style.grammar(kit.choice(mode, parallel=False), bare.tokenizer.token_to_id)
    several = style.grammar(kit.choice(mode), bare.tokenizer.token_to_id)
    assert bare.follow(single, one) is True
    assert isinstance(bare.follow(single, two), str)
    assert bare.follow(several, two) is True


@pytest.mark.parametrize(
    ("arguments", "passes"),
    [
        ('{"city":"x"}', True),
        ('{ "city" : "x" }', True),
        ('{"city":  "x"}', False),
        ('{"city":\n"x"}', False),
        ('{"days": 1, "city": "x"}', False),
        ('{"days": 1}', False),
        ('{"city": "x", "more": 1}', False),
        ("{}", False),
        ("3", False),
    ],
)
def test_arguments_are_compact_in_order_and_those_of_the_schema(arguments, passes, kit, bare):
    grammar = registry.GENERIC.grammar(kit.choice("required"), bare.tokenizer.token_to_id)
    assert (bare.follow(grammar, write("json", ("get_weather", arguments))) is True) == passes


@pytest.mark.parametrize(
    ("parameters", "arguments", "passes"),
    [
        ({"type": "object"}, '{"a": 1}', False),
        ({"additionalProperties": True}, '{"a": 1}', True),
        ({"properties": {"a": {}}, "additionalProperties": True}, '{"b": 1}', True),
        ({"properties": {"a": {}}, "required": ["a", "b"]}, '{"a": 1, "b": 2}', True),
        ({"type": ["object", "null"], "properties": {"a": {}}}, "null", False),
        ({"allOf": [{"properties": {"a": {}}, "required": ["a"]}]}, '{"a": 1}', True),
        ({"properties": {"a": {"type": "array", "uniqueItems": True}}}, '{"a": [1]}', True),
        ({"properties": {"a": {"type": "string", "pattern": "^x$"}}}, '{"a": "y"}', False),
        ({"properties": {"a": {"type": "string", "pattern": r"^\\bx$"}}}, '{"a": "y"}', False),
        ({"properties": {"a": {"type": "string", "pattern": r"^(?!\s*$).+"}}}, '{"a": "y"}', True),
        ({"properties": {"a": {"items": {"pattern": r"\bx\Z"}}}}, '{"a": ["y"]}', True),
        ({"properties": {"pattern": {"pattern": r"(a)\1"}}}, '{"pattern": "y"}', True),
    ],
)
def test_schemas_that_say_little_or_much(parameters, arguments, passes, kit, bare):
    choice = kit.choice("required", tools=[Tool("f", "", parameters)])
    grammar = registry.GENERIC.grammar(choice, bare.tokenizer.token_to_id)
    assert (bare.follow(grammar, write("json", ("f", arguments))) is True) == passes


@pytest.mark.parametrize("parameters", [{"properties": 3}, {"properties": {"a": {"type": "x"}}},
                                        {"properties": {"a": {}}, "required": 3}])  # fmt: skip
def test_schemas_that_are_none_are_for_the_check_to_refuse(parameters, kit, bare):
    choice = kit.choice("required", tools=[Tool("f", "", parameters)])
    grammar = registry.GENERIC.grammar(choice, bare.tokenizer.token_to_id)
    assert LLMatcher.validate_grammar(grammar, bare.guidance)


@pytest.mark.parametrize("name", NAMES)
@pytest.mark.parametrize("mode", ["auto", "required"])
def test_reasoning_may_come_first(name, mode, kit, vocabulary):
    token_ids = {
        text: found
        for text in (*registry.by_name(name).marker_tokens, "<think>", "</think>")
        if (found := vocabulary.tokenizer.token_to_id(text)) is not None
    }
    tags = ReasoningTags("<think>", "</think>")
    style = OutputStyle(registry.by_name(name), tags, token_ids)
    choice = kit.choice(mode)
    grammar = style.grammar(choice)
    call = write(name, ("get_weather", CITY))
    assert vocabulary.follow(grammar, call) is True
    text = f"<think>\nI {{must}} <call> it.\n</think>\n\n{call}"
    assert vocabulary.follow(grammar, text) is True
    said = kit.read(style.reader(choice), [text])
    assert said[1:] == kit.calls(("get_weather", CITY))
    assert said[0].text == "\nI {must} <call> it.\n"
    after = vocabulary.follow(grammar, "<think>Hm.</think>\n\nHello")
    assert after is True if mode == "auto" else isinstance(after, str)
