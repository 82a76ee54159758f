"""Grammars by themselves: compiled, kept, replayed, followed; and the tokenizer that they need."""

import json
import select
import shutil
from pathlib import Path

import numpy as np
import pytest
from tokenizers import Tokenizer

import worker.guidance
from tests.worker.driver import CPU
from tests.worker.grammars import Held, Inline, byte_guidance, lark, regex, schema
from tests.worker.tiny import write_byte_tokenizer
from worker.guidance import load_guidance

BUILTIN = Path(__file__).parents[2] / "common/models/builtin"


@pytest.fixture
def guidance(tmp_path):
    made = byte_guidance(tmp_path)
    yield made
    made.close()


def arrive(guidance, grammar: str, *, stops=(0,), generated: bytes = b""):
    guide = guidance.admit(1, grammar, stops, list(generated))
    assert guidance.arrived() == [guide]
    return guide


def allowed(guidance, *guides) -> list[set[int]]:
    masks = guidance.begin(guides).wait().numpy().view(np.uint8)
    return [
        set(np.nonzero(row)[0].tolist()) for row in np.unpackbits(masks, axis=1, bitorder="little")
    ]


def test_all_stop_tokens_where_the_grammar_may_end_and_none_elsewhere(guidance):
    guide = arrive(guidance, regex("[ab]c?"), stops=(0, 7, ord("b")))
    assert allowed(guidance, guide) == [{ord("a")}]  # b would end it too early
    assert guide.take(ord("a"))
    assert allowed(guidance, guide) == [{0, 7, ord("b"), ord("c")}]
    assert guide.take(ord("c"))
    assert allowed(guidance, guide) == [{0, 7, ord("b")}]
    assert guide.take(7)
    assert not guide.error


def test_without_stop_tokens_the_end_is_never_allowed_and_the_last_token_is_known(guidance):
    guide = arrive(guidance, regex("ab?c?"), stops=())
    assert allowed(guidance, guide) == [{ord("a")}]
    assert not guide.over
    assert guide.take(ord("a"))
    assert allowed(guidance, guide) == [{ord("b"), ord("c")}]
    assert not guide.over
    assert guide.take(ord("c"))
    assert guide.over


def test_special_tokens_are_no_text(guidance):
    (free,) = allowed(guidance, arrive(guidance, lark("start: /(?s:.*)/"), stops=()))
    assert 0 not in free
    assert {1, 97, 127} <= free


@pytest.mark.parametrize("generated", [b"", b"a", b"abba", b"ab" * 400])
def test_replayed_is_the_same_as_followed(guidance, generated):
    grammar = lark('start: ("a" | "b")* "c"? "!"')
    followed = arrive(guidance, grammar)
    for token in generated:
        assert allowed(guidance, followed) == [{97, 98, 99, 33}]
        assert followed.take(token)
    replayed = arrive(guidance, grammar, generated=generated)
    assert allowed(guidance, followed, replayed) == [{97, 98, 99, 33}] * 2
    assert replayed.take(99)
    assert followed.take(99)
    assert allowed(guidance, followed, replayed) == [{33}] * 2


@pytest.mark.parametrize(
    ("grammar", "options", "sentence"),
    [
        ("nonsense", {}, "the grammar cannot be compiled"),
        (lark("start: /(?=a)/"), {}, "the grammar cannot be compiled"),
        (regex("[ab]"), {"generated": b"x"}, "generated so far do not match"),
        (regex("[ab]"), {"generated": b"ab"}, "generated so far do not match"),
    ],
)
def test_what_cannot_be_followed_says_so(guidance, grammar, options, sentence, capfd):
    guide = arrive(guidance, grammar, **options)
    assert sentence in guide.error
    assert capfd.readouterr() == ("", "")  # no text of a grammar on the way


def test_a_refused_token_is_an_error_and_stays_one(guidance, capfd):
    guide = arrive(guidance, regex("[ab]+"))
    assert not guide.take(ord("x"))
    assert "does not allow" in guide.error
    assert not guide.take(ord("a"))
    assert capfd.readouterr() == ("", "")


def test_a_dead_end_is_an_error_and_leaves_the_row_unmasked(guidance):
    dead = arrive(guidance, lark('start: "a" <[0]>'))  # a stop token is no part of a grammar
    assert dead.take(ord("a"))
    (row,) = allowed(guidance, dead)
    assert row == set(range(256))
    assert "none of the model's tokens" in dead.error


def test_text_that_only_a_special_token_has_cannot_be_written(guidance):
    guide = arrive(guidance, regex("a\\x00b"))
    assert guide.take(ord("a"))
    assert allowed(guidance, guide) == [set(range(256))]
    assert "none of the model's tokens" in guide.error


@pytest.mark.parametrize("text", ["<|eos|>", "12<|user|>x", "<|eos|><|bos|>é"])
def test_forced_text_that_reads_as_special_tokens_is_spelled(text):
    guidance = load_guidance(str(BUILTIN), vocabulary=2048, threads=1, device=CPU)
    guide = guidance.admit(1, lark(f"start: {json.dumps(text)}"), [1], [])
    while not guidance.arrived():
        select.select([guidance.wakeup_fd], [], [], 60)
    written = []
    while (row := allowed(guidance, guide)[0]) != {1}:
        (token,) = row
        assert guide.take(token)
        written.append(token)
    tokenizer = Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))
    assert tokenizer.decode(written, skip_special_tokens=True) == text
    guidance.close()


