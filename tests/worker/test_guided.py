"""The engine with grammars: what comes out matches, in any company, however often disturbed."""

import json
import re

import pytest
import torch

import worker.guidance
from common.sampling import SamplingParameters
from tests.worker.driver import GREEDY
from tests.worker.grammars import Held, byte_guidance, history_driver, lark, regex, schema
from worker.masks import MaskMaker

PROMPT = [3, 1, 4, 1, 5, 9, 2, 6]
SEEDED = SamplingParameters(do_sample=True, seed=5, temperature=0.9, top_p=0.95)
PENALISED = SamplingParameters(
    do_sample=True, seed=7, repetition_penalty=1.3, top_k=20, min_new_tokens=9, top_n_tokens=2
)
STOPS = [0, 200, 255]

ANSWER = {
    "type": "object",
    "properties": {"a": {"type": "integer"}, "b": {"enum": ["yes", "no"]}},
    "required": ["a", "b"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},
}
LANGUAGE = 'start: (word ".")~3\nword: /[a-f]{2,5}/ | "(" word ")"'
PATTERN = "([a-c]{3}|x[0-9]+y){2,6}-?"


def is_answer(text: str) -> bool:
    value = json.loads(text)
    return set(value) == {"a", "b"} and type(value["a"]) is int and value["b"] in ("yes", "no")


GRAMMARS = {
    "schema": (schema(ANSWER), is_answer),
    "regex": (regex(PATTERN), lambda text: re.fullmatch(PATTERN, text)),
    "lark": (
        lark(LANGUAGE),
        lambda text: re.fullmatch(r"([a-f]{2,5}\.){3}", re.sub(r"[()]", "", text)),
    ),
}


@pytest.fixture
def guidance(tmp_path):
    made = byte_guidance(tmp_path)
    yield made
    made.close()


def outcome(guidance, prompt, count, grammar, *, sampling=GREEDY, stops=STOPS):
    driver = history_driver(guidance)
    driver.add(0, prompt, count, sampling=sampling, stop_token_ids=stops, grammar=grammar)
    driver.run()
    assert driver.engine.held == 0
    return driver.records[0]


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "more"])
@pytest.mark.parametrize("kind", GRAMMARS)
def test_what_comes_out_matches(guidance, kind, sampling):
    grammar, matches = GRAMMARS[kind]
    ended = 0
    for number in range(12):
        record = outcome(guidance, [*PROMPT, number], 60, grammar, sampling=sampling)
        assert not record.error
        if record.finish == "eos_token":
            assert record.ids[-1] in STOPS
            assert matches(bytes(record.ids[:-1]).decode())
            ended += 1
        else:
            assert len(record.ids) == 60
    assert ended > 4


def test_several_stop_tokens_are_all_in_reach_and_the_model_chooses(guidance):
    last = {outcome(guidance, [*PROMPT, n], 9, regex("[ab]{3}")).ids[-1] for n in range(30)}
    assert last == set(STOPS)


def test_without_stop_tokens_it_ends_with_the_grammar(guidance):
    record = outcome(guidance, PROMPT, 50, regex("[ab]{3}"), stops=[])
    assert (len(record.ids), record.finish) == (3, "eos_token")
    assert re.fullmatch(b"[ab]{3}", bytes(record.ids))
    assert outcome(guidance, PROMPT, 3, regex("[ab]{3}"), stops=[]).finish == "length"
    late = outcome(guidance, PROMPT, 50, regex("[ab]\\x00?"), stops=[])  # no token is byte 0
    assert (len(late.ids), late.finish) == (1, "eos_token")
    empty = outcome(guidance, PROMPT, 50, regex(""), stops=[])
    assert empty.error == "the grammar allows nothing but the empty text"


def test_the_grammar_wins_over_minimum_length_and_filters_look_only_at_what_it_allows(guidance):
    sampling = SamplingParameters(min_new_tokens=20, top_k=1, do_sample=True, top_n_tokens=3)
    record = outcome(guidance, PROMPT, 50, regex("[ab]{2}"), sampling=sampling, stops=[255])
    assert (len(record.ids), record.ids[-1]) == (3, 255)
    assert record.logprobs == [0.0] * 3
    assert [len(top) for top in record.tops] == [1, 1, 1]


@pytest.mark.parametrize("runner", ["host", "recorded"], indirect=True)
@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "more"])
def test_free_rows_beside_them_do_not_change_by_a_bit(runner, guidance, sampling):
    def run(grammars):
        driver = history_driver(guidance, blocks=128)
        driver.dispatch(
            add=[driver.new(n, [*PROMPT, n], 20, sampling=sampling) for n in range(4)]
            + [
                driver.new(
                    10 + n, PROMPT, 30, sampling=sampling, stop_token_ids=STOPS, grammar=grammar
                )
                for n, grammar in enumerate(grammars)
            ]
        )
        driver.run()
        return driver.records

    alone, beside = run([]), run([grammar for grammar, _ in GRAMMARS.values()])
    for number in range(4):
        assert beside[number].ids == alone[number].ids
        assert beside[number].logprobs == alone[number].logprobs
        assert beside[number].tops == alone[number].tops
    assert all(not record.error for record in beside.values())


