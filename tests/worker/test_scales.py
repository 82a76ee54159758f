"""Scales of keys and values in 8 bits, from checkpoints that bring them."""

import logging

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import StartupError
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny_llama
from worker.kernels.reference.attention import UNSCALED, KVScales
from worker.kernels.select import Choices
from worker.loading import load_model
from worker.scales import is_scale

CPU = torch.device("cpu")
NARROW = Choices(kv_dtype=torch.float8_e4m3fn)
LAYER = "model.layers.0.self_attn"
LOUD = 3000.0
"""What keys and values are multiplied with, to be beyond what 8 bits hold; queries and the output
projection are divided by it, so that the text stays."""


def write(directory, scales):
    """A Llama whose keys and values are large, with these tensors in its checkpoint."""
    write_tiny_llama(directory)
    path = directory / "model.safetensors"
    tensors = load_file(path)
    for layer in range(2):
        for name, factor in (("k", LOUD), ("v", LOUD), ("q", 1 / LOUD), ("o", 1 / LOUD)):
            tensors[f"model.layers.{layer}.self_attn.{name}_proj.weight"] *= factor
    save_file(tensors | scales, path, {"format": "pt"})


def load(directory, choices=NARROW):
    return load_model(str(directory), device=CPU, dtype=torch.float32, choices=choices)


def logits_of(model):
    """Of a prompt in two chunks, the second of which reads what the first has stored."""
    paged = Paged(model, blocks=12)
    sequence = paged.start(list(range(40, 80)))
    paged.step([(sequence, 30)])
    return paged.step([(sequence, 10)], rows="all")


def distance(got, wanted):
    return ((got - wanted).norm() / wanted.norm()).item()


def every_layer(**numbers):
    return {
        f"model.layers.{layer}.self_attn.{name}": torch.tensor(value)
        for layer in range(2)
        for name, value in numbers.items()
    }


@pytest.mark.parametrize(
    "scales",
    [
        every_layer(k_scale=LOUD / 100, v_scale=[LOUD / 100]),
        every_layer(kv_scale=LOUD / 90),
        {**every_layer(**{"attn.k_scale": LOUD / 80}), **every_layer(**{"v_proj.v_scale": 40.0})},
    ],
)
def test_scales_keep_large_keys_and_values(tmp_path, caplog, scales):
    write(tmp_path, scales)
    exact = logits_of(load(tmp_path, Choices()))
    with caplog.at_level(logging.INFO):
        model = load(tmp_path)
    assert "of 2 of 2 layers are scaled" in caplog.text
    assert distance(logits_of(model), exact) < 0.15
    model.kv_scales = ()
    assert distance(logits_of(model), exact) > 0.5


def test_a_checkpoint_without_them_is_said_to_be_clamped(tmp_path, caplog):
    write(tmp_path, {})
    model = load(tmp_path)
    assert list(model.kv_scales) == [UNSCALED] * 2
    assert "no scales for keys and values in 8 bits: 1 is used" in caplog.text
    assert "±448 is clamped" in caplog.text


def test_a_layer_without_any_has_one(tmp_path):
    write(tmp_path, {f"{LAYER}.k_scale": torch.tensor(2.5)})
    assert load(tmp_path).kv_scales == (KVScales(2.5, 1.0), UNSCALED)


@pytest.mark.parametrize(
    ("name", "value", "sentence"),
    [
        (f"{LAYER}.k_scale", [1.0, 2.0], "only one scale for all heads"),
        (f"{LAYER}.v_scale", 0.0, "is 0.0: no scale"),
        (f"{LAYER}.v_scale", float("nan"), "is nan: no scale"),
        ("model.layers.7.self_attn.v_scale", 1.0, "a layer that the model lacks"),
        (f"{LAYER}.q_scale", 1.0, "no place for the tensor"),
    ],
)
def test_what_is_no_scale_is_refused(tmp_path, name, value, sentence):
    write(tmp_path, {name: torch.tensor(value)})
    with pytest.raises(StartupError, match=sentence):
        load(tmp_path)


def test_names():
    assert is_scale("model.layers.11.self_attn.k_proj.k_scale")
    assert not is_scale("model.layers.11.self_attn.k_proj.weight_scale")
    assert not is_scale("model.k_scale")
