"""Grammars as llguidance reads them: what texts they let through, and what is refused."""

import json
from pathlib import Path
from typing import Any

import pytest
from llguidance import LLMatcher, LLTokenizer
from tokenizers import AddedToken, Tokenizer

from common.guidance import MAX_GRAMMAR_BYTES
from frontend.guidance.source import GrammarSource, after_reasoning
from frontend.guidance.trial import try_grammar

PERSON = {
    "properties": {"name": {"type": "string"}, "age": {"type": "integer"}},
    "required": ["name", "age"],
}


class Text:
    """A tokenizer whose ``</think>`` is a token, and which grammars let which texts through."""

    def __init__(self, directory: Path) -> None:
        self.tokenizer = Tokenizer.from_file(str(directory / "tokenizer.json"))
        self.tokenizer.add_special_tokens([AddedToken("</think>", special=True)])
        path = directory / "thinking.json"
        self.tokenizer.save(str(path))
        self.end_id = self.tokenizer.token_to_id("</think>")
        self.guide = LLTokenizer(str(path), eos_token=[self.tokenizer.token_to_id("</s>")])

    def grammar(self, source: GrammarSource) -> str:
        verdict = try_grammar(source, self.guide)
        assert verdict.error == ""
        assert json.loads(verdict.grammar)["grammars"]
        return verdict.grammar

    def error(self, kind: Any, text: str) -> str:
        verdict = try_grammar(GrammarSource(kind, text), self.guide)
        assert verdict.grammar == ""
        return verdict.error

    def fits(self, grammar: str, text: str) -> bool:
        matcher = LLMatcher(self.guide, grammar)
        ids = self.tokenizer.encode(text, add_special_tokens=False).ids
        return matcher.try_consume_tokens(ids) == len(ids) and matcher.is_accepting()


@pytest.fixture(scope="module")
def text(model_dir: Path, tmp_path_factory: pytest.TempPathFactory) -> Text:
    directory = tmp_path_factory.mktemp("trial")
    (directory / "tokenizer.json").write_bytes((model_dir / "tokenizer.json").read_bytes())
    return Text(directory)


def schema(value: Any) -> GrammarSource:
    return GrammarSource("json_schema", json.dumps(value))


@pytest.mark.parametrize(
    ("answer", "fits"),
    [
        ('{"name":"x","age":3}', True),
        ('{ "name": "x", "age": 3 }', True),
        ('{"age":3,"name":"x"}', False),
        ('{"name":"x"}', False),
        ('{"name":"x","age":3,"more":1}', False),
        ('{"name":  "x","age":3}', False),
        ('{"name":"x",\n"age":3}', False),
        ("3", False),
    ],
)
def test_schemas_as_tgi_takes_them(text: Text, answer: str, fits: bool) -> None:
    assert text.fits(text.grammar(schema(PERSON)), answer) is fits


def test_one_of_is_any_of(text: Text) -> None:
    grammar = text.grammar(schema({"oneOf": [{"type": "integer"}, {"type": "boolean"}]}))
    assert text.fits(grammar, "12")
    assert text.fits(grammar, "true")
    assert not text.fits(grammar, '"a"')


@pytest.mark.parametrize(
    ("pattern", "good", "bad"),
    [
        (r"\d+", "12", "٣"),
        (r"[\w-]+@([\w-]+\.)+[\w-]+", "a@b.cd", "é@b.cd"),
        ("a/b|[/]c", "a/b", "a"),
        ("a\nb", "a\nb", "a b"),
        ("^ab$", "ab", "abc"),
    ],
)
def test_regular_expressions(text: Text, pattern: str, good: str, bad: str) -> None:
    grammar = text.grammar(GrammarSource("regex", pattern))
    assert text.fits(grammar, good)
    assert not text.fits(grammar, bad)


def test_gbnf(text: Text) -> None:
    sums = text.grammar(
        GrammarSource("gbnf", 'root ::= term ("+" term)*\nterm ::= [0-9]+ | "(" root ")"')
    )
    assert text.fits(sums, "1+(23+4)+5")
    assert not text.fits(sums, "1+(23+4")
    assert text.fits(text.grammar(GrammarSource("gbnf", 'start: "a" b+\nb: "b"')), "abb")