def test_an_end_that_only_the_mask_shows(guidance):
    guide = arrive(guidance, regex("a\\x00?"), stops=())  # no token is byte 0
    assert guide.take(ord("a"))
    assert not guide.over
    assert allowed(guidance, guide) == [set(range(256))]
    assert guide.over
    assert not guide.take(ord("x"))
    assert not guide.error


def test_an_empty_text_without_a_stop_token_is_an_error(guidance):
    guide = arrive(guidance, regex(""), stops=())
    assert allowed(guidance, guide) == [set(range(256))]
    assert guide.error == "the grammar allows nothing but the empty text"
    assert not guide.over


def test_too_much_work_in_a_step_is_an_error(tmp_path, monkeypatch):
    limits = worker.guidance.parser_limits() | {"step_max_items": 40}
    monkeypatch.setattr(worker.guidance, "parser_limits", lambda: limits)
    guidance = byte_guidance(tmp_path)
    grammar = lark('start: a\na: "x" | a a | a a a')
    hard, easy = arrive(guidance, grammar), arrive(guidance, regex("[ab]"))
    for _ in range(40):
        rows = allowed(guidance, hard, easy)
        assert rows[1] == {97, 98}
        if hard.error or not hard.take(ord("x")):
            break
    assert hard.error == "the grammar became too complex to follow"
    assert rows[0] == set(range(256))
    assert not easy.error
    guidance.close()


def test_what_was_compiled_once_needs_no_compiler(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    first = guidance.admit(1, regex("[ab]+"), [0], [])
    assert guidance.arrived() == []
    held.work()
    assert guidance.arrived() == [first]
    second = guidance.admit(2, regex("[ab]+"), [0], [])
    assert guidance.arrived() == [second]
    assert first.take(ord("a"))
    assert allowed(guidance, first, second) == [{0, 97, 98}, {97, 98}]
    continued = guidance.admit(3, regex("[ab]+"), [0], [97])  # a replay is work for the compiler
    assert guidance.arrived() == []
    held.work()
    assert guidance.arrived() == [continued]
    guidance.close()


def test_the_least_recently_used_grammar_goes_first(tmp_path, monkeypatch):
    monkeypatch.setattr(worker.guidance, "_KEPT", 2)
    held = Held()
    guidance = byte_guidance(tmp_path, held)

    def compiled(pattern: str) -> bool:
        guidance.admit(1, regex(pattern), [0], [])
        work = bool(held.waiting)
        if work:
            held.work()
        guidance.arrived()
        return work

    assert [compiled(p) for p in "abacab"] == [True, True, False, True, False, True]
    guidance.close()


def test_its_own_threads_wake_who_waits(tmp_path):
    write_byte_tokenizer(tmp_path)
    guidance = load_guidance(str(tmp_path), vocabulary=256, threads=1, device=CPU)
    guides = {guidance.admit(n, regex(f"[a-z]{{{n + 1}}}"), [0], []) for n in range(9)}
    met = set()
    while len(met) < 9:
        assert select.select([guidance.wakeup_fd], [], [], 20)[0]
        met.update(guidance.arrived())
    assert met == guides
    assert select.select([guidance.wakeup_fd], [], [], 0)[0] == []
    guidance.close()


@pytest.mark.parametrize("vocabulary", [2048, 2100, 2000])
def test_the_builtin_models_tokenizer_at_any_width_of_logits(vocabulary):
    guidance = load_guidance(str(BUILTIN), vocabulary=vocabulary, threads=1, device=CPU)
    guide = guidance.admit(0, schema({"const": 12}), [1], [])
    assert select.select([guidance.wakeup_fd], [], [], 20)[0]
    guidance.arrived()
    (row,) = allowed(guidance, guide)
    tokens = json.loads((BUILTIN / "tokenizer.json").read_text())["model"]["vocab"]
    assert tokens["1"] in row
    assert row <= {tokens.get("1"), tokens.get("12")}
    guidance.close()


@pytest.mark.parametrize("end_id", [None, 5000, [1, 2], "x"])
def test_an_end_id_that_is_of_no_use_does_no_harm(tmp_path, end_id):
    shutil.copy(BUILTIN / "tokenizer.json", tmp_path)
    (tmp_path / "config.json").write_text(json.dumps({"eos_token_id": end_id}))
    guidance = load_guidance(str(tmp_path), vocabulary=2048, threads=1, device=CPU)
    assert guidance is not None
    guidance.close()


@pytest.mark.parametrize("text", [None, "{}", "no json", "[]"])
def test_a_tokenizer_that_cannot_be_read_is_a_warning(tmp_path, text, caplog):
    if text is not None:
        (tmp_path / "tokenizer.json").write_text(text)
    assert load_guidance(str(tmp_path), vocabulary=256, threads=1, device=CPU) is None
    assert "sequences with a grammar will fail" in caplog.text


def test_a_compiler_that_breaks_fails_its_sequence(tmp_path, monkeypatch, caplog):
    guidance = byte_guidance(tmp_path, Inline())

    class Panic(BaseException):
        pass

    def panic(*_, **__):
        raise Panic("text of a grammar")

    monkeypatch.setattr(worker.guidance.llguidance, "LLMatcher", panic)
    assert arrive(guidance, "g").error == "the grammar could not be prepared"
    assert "text of a grammar" not in caplog.text
    guidance.close()
