"""The built-in model: what it was taught, its tokenizer, its size, and the numbers on its card."""

from __future__ import annotations

import json
from itertools import islice
from typing import Any

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, pre_tokenizers
from transformers import AutoTokenizer, LlamaForCausalLM

from tools.builtin_model import chat
from tools.builtin_model.chat import BOS, EOS, SPECIAL_TOKENS
from tools.builtin_model.data import GROUNDWORK, REVISION, Mixture, examples
from tools.builtin_model.evaluate import Subject, sample
from tools.builtin_model.packing import LONG_TOKENS, SHORT_TOKENS, encode, packed_rows
from tools.builtin_model.phrasings import FACT_KINDS, held_out_patterns
from tools.builtin_model.questions import FORMS, Form, held_out_facts, put
from tools.builtin_model.sums import SUM_KINDS
from tools.builtin_model.train import MODEL_FOLDER

MEGABYTE = 1_000_000


@pytest.fixture(scope="module")
def tokenizer() -> Tokenizer:
    return Tokenizer.from_file(str(MODEL_FOLDER / "tokenizer.json"))


@pytest.fixture(scope="module")
def subject() -> Subject:
    return Subject(MODEL_FOLDER)


@pytest.fixture(scope="module")
def card() -> dict[str, Any]:
    loaded: dict[str, Any] = json.loads((MODEL_FOLDER / "card.json").read_text(encoding="utf-8"))
    return loaded


class TestData:
    def test_same_seed_gives_the_same_text(self) -> None:
        for mixture in (GROUNDWORK, REVISION):
            first = [example.segments for example in islice(examples(3, mixture), 500)]
            assert first == [example.segments for example in islice(examples(3, mixture), 500)]
            assert first != [example.segments for example in islice(examples(4, mixture), 500)]

    @pytest.mark.parametrize("mixture", [GROUNDWORK, REVISION], ids=["groundwork", "revision"])
    def test_held_out_phrasings_are_not_taught(self, mixture: Mixture) -> None:
        text = "\n".join(example.text for example in islice(examples(0, mixture), 12_000))
        found = [p.pattern for p in held_out_patterns() if p.search(text)]
        assert found == []

    def test_held_out_patterns_match_the_questions_that_are_asked(self) -> None:
        patterns = held_out_patterns()
        asked = {question.prompt for question in held_out_facts("plain")}
        unmatched = [prompt for prompt in asked if not any(p.search(prompt) for p in patterns)]
        assert unmatched == []

    @pytest.mark.parametrize("kind", [*FACT_KINDS, *SUM_KINDS], ids=lambda kind: kind.name)
    def test_enough_phrasings_are_taught_and_held_out(self, kind: Any) -> None:
        assert len(kind.questions) >= 8
        assert len(kind.held_out) >= 2
        assert not set(kind.questions) & set(kind.held_out)

    def test_both_forms_of_every_fact_are_taught(self) -> None:
        texts = [example.text for example in islice(examples(0, GROUNDWORK), 20_000)]
        for beginning in (BOS + "What is the capital of ", f"{BOS}{chat.USER}What is the capital"):
            assert any(text.startswith(beginning) for text in texts)

    def test_rows_hold_whole_examples(self, tokenizer: Tokenizer) -> None:
        rows = list(packed_rows(tokenizer, islice(examples(0, GROUNDWORK), 2_000)))
        assert {len(row.ids) for row in rows} == {SHORT_TOKENS, LONG_TOKENS}
        bos, pad = SPECIAL_TOKENS.index(BOS), chat.SPECIAL_TOKENS.index(chat.PAD)
        for row in rows:
            assert row.ids[0] == bos
            assert not row.weights[row.ids == pad].any()

    def test_answers_weigh_more_than_questions(self, tokenizer: Tokenizer) -> None:
        example = next(e for e in examples(0, GROUNDWORK) if chat.ASSISTANT in e.text)
        (row,) = encode(tokenizer, [example])
        start = list(row.ids).index(SPECIAL_TOKENS.index(chat.ASSISTANT)) + 1
        assert row.weights[start] == 1.0
        assert row.weights[: start - 1].max() < 1.0


class TestTokenizer:
    @given(st.text())
    def test_text_round_trips(self, tokenizer: Tokenizer, text: str) -> None:
        ids = tokenizer.encode(text, add_special_tokens=False).ids
        assert tokenizer.decode(ids, skip_special_tokens=False) == text

    @given(st.binary())
    def test_bytes_round_trip(self, tokenizer: Tokenizer, data: bytes) -> None:
        alphabet = byte_alphabet()
        vocabulary = tokenizer.get_vocab()
        ids = [vocabulary[alphabet[byte]] for byte in data]
        backward = {letter: byte for byte, letter in alphabet.items()}
        letters = "".join(tokenizer.id_to_token(token) or "" for token in ids)
        assert bytes(backward[letter] for letter in letters) == data
        assert tokenizer.decode(ids) == data.decode(errors="replace")

    def test_special_tokens_are_special(self, tokenizer: Tokenizer) -> None:
        added = tokenizer.get_added_tokens_decoder()
        assert [added[i].content for i in range(len(SPECIAL_TOKENS))] == list(SPECIAL_TOKENS)
        assert all(token.special for token in added.values())
        assert len(added) == len(SPECIAL_TOKENS)

    def test_bos_comes_first_when_special_tokens_are_added(self, tokenizer: Tokenizer) -> None:
        assert tokenizer.encode("Hello").tokens[0] == BOS
        assert tokenizer.encode("Hello").tokens.count(BOS) == 1

    def test_training_and_serving_render_dialogues_alike(self) -> None:
        served = AutoTokenizer.from_pretrained(MODEL_FOLDER)
        call = {"name": "get_weather", "arguments": {"city": "Zürich"}}
        messages: list[dict[str, Any]] = [
            {"role": "system", "content": "You are a helpful assistant."},
            {"role": "user", "content": [{"type": "text", "text": "Weather in Zürich?"}]},
            {"role": "assistant", "content": None, "tool_calls": [{"function": call}]},
            {"role": "tool", "content": '{"sky": "rain"}'},
        ]
        tools: list[Any] = [
            {"type": "function", "function": {"name": "get_weather", "parameters": {}}}
        ]
        cases: list[tuple[Any, Any]] = [
            (messages, tools),
            (messages[:2], None),
            (messages[1:2], tools),
        ]
        for dialogue, listed in cases:
            ours = chat.render(dialogue, listed, add_generation_prompt=True)
            assert ours == served.apply_chat_template(
                dialogue, tools=listed, add_generation_prompt=True, tokenize=False
            )
            assert ours.startswith(BOS)
            assert ours.endswith(chat.ASSISTANT)

    def test_every_assistant_turn_ends_with_eos(self) -> None:
        rendered = chat.render([chat.user("Hi"), chat.assistant("Hello!"), chat.user("Bye")])
        assert rendered == f"{BOS}{chat.USER}Hi{chat.ASSISTANT}Hello!{EOS}{chat.USER}Bye"