@pytest.mark.parametrize(
    ("given", "words"),
    [
        ("root ::= other", "Rule 'other' not found"),
        ("other ::= [a-z]", "No 'root' rule found"),
        ("root ::= ((", "Expected ')' at line 1"),
        ("", "No 'root' rule found"),
        ("root ::= " + "(" * 50_000 + '"a"' + ")" * 50_000, "its rules nest too deep"),
    ],
)
def test_what_is_no_gbnf(text: Text, given: str, words: str) -> None:
    assert words in text.error("gbnf", given)
    reasoned = after_reasoning(GrammarSource("gbnf", given), "</think>", text.end_id)
    assert words in text.error(*reasoned)


def test_lark_that_looks_like_json(text: Text) -> None:
    assert "expecting rule" in text.error("lark", '{"grammars":[{"lark_grammar":"start: /a/"}]}')
    assert text.fits(text.grammar(GrammarSource("lark", 'start: "a" b+\nb: "b"')), "abb")


@pytest.mark.parametrize(
    "source",
    [
        schema(PERSON),
        GrammarSource("regex", r"^\{.*\}$"),
        GrammarSource("lark", r"start: /\{.*\}/"),
        GrammarSource("gbnf", 'root ::= "{" [^}]* "}"'),
    ],
)
@pytest.mark.parametrize("as_token", [True, False])
def test_after_reasoning(text: Text, source: GrammarSource, as_token: bool) -> None:
    tag = "</think>" if as_token else "[/THINK]"
    grammar = text.grammar(after_reasoning(source, tag, text.end_id if as_token else None))
    answer = '{"name":"x","age":3}'
    for thought in ("", "hm", "a\nb {1} </thin", "[/THIN"):
        for gap in ("", "\n", "\n\n"):
            assert text.fits(grammar, f"{thought}{tag}{gap}{answer}"), (thought, gap)
    assert not text.fits(grammar, answer)
    assert not text.fits(grammar, f"hm{tag}x{answer}")
    assert not text.fits(grammar, f"hm{tag}hm{tag}{answer}")
    assert not text.fits(grammar, f"hm{tag}\n\n\n{answer}")


def test_the_answer_after_reasoning_is_tried_too(text: Text) -> None:
    source = GrammarSource("lark", 'start: A\nA: "a" & "b"')
    assert "no text can match" in text.error(*source)
    assert "no text can match" in text.error(*after_reasoning(source, "</think>", text.end_id))


@pytest.mark.parametrize(
    ("kind", "given", "words"),
    [
        ("json_schema", '{"type":"house"}', "Invalid type: house"),
        ("json_schema", '{"type":"array","uniqueItems":true}', "uniqueItems"),
        ("json_schema", '{"type":"string","format":"house"}', "house"),
        ("json_schema", '{"$ref":"#/$defs/none"}', "none"),
        ("json_schema", '{"$ref":"#"}', "no text can match"),
        ("json_schema", '{"enum":[]}', "Unsatisfiable"),
        ("json_schema", '{"x-guidance":3}', "invalid type"),
        ("json_schema", "{", "not JSON"),
        ("json_schema", '{"items":' * 300 + "{}" + "}" * 300, "not JSON"),
        ("regex", "a(", "unclosed group"),
        ("regex", "(?=a)b", "look-ahead"),
        ("regex", "(" * 300 + "a" + ")" * 300, "invalid regex"),
        ("lark", "start: foo", "foo"),
        ("lark", "", "start"),
        ("lark", "start: /a/ # " + "x" * MAX_GRAMMAR_BYTES, "bytes long"),
    ],
)
def test_refusals(text: Text, kind: str, given: str, words: str) -> None:
    error = text.error(kind, given)
    assert words in error
    assert "\n" not in error
    assert len(error) < 400


@pytest.mark.parametrize(
    ("source", "written"),
    [
        (schema({"const": "a</think>"}), '"a</think>"'),
        (schema({"enum": ["</think>"]}), '"</think>"'),
        (GrammarSource("regex", "</think>[0-9]"), "</think>1"),
        (GrammarSource("gbnf", 'root ::= "ab" "</think>"'), "ab</think>"),
    ],
)
def test_text_that_reads_as_a_special_token(
    text: Text, source: GrammarSource, written: str
) -> None:
    matcher = LLMatcher(text.guide, text.grammar(source))
    ids = [text.guide.tokenize_bytes(bytes([byte]))[0] for byte in written.encode()]
    assert matcher.try_consume_tokens(ids) == len(ids)
    assert matcher.is_accepting()


def test_slow_steps_are_refused(text: Text) -> None:
    assert "each token would take too long" in text.error("regex", "a{200000}")
