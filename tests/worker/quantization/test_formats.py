"""Checkpoints of every format against their twins: the same numbers, stored plainly."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import StartupError
from tests.worker.paged import Paged
from tests.worker.quantization import writers
from tests.worker.quantization.writers import WEIGHTS, change_config, quantized
from tests.worker.tiny import write_tiny_llama
from worker.layers.linear import matrices
from worker.loading import load_model
from worker.sharding import Sharding

CPU = torch.device("cpu")
PROMPT = list(b"once upon a time")
UP = "model.layers.1.mlp.up_proj"
FORMATS = {
    "gptq": writers.gptq(),
    "gptq, not symmetric": writers.gptq(symmetric=False),
    "gptq, in the order of importance": writers.gptq(symmetric=False, shuffled=True),
    "gptq, groups that do not divide the inputs": writers.gptq(group=64, symmetric=False),
    "gptq, one group": writers.gptq(group=None),
    "gptq, version 2": writers.gptq(symmetric=False, version=2),
    "gptq, version 2 in today's words": writers.gptq(symmetric=False, version=2, said="format"),
    "gptq, 8 bits": writers.gptq(8, symmetric=False),
    "gptq, biases of zeros": writers.gptq(biased=True),
    "awq": writers.awq(),
    "fp8, one scale": writers.fp8(),
    "fp8, by output": writers.fp8("output"),
    "fp8, blocks": writers.fp8("block", (48, 64)),
    "packed": writers.packed(),
    "packed, not symmetric": writers.packed(symmetric=False),
    "packed, in the order of importance": writers.packed(shuffled=True),
    "packed, zero points of their own": writers.packed(symmetric=False, zeros_packed=False),
    "packed, zero points of 0": writers.packed(zeros_packed=False),
    "packed, 8 bits, zero points of their own": writers.packed(
        8, None, symmetric=False, zeros_packed=False
    ),
    "packed, one scale": writers.packed_by_matrix(),
    "packed, 8 bits": writers.packed(8, None),
    "int8": writers.int8(),
    "int8, not symmetric": writers.int8(symmetric=False),
    "int8, blocks": writers.int8_blocks((48, 64)),
    "int8, blocks as of old": writers.int8_blocks((48, 64), "48x64"),
    "float8": writers.compressed_fp8(),
    "float8, one scale": writers.compressed_fp8("tensor"),
    "float8, zero points of 0": writers.compressed_fp8(zeros=True),
    "nf4": writers.nf4(),
    "nf4, nested": writers.nf4(nested=True),
    "bitsandbytes, int8": writers.scb(),
}


@pytest.fixture(scope="module")
def source(tmp_path_factory):
    directory = tmp_path_factory.mktemp("source")
    write_tiny_llama(directory)
    return directory


@pytest.fixture
def write(source, tmp_path):
    """Makes a checkpoint and its twin by a writer."""
    return lambda writer, **options: quantized(source, tmp_path, *writer, **options)


def load(directory, dtype=torch.float32, **options):
    return load_model(str(directory), device=CPU, dtype=dtype, **options)


def logits(model):
    paged = Paged(model)
    return paged.step([(paged.start(PROMPT), len(PROMPT))], rows="all")


def generated(model):
    return Paged(model).generate(PROMPT, 12)


@pytest.mark.parametrize("name", FORMATS)
def test_equals_its_twin(write, name):
    coded, plain = write(FORMATS[name])
    found, wanted = load(coded), load(plain)
    assert generated(found) == generated(wanted)
    assert (logits(found) - logits(wanted)).abs().max() < 1e-3
    kinds = [matrix.is_coded for matrix in matrices(found)]
    shuffled = 1 if "order" in name else 0  # q, k and v in three orders: no single matrix
    assert kinds.count(True) == 8 - 4 * shuffled
    assert found.quantization


@pytest.mark.parametrize("said", [True, False])
def test_blocks_of_float8_need_not_be_told(tmp_path, said):
    write_tiny_llama(tmp_path / "source", intermediate_size=160)
    writer = writers.fp8("block", (128, 128), said=said)
    coded, plain = quantized(tmp_path / "source", tmp_path, *writer)
    up = load_file(coded / WEIGHTS)[f"{UP}.weight_scale_inv"]
    assert up.shape == (2, 1)
    found = load(coded)
    assert generated(found) == generated(load(plain))
    assert all(matrix.is_coded for matrix in list(matrices(found))[1:])


def test_blocks_of_float8_that_are_told_are_all_there_may_be(write):
    coded, _ = write(writers.fp8("output"))
    change_config(coded, quantization_config=writers.fp8("block", (48, 64))[1])
    refused(coded, "down_proj.weight_scale", "[64, 1], and not [2, 2]")


def test_the_codes_are_what_takes_memory(write):
    coded, plain = write(writers.gptq())
    found, wanted = list(matrices(load(coded))), list(matrices(load(plain)))
    assert found[0].weight_bytes == wanted[0].weight_bytes  # the output layer
    bits = [8 * a.weight_bytes * 4 / b.weight_bytes for a, b in zip(found, wanted, strict=True)]
    assert bits[1:] == [5.0] * 8  # 4, and a scale of 32 for each 32


def test_a_matrix_may_be_left_as_it_is(write):
    coded, plain = write(writers.gptq(), skip=("lm_head", "embed", "norm", "down_proj", "k_proj"))
    found = load(coded)
    assert generated(found) == generated(load(plain))
    # With k plain, q, k and v in one matrix are no codes; nor is down.
    assert [matrix.is_coded for matrix in matrices(found)].count(True) == 4


def test_keys_and_values_alone_may_be_quantized(tmp_path):
    write_tiny_llama(tmp_path)
    wanted = generated(load(tmp_path))
    said = {"quant_method": "compressed-tensors", "format": "dense", "config_groups": {}}
    scheme = {"num_bits": 8, "type": "float", "strategy": "tensor"}
    change_config(tmp_path, quantization_config=said | {"kv_cache_scheme": scheme})
    change(
        tmp_path,
        lambda tensors: tensors.update({"model.layers.0.self_attn.k_scale": torch.tensor([0.5])}),
    )
    assert generated(load(tmp_path)) == wanted


def test_the_output_layer_may_be_quantized(write):
    coded, plain = write(writers.fp8("output"), skip=("embed", "norm"))
    found = load(coded)
    assert generated(found) == generated(load(plain))
    assert all(matrix.is_coded for matrix in matrices(found))


@pytest.mark.parametrize("beside", ["quantize_config.json", "quant_config.json"])
def test_the_files_of_older_quantizers(write, beside):
    coded, plain = write(writers.awq())
    config = json.loads((coded / "config.json").read_text())
    old = config.pop("quantization_config")
    (coded / "config.json").write_text(json.dumps(config))
    said = {"zero_point": True, "q_group_size": old["group_size"], "w_bit": 4, "version": "GEMM"}
    (coded / beside).write_text(json.dumps(said))
    assert generated(load(coded)) == generated(load(plain))


def test_nothing_is_read_to_examine(write):
    coded, _ = write(writers.gptq())
    model = load(coded, weights=False)
    assert model.quantization == "gptq, 4 bits in groups of 32"
    stored = sum(part.nbytes for part in load_file(coded / WEIGHTS).values())
    assert model.weights_bytes == stored


def test_float16_is_computed_in_what_there_are_kernels_for(write):
    coded, _ = write(writers.gptq())
    change_config(coded, dtype="float16")
    assert load(coded, dtype=None).configuration.dtype in (torch.bfloat16, torch.float32)


# --- what is wrong ------------------------------------------------------------------------------


def refused(directory, *named, **options):
    with pytest.raises(StartupError) as caught:
        load(directory, **options)
    for part in named:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def change(directory, edit):
    tensors = load_file(directory / WEIGHTS)
    edit(tensors)
    save_file(tensors, directory / WEIGHTS)


def compressed(weights=None, **entries):
    return writers.compressed("int-quantized", weights or {}) | entries


@pytest.mark.parametrize(
    ("writer", "name", "made", "named"),
    [
        (writers.gptq(), "scales", None, "lacks"),
        (writers.gptq(), "qzeros", torch.zeros(2, 9, dtype=torch.int32), "[2, 9]"),
        (writers.gptq(), "qweight", torch.zeros(8, 96), "F32"),
        (writers.gptq(), "g_idx", torch.zeros(64, dtype=torch.int32), "g_idx"),
        (writers.gptq(), "g_idx", torch.full((64,), 2**60), "g_idx"),
        (writers.awq(), "scales", torch.zeros(3, 96).half(), "[3, 96]"),
        (writers.packed(), "weight_packed", torch.zeros(96, 9, dtype=torch.int32), "9 columns"),
        (writers.packed(), "weight_scale", torch.zeros(96, 5), "[96, 5]"),
        (writers.fp8(), "weight_scale", None, "lacks"),
        (writers.fp8(), "weight", torch.zeros(96, 64).to(torch.float8_e5m2), "F8_E5M2"),
        (writers.fp8(), "weight", torch.full((96, 64), float("nan")).to(torch.float8_e4m3fn),
         "NaN"),
        (writers.nf4(), "weight.absmax", torch.zeros(7), "absmax"),
        (writers.nf4(), "weight.quant_state.bitsandbytes__nf4",
         torch.tensor([123], dtype=torch.uint8), "quant_state"),
        (writers.nf4(), "weight.absmax", torch.zeros(96).to(torch.uint8), "U8"),
        (writers.nf4(nested=True), "weight.absmax", torch.zeros(96), "F32"),
        (writers.scb(), "SCB", torch.zeros(3), "[3]"),
        (writers.scb(), "weight_format", torch.tensor(1, dtype=torch.uint8), "weight_format"),
        (writers.packed(symmetric=False), "weight_zero_point",
         torch.zeros(12, 1, dtype=torch.int32), "weight_zero_point"),
        (writers.int8(symmetric=False), "weight_zero_point", torch.zeros(1, dtype=torch.int8),
         "weight_zero_point"),
        (writers.compressed_fp8(zeros=True), "weight_zero_point", torch.ones(96, 1),
         "zero points"),
    ],
)  # fmt: skip
def test_a_bad_tensor_is_named(write, writer, name, made, named):
    coded, _ = write(writer)

    def edit(tensors):
        assert tensors.pop(f"{UP}.{name}") is not None
        if made is not None:
            tensors[f"{UP}.{name}"] = made

    change(coded, edit)
    refused(coded, UP, named)


@pytest.mark.parametrize("number", [float("nan"), float("inf")])
@pytest.mark.parametrize(
    ("writer", "name"),
    [
        (writers.gptq(), "scales"),
        (writers.awq(), "scales"),
        (writers.packed(), "weight_scale"),
        (writers.fp8(), "weight_scale"),
        (writers.fp8("block", (48, 64)), "weight_scale_inv"),
        (writers.int8(), "weight_scale"),
        (writers.nf4(), "weight.absmax"),
        (writers.nf4(), "weight.quant_map"),
        (writers.nf4(nested=True), "weight.nested_absmax"),
        (writers.scb(), "SCB"),
    ],
)
def test_a_scale_that_is_no_finite_number(write, writer, name, number):
    coded, _ = write(writer)
    change(coded, lambda tensors: tensors[f"{UP}.{name}"].view(-1)[:1].fill_(number))
    refused(coded, UP, "finite")


@pytest.mark.parametrize(
    ("entries", "named"),
    [
        ({"bits": 3}, "3 bits"),
        ({"bits": "4"}, "bits"),
        ({"group_size": 0}, "group_size"),
        ({"checkpoint_format": "marlin"}, "marlin"),
        ({"quant_method": "exl2"}, "EXL2"),
        ({"quant_method": "hqq"}, "hqq"),
        ({"quant_method": "awq", "version": "gemv"}, "gemv"),
        ({"quant_method": "awq", "format": "gemv"}, "gemv"),
        ({"quant_method": "awq", "zero_point": False}, "zero points"),
        ({"quant_method": "fp8", "fmt": "e5m2"}, "e5m2"),
        ({"quant_method": "fp8", "weight_block_size": [128]}, "weight_block_size"),
        ({"quant_method": "compressed-tensors"}, "config_groups"),
        ({"quant_method": "compressed-tensors", "format": "nvfp4-pack-quantized",
          "config_groups": {"group_0": {}}}, "nvfp4"),
        (compressed(format=[]), "as []"),
        (compressed(sparsity_config="24"), "sparsity_config"),
        (compressed(transform_config={"config_groups": {"R4": {"apply": [{"location": "input"}]}}}),
         "location input"),
        (compressed(weights={"block_structure": [0, 0]}), "block_structure"),
        (compressed(weights={"block_structure": "128"}), "block_structure"),
    ],
)  # fmt: skip
def test_what_is_not_supported_is_named(write, entries, named):
    writer, config = writers.gptq()
    coded, _ = write((writer, config | entries))
    refused(coded, named)


@pytest.mark.parametrize("said", [None, {"quant_method": "bitsandbytes"}])
def test_codes_that_config_json_does_not_speak_of(write, said):
    coded, _ = write(writers.gptq())
    change_config(coded, quantization_config=said)
    refused(coded, "lacks", "q_proj.", "not quantized as config.json says")


def test_a_bias_that_is_not_zero_has_no_place(write):
    coded, _ = write(writers.gptq(biased=True))
    change(coded, lambda tensors: tensors[f"{UP}.bias"].add_(1))
    refused(coded, f"{UP}.bias")


@pytest.mark.parametrize("name", ["eetq", "fp8", "bitsandbytes-nf4", "bitsandbytes-fp4"])
@pytest.mark.parametrize("number", [float("nan"), float("-inf")])
def test_a_number_that_is_not_finite_is_not_rounded_away(write, name, number):
    _, plain = write(writers.gptq())
    change(plain, lambda tensors: tensors[f"{UP}.weight"].view(-1)[:1].fill_(number))
    refused(plain, f"{UP}.weight", "finite", quantize=name)


def test_a_choice_that_does_not_fit(write):
    coded, plain = write(writers.gptq())
    refused(coded, "--quantize awq", "gptq", quantize="awq")
    refused(coded, "--quantize eetq", "gptq", quantize="eetq")
    refused(plain, "--quantize gptq", quantize="gptq")
    change_config(coded, quantization_config=writers.nf4()[1])
    refused(coded, "quantized with bitsandbytes-nf4", quantize="bitsandbytes")
    change_config(coded, quantization_config=writers.gptq()[1])
    assert generated(load(coded, quantize="gptq")) == generated(load(coded, quantize="marlin"))


# --- shards -------------------------------------------------------------------------------------


@pytest.mark.parametrize("name", ["gptq, not symmetric", "awq", "fp8, blocks", "int8", "nf4"])
def test_shards_have_their_parts(write, name):
    """Each shard's matrices are the parts of the twin's."""
    coded, plain = write(FORMATS[name])
    for rank in range(2):
        sharding = Sharding(rank, 2)
        found, wanted = (load(path, sharding=sharding) for path in (coded, plain))
        for one, other in zip(matrices(found), matrices(wanted), strict=True):
            x = torch.randn(3, one.inputs)
            assert (one.operation(x) - other.operation(x)).abs().max() < 1e-4


def test_groups_that_are_not_neighbours_cannot_be_cut(write):
    coded, _ = write(writers.gptq(shuffled=True))
    refused(coded, "o_proj", "desc_act", sharding=Sharding(0, 2))
    refused(coded, "o_proj", "desc_act", sharding=Sharding(0, 2), weights=False)
    assert load(coded, weights=False).quantization == "gptq, 4 bits in groups of 32"
