"""What ``--quantize`` and a checkpoint amount to."""

import json

import pytest

from common.errors import StartupError
from common.quantization import AT_LOAD, CHOICES, STORED, Quantization, entries_of, resolve


def entries(method, **more):
    return {"quant_method": method} | more


@pytest.mark.parametrize("method", STORED)
def test_the_default_is_the_checkpoints(method):
    found = resolve(None, entries(method))
    assert (found.stored, found.at_load) == (method, None)
    assert method in str(found)


@pytest.mark.parametrize("asked", AT_LOAD)
def test_unquantized_weights_can_be_quantized(asked):
    found = resolve(asked, {})
    assert (found.stored, found.at_load) == (None, asked)
    assert asked in str(found)


def test_nothing_is_asked_and_nothing_is_there():
    assert resolve(None, {}) == Quantization()
    assert str(Quantization()) == "not quantized"


NF4 = {"load_in_4bit": True, "bnb_4bit_quant_type": "nf4"}


@pytest.mark.parametrize(
    ("asked", "method", "more"),
    [("gptq", "gptq", {}), ("marlin", "gptq", {}), ("awq", "awq", {}), ("gptq", "awq", {}),
     ("marlin", "awq", {}), ("fp8", "fp8", {}), ("fp8", "fbgemm_fp8", {}),
     ("compressed-tensors", "compressed-tensors", {}), ("bitsandbytes", "bitsandbytes", {}),
     ("bitsandbytes-nf4", "bitsandbytes", NF4)],
)  # fmt: skip
def test_what_fits(asked, method, more):
    assert resolve(asked, entries(method, **more)).stored == method


@pytest.mark.parametrize(
    ("asked", "found", "named"),
    [("awq", entries("gptq"), "--quantize gptq"), ("eetq", entries("gptq"), "--quantize gptq"),
     ("fp8", entries("awq"), "--quantize awq"), ("gptq", entries("fp8"), "--quantize fp8"),
     ("gptq", {}, "needs a checkpoint"), ("awq", {}, "needs"), ("marlin", {}, "needs"),
     ("compressed-tensors", {}, "needs"), ("exl2", {}, "EXL2"), (None, entries("exl2"), "EXL2"),
     (None, entries("quip"), "quip"), (None, {"bits": 4}, "unknown"),
     ("bitsandbytes", entries("bitsandbytes", **NF4), "--quantize bitsandbytes-nf4"),
     ("bitsandbytes-fp4", entries("bitsandbytes"), "--quantize bitsandbytes"),
     ("awq", entries("fbgemm_fp8"), "--quantize fp8")],
)  # fmt: skip
def test_what_does_not(asked, found, named):
    with pytest.raises(StartupError) as caught:
        resolve(asked, found)
    assert named in str(caught.value)
    assert "\n" not in str(caught.value)


def test_every_choice_is_known():
    known = {*AT_LOAD, "exl2", "marlin", *STORED} - {"fbgemm_fp8"}
    assert set(CHOICES) == known


@pytest.mark.parametrize(
    ("found", "method"),
    [
        ({"bits": 4, "group_size": 128}, "gptq"),
        ({"w_bit": 4, "zero_point": True}, "awq"),
        ({"w_bit": 4, "version": "GEMM"}, "awq"),
    ],
)
def test_a_file_beside_the_configuration(found, method, tmp_path):
    (tmp_path / "quant_config.json").write_text(json.dumps(found))
    resolved = resolve(None, entries_of({}, tmp_path))
    assert (resolved.stored, resolved.entries["bits"]) == (method, 4)


def test_another_name_of_the_method():
    assert resolve(None, {"quantization_method": "awq"}).stored == "awq"


def test_a_file_that_is_not_json(tmp_path):
    (tmp_path / "quantize_config.json").write_text("{")
    with pytest.raises(StartupError, match="quantize_config"):
        entries_of({}, tmp_path)


def test_entries_that_are_none(tmp_path):
    with pytest.raises(StartupError, match="object"):
        entries_of({"quantization_config": "gptq"}, tmp_path)
