"""On the emulated device: classes of transformers, one step ahead and from graphs where they can.

``TYPES="olmoe falcon"`` in the environment tries others.
"""

import os
from functools import partial

import pytest
import torch

from tests.gpu.engines import ahead, generated, make_engine
from tests.worker.through_transformers.compare import make_talkative, prompts
from tests.worker.through_transformers.shrink import tiny_config
from worker.loading import load_model
from worker.models.through_transformers.paged import PagedModel
from worker.runner import HostRunner

CPU, CUDA = torch.device("cpu"), torch.device("cuda")
TOKENS = 5
TYPES = os.environ.get("TYPES", "cohere2 deepseek_v3 starcoder2").split()
"""Windows by layer; keys wider than values, and experts; biases and layer norms."""


@pytest.mark.parametrize("model_type", TYPES)
def test_a_class_says_what_it_says_on_the_cpu(model_type, tmp_path):
    tiny, _ = make_talkative(tiny_config(model_type))
    tiny.save_pretrained(tmp_path)
    load = partial(load_model, str(tmp_path), dtype=torch.float32)
    here, there = load(device=CPU), load(device=CUDA)
    assert isinstance(here, PagedModel)
    assert isinstance(there, PagedModel)
    assert there.capturable
    expected = generated(make_engine(here, HostRunner, device=CPU), prompts(), TOKENS)
    for make_runner in (ahead(), ahead((1, 2, 4))):
        engine = make_engine(there, make_runner, device=CUDA)
        assert generated(engine, prompts(), TOKENS) == expected


def test_a_class_that_waits_is_not_recorded_and_says_why(tmp_path, monkeypatch):
    tiny, texts = make_talkative(tiny_config("starcoder2"))
    tiny.save_pretrained(tmp_path)
    norm = type(tiny.model.norm)
    forward = norm.forward

    def waiting(layer, x):
        assert x.sum().item() < float("inf")
        return forward(layer, x)

    monkeypatch.setattr(norm, "forward", waiting)
    model = load_model(str(tmp_path), device=CUDA, dtype=torch.float32)
    assert isinstance(model, PagedModel)
    assert not model.capturable
    assert model.why_not_recorded.startswith("its code waits")
    engine = make_engine(model, ahead(), device=CUDA)
    found = generated(engine, prompts(), TOKENS)
    assert [found[number] for number in range(len(texts))] == [text[:TOKENS] for text in texts]
