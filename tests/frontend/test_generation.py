"""One request's life: collect, cut, cancel, fail, and let go exactly once on every path."""

from pathlib import Path
from typing import Any

import gevent
import pytest

from common.errors import ErrorKind, RequestError
from common.messages import (
    Accepted,
    Cancel,
    Delivered,
    Ended,
    Rejected,
    SequenceSpec,
    SequenceTokens,
    Submit,
    Tokens,
    WorkerFinish,
)
from common.sampling import SamplingParameters
from frontend.generation import ClientGoneError, Generation
from frontend.runs import Order, Plan, Token
from frontend.text.tokenizer import Tokenizer
from tests.frontend.fakes import Clock, Pipeline


@pytest.fixture
def tokenizer(model_dir: Path) -> Tokenizer:
    return Tokenizer.load(str(model_dir))


def ids(tokenizer: Tokenizer, text: str) -> list[int]:
    return tokenizer.encode(text, add_special_tokens=False)


def pipeline(tokenizer: Tokenizer, reply: str, **kwargs: Any) -> Pipeline:
    reply_ids = ids(tokenizer, reply)
    return Pipeline(tokenizer, lambda spec: reply_ids, **kwargs)


def generation(
    pipe: Pipeline, *, count: int = 1, limit: int = 100, least: int = 0, **order: Any
) -> Generation:
    plan = Plan(
        prompt_ids=ids(pipe.tokenizer, "hello"),
        max_new_tokens=limit,
        sampling=SamplingParameters(min_new_tokens=least),
        stop_token_ids=pipe.tokenizer.stop_token_ids,
    )
    order = {"stops": [], "keep_tokens": True, **order}
    return Generation(
        Order(plans=[plan] * count, **order), pipe.link, pipe.tokenizer, pipe.clock, pipe.clock()
    )


def whole(made: Generation) -> list[Token]:
    made.start()
    return made.finish()[0].tokens


def test_until_the_end_token(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, " hello wörld", per_message=3)
    made = generation(pipe)
    tokens = whole(made)
    (run,) = made.runs
    assert run.text == " hello wörld"
    assert run.finish == "eos_token"
    assert [t.special for t in tokens] == [False] * (len(tokens) - 1) + [True]
    assert tokens[-1].text == "</s>"
    assert tokens[-1].shown == ""
    assert "".join(t.shown for t in tokens) == run.text
    assert run.generated_tokens == len(ids(tokenizer, " hello wörld")) + 1
    assert made.timings[0].queue_s == 0.25
    pipe.check_released(success=True)
    assert not pipe.of(Cancel)


def test_length_flushes_an_unfinished_character(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "aö")
    tokens = whole(generation(pipe, limit=2))
    assert [t.text for t in tokens] == ["a", "\ufffd"]
    assert tokens[-1].finish == "length"


@pytest.mark.parametrize("per_message", [1, 2, 50])
@pytest.mark.parametrize("keep_tokens", [True, False])
def test_stop_string_is_kept_and_the_rest_discarded(
    tokenizer: Tokenizer, per_message: int, keep_tokens: bool
) -> None:
    pipe = pipeline(tokenizer, "ab stop here test", per_message=per_message)
    made = generation(pipe, stops=["stop", "xyz"], keep_tokens=keep_tokens)
    made.start()
    (run,) = made.finish()
    assert run.text == "ab stop"
    assert run.finish == "stop_sequence"
    assert run.generated_tokens == 3
    pipe.check_released(success=True)
    ended_itself = per_message == 50
    assert [m.reason for m in pipe.of(Cancel)] == ([] if ended_itself else ["stop_sequence"])
    assert pipe.of(Delivered)[0].generated_tokens == 3


def test_stop_string_inside_a_token_cuts_it(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "ab stop here")
    made = generation(pipe, stops=["b st"])
    tokens = whole(made)
    assert [t.text for t in tokens] == ["a", "b", " st"]
    assert made.runs[0].text == "ab st"
    assert tokens[-1].finish == "stop_sequence"


def test_stop_string_is_hidden_on_openai_surfaces(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "ab stop here")
    made = generation(pipe, stops=["b st"], show_stop=False)
    tokens = whole(made)
    assert [t.shown for t in tokens] == ["a", "", ""]
    assert made.runs[0].text == "a"
    assert made.runs[0].finish == "stop_sequence"


@pytest.mark.parametrize(
    ("least", "text"),
    [(0, "a"), (2, "a"), (3, "ab stop "), (5, "ab stop "), (6, "ab stop b stop!")],
)
def test_stop_strings_wait_for_the_least_tokens(
    tokenizer: Tokenizer, least: int, text: str
) -> None:
    """A stop string may begin in them, but not end."""
    pipe = pipeline(tokenizer, "ab stop b stop!")
    made = generation(pipe, stops=["b st"], show_stop=False, least=least)
    tokens = whole(made)
    assert made.runs[0].text == "".join(t.shown for t in tokens) == text


