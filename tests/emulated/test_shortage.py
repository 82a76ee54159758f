"""On the emulated device: torch's own allocator refuses what one request needs."""

import torch

from tests.gpu.engines import PROMPTS, ahead, generated, make_engine, outcomes, tiny_model

TOKENS, TOO_LONG, TOO_MUCH_BYTES = 6, 30, 1 << 40


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
    ids, errors = outcomes(engine, prompts, TOKENS)
    assert errors == {0: "", 1: "no memory was left for a step of this request", 2: ""}
    assert (ids[0], ids[2]) == (wanted[0], wanted[2])
    assert engine.held == 0