def test_many_rows_each_with_a_grammar_of_its_own(guidance):
    driver = history_driver(guidance, blocks=256, step_tokens=700)
    letters = [chr(ord("a") + n % 26) for n in range(60)]
    driver.dispatch(
        add=[
            driver.new(
                n, [n + 1, *PROMPT], 12, stop_token_ids=[0], grammar=regex(f"{c}{{1,5}}{n}x")
            )
            for n, c in enumerate(letters)
        ]
    )
    driver.run()
    for number, letter in enumerate(letters):
        record = driver.records[number]
        alone = outcome(guidance, [number + 1, *PROMPT], 12, regex(f"{letter}{{1,5}}{number}x"),
                        stops=[0])  # fmt: skip
        assert re.fullmatch(f"{letter}{{1,5}}{number}x\0", bytes(record.ids).decode())
        assert record.ids == alone.ids
    assert driver.engine.held == 0


@pytest.mark.parametrize("sampling", [GREEDY, SEEDED, PENALISED], ids=["greedy", "seeded", "more"])
@pytest.mark.parametrize("kind", GRAMMARS)
def test_preempted_anywhere_it_goes_on_as_if_undisturbed(guidance, kind, sampling):
    grammar, _ = GRAMMARS[kind]
    whole = outcome(guidance, PROMPT, 40, grammar, sampling=sampling)
    options = {"sampling": sampling, "stop_token_ids": STOPS, "grammar": grammar}
    for step_tokens in (3, 100):
        driver = history_driver(guidance, step_tokens=step_tokens)
        driver.add(0, PROMPT, 40, **options)
        for stop in range(1, len(whole.ids)):
            while len(driver.records[0].ids) < stop:
                driver.step()
            driver.release(0)
            driver.add(0, PROMPT, 40, generated=driver.records[0].ids[:], **options)
        driver.run()
        assert driver.records[0].ids == whole.ids
        assert driver.records[0].finish == whole.finish


@pytest.mark.parametrize(("stops", "generated"), [([], b"ab"), ([255], b"ab\xff")])
def test_an_end_that_never_arrived_is_said_again(guidance, stops, generated):
    driver = history_driver(guidance)
    new = driver.new(
        0, PROMPT, 9, generated=list(generated), stop_token_ids=stops, grammar=regex("ab")
    )
    driver.records[0].ids = list(generated)
    driver.dispatch(add=[new])
    assert driver.step() is None
    assert driver.records[0].finish == "eos_token"
    assert driver.engine.held == 0