def test_withheld_text_comes_out_at_the_end(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "ab")
    made = generation(pipe, stops=["bcd"], show_stop=False)
    assert [t.shown for t in whole(made)] == ["a", "", "b"]
    assert made.runs[0].text == "ab"


def test_stop_string_may_be_a_special_token(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "a<|call|>b")
    for show in (True, False):
        made = generation(pipe, stops=["<|call|>"], show_stop=show)
        tokens = whole(made)
        assert made.runs[0].text == "a"
        assert made.runs[0].finish == "stop_sequence"
        assert tokens[-1].special


def test_the_length_limit_wins_over_a_shown_stop_string(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "ab stop here")
    made = generation(pipe, stops=["stop"], limit=3)
    assert whole(made)[-1].finish == "length"
    assert made.runs[0].text == "ab stop"
    hidden = generation(pipe, stops=["stop"], limit=3, show_stop=False)
    assert whole(hidden)[-1].finish == "stop_sequence"


def test_best_of_waits_for_all_and_knows_the_means(tokenizer: Tokenizer) -> None:
    replies = [ids(tokenizer, text) for text in ("hello hello", "hello", "hello here")]
    count = iter(range(3))
    chosen: dict[int, list[int]] = {}

    def reply(spec: SequenceSpec) -> list[int]:
        return chosen.setdefault(spec.id, replies[next(count) % 3])

    pipe = Pipeline(tokenizer, reply)
    made = generation(pipe, count=3, incremental=False)
    made.start()
    runs = made.finish()
    assert [run.generated_tokens for run in runs] == [3, 2, 3]
    assert runs[1].mean_logprob == pytest.approx(-0.75)
    assert max(runs, key=lambda run: run.mean_logprob) is runs[1]
    pipe.check_released(success=True)


def test_one_failure_fails_all_and_cancels_the_others(tokenizer: Tokenizer) -> None:
    def answer(submit: Submit) -> list[Any] | None:
        sequence = submit.spec.id
        accepted = Accepted(id=sequence, attempt=0)
        if sequence & 0xFF != 2:
            return [accepted]
        return [accepted, Ended(id=sequence, attempt=0, reason="failed", message="broken")]

    pipe = pipeline(tokenizer, "x", answer=answer)
    made = generation(pipe, count=3)
    with pytest.raises(RequestError) as caught:
        whole(made)
    assert caught.value.kind is ErrorKind.GENERATION
    assert caught.value.message == "Request failed during generation: broken"
    assert [m.reason for m in pipe.of(Cancel)] == ["sibling_failed"] * 2
    pipe.check_released(success=False)
    made.close()
    pipe.check_released(success=False)


def test_one_rejection_cancels_the_siblings(tokenizer: Tokenizer) -> None:
    def answer(submit: Submit) -> list[Any] | None:
        if submit.spec.id & 0xFF == 2:
            return [Rejected(id=submit.spec.id, attempt=0, reason="overloaded", retry_after_s=2.0)]
        return None

    pipe = pipeline(tokenizer, "x" * 50, answer=answer)
    made = generation(pipe, count=2)
    with pytest.raises(RequestError) as caught:
        made.start()
    assert caught.value.kind is ErrorKind.OVERLOADED
    assert caught.value.retry_after_s == 2.0
    assert [m.reason for m in pipe.of(Cancel)] == ["sibling_failed"]
    pipe.check_released(success=False)


@pytest.mark.parametrize("moment", ["before acceptance", "queued", "streaming"])
def test_client_leaves(tokenizer: Tokenizer, moment: str) -> None:
    pipe = pipeline(
        tokenizer,
        "x" * 90,
        mute=moment == "queued",
        pause_s=0.001,
        answer=(lambda submit: []) if moment == "before acceptance" else None,
    )
    made = generation(pipe)
    gevent.spawn_later(0.01, made.client_gone)
    with pytest.raises(ClientGoneError):
        whole(made)
    made.close()
    assert [m.reason for m in pipe.of(Cancel)] == ["client_gone"]
    pipe.check_released(success=False)


def test_deadline(tokenizer: Tokenizer) -> None:
    clock = Clock()
    pipe = pipeline(tokenizer, "x", mute=True, clock=clock)
    made = generation(pipe, timeout_s=5.0)
    made.start()
    assert pipe.of(Submit)[0].timeout_s == 5.0
    clock.now += 5.0
    with pytest.raises(RequestError) as caught:
        made.step()
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert [m.reason for m in pipe.of(Cancel)] == ["deadline"]
    pipe.check_released(success=False)