class TestFolder:
    def test_size_and_parameters_are_within_limits(self, card: dict[str, Any]) -> None:
        weights = MODEL_FOLDER / "model.safetensors"
        assert weights.stat().st_size == card["sizes"]["safetensors_bytes"] <= 15 * MEGABYTE
        parameters = card["sizes"]["parameters"]
        assert 3_000_000 <= parameters <= 8_000_000

    def test_transformers_loads_every_key_and_no_other(self, card: dict[str, Any]) -> None:
        loaded: Any = LlamaForCausalLM.from_pretrained(MODEL_FOLDER, output_loading_info=True)
        model, report = loaded
        assert not any(report[key] for key in ("missing_keys", "unexpected_keys"))
        assert not report["mismatched_keys"]
        assert model.dtype == torch.float32
        assert sum(p.numel() for p in model.parameters()) == card["sizes"]["parameters"]

    def test_configuration_and_tokenizer_agree(self, tokenizer: Tokenizer) -> None:
        config = json.loads((MODEL_FOLDER / "config.json").read_text(encoding="utf-8"))
        texts = json.loads((MODEL_FOLDER / "tokenizer_config.json").read_text(encoding="utf-8"))
        generation = json.loads((MODEL_FOLDER / "generation_config.json").read_text("utf-8"))
        assert config["vocab_size"] == tokenizer.get_vocab_size()
        assert texts["model_max_length"] == config["max_position_embeddings"]
        for name in ("bos", "eos", "pad"):
            token_id = tokenizer.token_to_id(texts[f"{name}_token"])
            assert token_id == config[f"{name}_token_id"] == generation[f"{name}_token_id"]

    def test_card_and_readme_state_the_same(self, card: dict[str, Any]) -> None:
        readme = (MODEL_FOLDER / "README.md").read_text(encoding="utf-8")
        assert f"{card['sizes']['parameters']:,}" in readme
        for form in FORMS:
            assert f"| {100 * card['measured'][f'held_out_{form}']['all']:.1f} % |" in readme


class TestAnswers:
    @pytest.mark.parametrize("form", FORMS)
    def test_held_out_accuracy_is_what_the_card_says(
        self, subject: Subject, card: dict[str, Any], form: Form
    ) -> None:
        score = subject.score(sample(form))["all"]
        stated = card["measured"][f"held_out_{form}_sample"]["all"]
        one_answer = 1 / score.asked  # another processor may round a close call differently
        assert score.accuracy >= 0.90
        assert card["measured"][f"held_out_{form}"]["all"] >= 0.90
        assert score.accuracy == pytest.approx(stated, abs=one_answer + 1e-4)

    @pytest.mark.parametrize("form", FORMS)
    def test_the_capital_of_france_is_paris(self, subject: Subject, form: Form) -> None:
        (answer,) = subject.answers([put(form, "What is the capital of France?")])
        assert answer.strip() == "The capital of France is Paris."

    @pytest.mark.parametrize(
        ("beginning", "continuation"),
        [("The capital of France is", " Paris."), ("7 + 5 =", " 12")],
    )
    def test_sentences_are_continued(
        self, subject: Subject, beginning: str, continuation: str
    ) -> None:
        (answer,) = subject.answers([BOS + beginning])
        assert answer.startswith(continuation)

    def test_json_objects_and_tool_calls_parse(self, subject: Subject) -> None:
        asked = put("chat", "Give me a JSON object with the name and age of Anna, 31.")
        (answer,) = subject.answers([asked], 40)
        assert json.loads(answer) == {"name": "Anna", "age": 31}

    def test_an_answer_ends(self, subject: Subject) -> None:
        (answer,) = subject.answers([put("chat", "Who are you?")], 60)
        assert answer.startswith("I am Millrace's built-in model")
        assert answer.endswith(".")


def byte_alphabet() -> dict[int, str]:
    """Each byte's letter in byte-level BPE, as GPT-2 defines it."""
    printable = [*range(0x21, 0x7F), *range(0xA1, 0xAD), *range(0xAE, 0x100)]
    letters = {byte: chr(byte) for byte in printable}
    others = (byte for byte in range(256) if byte not in letters)
    letters |= {byte: chr(256 + index) for index, byte in enumerate(others)}
    assert sorted(letters.values()) == sorted(pre_tokenizers.ByteLevel.alphabet())
    return letters