def test_a_slow_grammar_holds_up_nobody_else(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    driver = history_driver(guidance, step_tokens=8)
    prompt = [n % 50 for n in range(20)]
    driver.dispatch(
        add=[
            driver.new(0, prompt, 9, stop_token_ids=[0], grammar=regex("[ab]{4}")),
            driver.new(1, PROMPT, 12),
        ]
    )
    driver.run()
    assert driver.records[1].ids == driver.model.continuation(PROMPT, 12)
    assert driver.records[0].ids == []
    assert driver.records[0].computed == 19  # all but the token that yields the next
    driver.add(2, PROMPT, 2)
    driver.run()
    assert driver.records[2].finish == "length"
    held.work()
    driver.run()
    whole = outcome(guidance, prompt, 9, regex("[ab]{4}"), stops=[0])
    assert driver.records[0].ids == whole.ids
    assert driver.records[0].started.queue_s == 0.25
    guidance.close()


def test_prompts_of_one_token_and_of_several_chunks_wait_too(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    driver = history_driver(guidance, step_tokens=5)
    prompts = {0: [9], 1: [n % 50 for n in range(33)]}
    driver.dispatch(
        add=[
            driver.new(n, prompt, 9, stop_token_ids=[0], grammar=regex(f"[ab]{{4}}{n}"))
            for n, prompt in prompts.items()
        ]
    )
    driver.step()
    held.work()
    held.work()
    driver.run()
    for number, prompt in prompts.items():
        whole = outcome(byte_guidance(tmp_path), prompt, 9, regex(f"[ab]{{4}}{number}"), stops=[0])
        assert driver.records[number].ids == whole.ids
        assert whole.finish == "eos_token"
    guidance.close()


def test_who_was_dropped_while_its_grammar_was_compiled_is_not_met_again(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    driver = history_driver(guidance)
    driver.add(0, PROMPT, 9, stop_token_ids=[0], grammar="nonsense")
    driver.release(0)
    driver.add(0, PROMPT, 9, stop_token_ids=[0], grammar=regex("[ab]{4}"))
    held.work()
    driver.run()
    assert driver.records[0].error == ""
    held.work()
    driver.run()
    assert driver.records[0].finish == "eos_token"
    driver.add(1, PROMPT, 9, grammar=regex("c"))
    driver.engine.reset()
    held.work()
    assert driver.step() is None
    assert driver.engine.held == 0
    guidance.close()


@pytest.mark.parametrize("runner", ["host", "recorded"], indirect=True)
def test_a_grammar_that_cannot_be_followed_fails_alone(runner, guidance):
    driver = history_driver(guidance)
    refused = driver.new(3, PROMPT, 5, generated=[ord("x")], grammar=regex("[ab]{4}"))
    driver.records[3].ids = [ord("x")]
    driver.dispatch(
        add=[
            driver.new(0, PROMPT, 5),
            driver.new(1, PROMPT, 5, grammar="nonsense"),
            driver.new(2, PROMPT, 5, stop_token_ids=[0], grammar=regex("[ab]{4}")),
            refused,
            driver.new(4, PROMPT, 5, grammar=lark('start: "a" <[0]>')),
        ]
    )
    driver.run()
    assert driver.records[0].ids == driver.model.continuation(PROMPT, 5)
    assert driver.records[1].error == "the grammar cannot be compiled"
    assert driver.records[2].ids == outcome(guidance, PROMPT, 5, regex("[ab]{4}"), stops=[0]).ids
    assert driver.records[3].error == "the tokens generated so far do not match the grammar"
    assert driver.records[4].error == "the grammar allows none of the model's tokens here"
    assert driver.records[4].ids == [ord("a")]
    assert driver.engine.held == 0


def test_a_grammar_that_becomes_too_complex_fails_alone(tmp_path, monkeypatch):
    limits = worker.guidance.parser_limits() | {"step_max_items": 40}
    monkeypatch.setattr(worker.guidance, "parser_limits", lambda: limits)
    guidance = byte_guidance(tmp_path)
    driver = history_driver(guidance)
    driver.add(0, PROMPT, 60, grammar=lark('start: a\na: "x" | a a | a a a'))
    driver.add(1, PROMPT, 60)
    driver.run()
    assert driver.records[0].error == "the grammar became too complex to follow"
    assert 0 < len(driver.records[0].ids) < 40
    assert driver.records[1].ids == driver.model.continuation(PROMPT, 60)
    guidance.close()


@pytest.mark.parametrize("runner", ["host", "recorded"], indirect=True)
def test_masks_that_cannot_be_computed_fail_their_sequence_alone(runner, guidance, monkeypatch):
    fill = MaskMaker._fill

    def broken(self, followers, words):
        if any(follower.owner == 1 for follower in followers):
            raise RuntimeError("no such luck")
        fill(self, followers, words)

    monkeypatch.setattr(MaskMaker, "_fill", broken)
    driver = history_driver(guidance)
    for number in range(3):
        driver.add(number, PROMPT, 5, stop_token_ids=[0], grammar=regex("[ab]{4}"))
    driver.run()
    assert driver.records[1].error == "the forward pass failed (RuntimeError)"
    whole = outcome(guidance, PROMPT, 5, regex("[ab]{4}"), stops=[0])
    assert driver.records[0].ids == driver.records[2].ids == whole.ids


def test_a_failed_forward_pass_leaves_the_grammars_of_the_others_where_they_are(guidance):
    driver = history_driver(guidance)
    driver.model.fail_on = {77}
    options = {"stop_token_ids": [0], "grammar": regex("[ab]{8}")}
    driver.add(0, PROMPT, 20, **options)
    driver.step()
    driver.add(1, [77], 5, **options)
    driver.run()
    assert driver.records[1].error == "the forward pass failed (RuntimeError)"
    assert driver.records[0].ids == outcome(guidance, PROMPT, 20, regex("[ab]{8}"), stops=[0]).ids


def test_logits_that_are_no_numbers_fail_a_guided_sequence_too(guidance):
    driver = history_driver(guidance)
    driver.model.nan_on = {48}
    driver.add(0, [*PROMPT, 48], 5, grammar=regex("[ab]+"))
    driver.run()
    assert driver.records[0].error == "the model's output was not a number"


def test_without_guidance_a_grammar_is_refused():
    driver = history_driver(None)
    driver.add(0, PROMPT, 5, grammar=regex("[ab]+"))
    driver.add(1, PROMPT, 5)
    driver.run()
    assert driver.records[0].error == "this server cannot follow grammars with this model"
    assert driver.records[1].finish == "length"
    assert torch.is_inference_mode_enabled() is False


def test_prompt_logprobs_are_not_disturbed_by_waiting(tmp_path):
    held = Held()
    guidance = byte_guidance(tmp_path, held)
    driver = history_driver(guidance)
    driver.add(0, PROMPT, 3, prefill_logprobs=True)
    driver.add(1, PROMPT, 3, prefill_logprobs=True, grammar=regex("[ab]+"))
    driver.run()
    held.work()
    driver.run()
    free, guided = driver.records[0].started, driver.records[1].started
    assert guided.prefill_logprobs == free.prefill_logprobs
    assert len(guided.prefill_logprobs) == 7
    guidance.close()