def test_a_deadline_passes_before_acceptance(tokenizer: Tokenizer) -> None:
    clock = Clock()
    pipe = pipeline(tokenizer, "x", answer=lambda submit: [], clock=clock)
    gevent.spawn(setattr, clock, "now", clock.now + 0.01)
    with pytest.raises(RequestError) as caught:
        generation(pipe, timeout_s=0.01).start()
    assert caught.value.kind is ErrorKind.TIMEOUT
    assert [m.reason for m in pipe.of(Cancel)] == ["deadline"]
    pipe.check_released(success=False)


def test_silence_gives_nothing(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "x", mute=True)
    made = generation(pipe)
    made.start()
    assert made.step(0.001) == []
    made.close()
    pipe.check_released(success=False)


def test_no_scheduler_leaves_nothing_behind(tokenizer: Tokenizer) -> None:
    clock = Clock()
    pipe = pipeline(tokenizer, "x", clock=clock)
    clock.now += 100
    made = generation(pipe)
    with pytest.raises(RequestError) as caught:
        made.start()
    assert caught.value.kind is ErrorKind.UNAVAILABLE
    assert not pipe.sent


def test_tokens_before_a_failure_are_not_lost(tokenizer: Tokenizer) -> None:
    def answer(submit: Submit) -> list[Any] | None:
        sequence = submit.spec.id
        item = SequenceTokens(id=sequence, attempt=0, index=0, ids=[1], logprobs=[-1.0])
        pipe.link.tokens(Tokens(incarnation=1, step=1, items=[item]))
        return [Ended(id=sequence, attempt=0, reason="failed", message="broken")]

    pipe = pipeline(tokenizer, "x", answer=answer)
    made = generation(pipe)
    # The failure arrives before the first step; start() reports it like any other.
    with pytest.raises(RequestError):
        made.start()
    pipe.check_released(success=False)

    pipe.answer = lambda submit: [Accepted(id=submit.spec.id, attempt=0)]
    made = generation(pipe)
    made.start()
    pipe.answer = answer
    answer(pipe.of(Submit)[-1])
    pipe.link.receive(
        Ended(id=pipe.of(Submit)[-1].spec.id, attempt=0, reason="failed", message="broken")
    )
    ((run, tokens),) = made.step()
    assert [t.id for t in tokens] == [1]
    assert run.error is not None
    assert made.over
    pipe.check_released(success=False)


def test_lazy_requests_wake_only_at_the_end(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "x" * 50)
    made = generation(pipe, incremental=False)
    made.start()
    wakes = 0
    while not made.over:
        wakes += 1
        made.step()
    assert wakes <= 2  # what was there at acceptance, and the rest at once
    assert made.runs[0].text == "x" * 50


def end_alone(pipe: Pipeline, items: list[tuple[list[int], WorkerFinish]]) -> None:
    """Have the pipeline send these ids and ends, whatever is asked."""

    def answer(submit: Submit) -> list[Any] | None:
        index, found = 0, []
        for part, finish in items:
            logprobs = [-1.0] * len(part)
            found.append(SequenceTokens(submit.spec.id, 0, index, part, logprobs, [], finish))
            index += len(part)
        pipe.link.tokens(Tokens(incarnation=1, step=1, items=found))
        return []

    pipe.answer = answer


def test_an_end_that_comes_alone(tokenizer: Tokenizer) -> None:
    """A sequence handed in again with nothing left to generate ends without a token."""
    pipe = pipeline(tokenizer, "x")
    end_alone(pipe, [(ids(tokenizer, "b"), ""), ([], "length")])
    made = generation(pipe, stops=["bcd"], show_stop=False)
    made.start()
    (run,) = made.finish()
    assert [(token.shown, token.finish) for token in run.tokens] == [("b", "length")]
    assert (run.text, run.finish, run.generated_tokens) == ("b", "length", 1)
    pipe.check_released(success=True)


@pytest.mark.parametrize(
    ("last", "finish", "text"), [("</s>", "eos_token", "a"), ("ö", "length", "a\ufffd")]
)
def test_an_end_alone_invents_no_token(
    tokenizer: Tokenizer, last: str, finish: WorkerFinish, text: str
) -> None:
    given = [ids(tokenizer, "a")[0], ids(tokenizer, last)[0]]
    pipe = pipeline(tokenizer, "x")
    end_alone(pipe, [(given, ""), ([], finish)])
    made = generation(pipe)
    made.start()
    (run,) = made.finish()
    assert [token.id for token in run.tokens] == given
    assert [token.finish for token in run.tokens] == ["", finish]
    assert (run.text, run.generated_tokens) == (text, 2)
    assert run.mean_logprob == -1.0
    pipe.check_released(success=True)


def test_an_end_before_any_token_is_an_error(tokenizer: Tokenizer) -> None:
    pipe = pipeline(tokenizer, "x")
    end_alone(pipe, [([], "eos_token")])
    made = generation(pipe)
    with pytest.raises(RequestError) as caught:
        whole(made)
    assert caught.value.kind is ErrorKind.INCOMPLETE
    pipe.check_released(success=False)
