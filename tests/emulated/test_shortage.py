"""On the emulated device: torch's own allocator refuses what one request needs."""

import itertools

import torch

from common.messages import BLOCK_TOKENS, Dispatch, NewSequence, SequenceSpec
from common.sampling import SamplingParameters
from tests.gpu.engines import PROMPTS, ahead, generated, make_engine, tiny_model

TOKENS, TOO_LONG, TOO_MUCH_BYTES = 6, 50, 1 << 40


def test_one_request_fails_and_the_others_go_on(tmp_path, monkeypatch):
    model = tiny_model(tmp_path)
    prompts = [PROMPTS[0], [7] * TOO_LONG, PROMPTS[1]]
    wanted = generated(make_engine(model, ahead()), prompts, TOKENS)
    engine = make_engine(model, ahead((1, 2, 4)))
    forward = model.forward

    def hungry(inputs, cache):
        if max(inputs.query_lengths_host) >= TOO_LONG:
            torch.empty(TOO_MUCH_BYTES, dtype=torch.uint8, device="cuda")
        return forward(inputs, cache)

    monkeypatch.setattr(model, "forward", hungry)
    ids: dict[int, list[int]] = {}
    errors: dict[int, str] = {}
    block = 1
    waiting = list(enumerate(prompts, 1))
    for number in itertools.count(1):
        add = []
        if waiting:
            row, prompt = waiting.pop(0)
            blocks = -(-(len(prompt) + TOKENS) // BLOCK_TOKENS)
            spec = SequenceSpec(row, prompt, TOKENS, SamplingParameters())
            add.append(NewSequence(spec, 0, [], list(range(block, block + blocks))))
            block += blocks
        engine.apply(Dispatch(1, number, 64, add=add))
        result = engine.step()
        if result is None:
            break
        for item in result.items:
            ids.setdefault(item.tokens.id, []).extend(item.tokens.ids)
            errors[item.tokens.id] = item.error
    assert errors == {1: "", 2: "no memory was left for a step of this request", 3: ""}
    assert (ids[1], ids[3]) == (wanted[0], wanted[2])
    assert engine.held == 0
