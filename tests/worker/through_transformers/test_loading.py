"""Checkpoints of classes without a declaration: what is read, and how others are refused."""

import json
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.adapters import Adapter
from common.errors import StartupError
from tests.worker.driver import CPU
from tests.worker.through_transformers.compare import generated, make_tiny, served
from tests.worker.through_transformers.shrink import tiny_config
from worker.kernels.select import Choices
from worker.loading import load_model
from worker.models.through_transformers.paged import PagedModel
from worker.sharding import Sharding

WEIGHTS = "model.safetensors"
ADAPTER = Adapter(name="a", digest="0", directory="/a", source="a")


def load(directory: Path, **options):
    options = {"device": CPU, "dtype": torch.float32} | options
    return load_model(str(directory), **options)


def refused(directory: Path, *parts: str, **options) -> None:
    with pytest.raises(StartupError) as caught:
        load(directory, **options)
    assert all(part in str(caught.value) for part in parts), caught.value


def change_config(directory: Path, **changes) -> None:
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def change_tensors(directory: Path, change) -> None:
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS, metadata={"format": "pt"})


@pytest.fixture
def checkpoint(tmp_path):
    make_tiny(tiny_config("arcee")).save_pretrained(tmp_path)
    return tmp_path


def test_in_several_files(checkpoint):
    whole = served(load(checkpoint))
    make_tiny(tiny_config("arcee")).save_pretrained(checkpoint, max_shard_size="50KB")
    (checkpoint / WEIGHTS).unlink()
    assert len(list(checkpoint.glob("*.safetensors"))) > 1
    assert served(load(checkpoint)) == whole


def test_a_tied_output_layer_is_not_stored(tmp_path):
    theirs = make_tiny(tiny_config("gemma"), spread=0.3)
    texts = generated(theirs)
    theirs.save_pretrained(tmp_path)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    assert served(load(tmp_path)) == texts


@pytest.mark.parametrize(
    ("model_type", "dtype"),
    [
        ("arcee", torch.float16),
        ("cohere2", torch.bfloat16),
        ("deepseek_v3", torch.bfloat16),
    ],
)
def test_low_precision_stays_in_the_tier(tmp_path, model_type, dtype):
    make_tiny(tiny_config(model_type)).to(dtype).save_pretrained(tmp_path)
    model = load(tmp_path, dtype=dtype)
    assert isinstance(model, PagedModel)
    assert model.configuration.dtype == dtype


def test_a_missing_tensor(checkpoint):
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(checkpoint, "lacks", "model.layers.1.mlp.up_proj.weight")


def test_a_tensor_without_a_place(checkpoint):
    change_tensors(checkpoint, lambda tensors: tensors.update(extra=torch.ones(2)))
    refused(checkpoint, "no place", "extra")


def test_a_tensor_of_another_shape(checkpoint):
    change_tensors(checkpoint, lambda tensors: tensors.update({"model.norm.weight": torch.ones(7)}))
    refused(checkpoint, "model.norm.weight", "[7]", "[64]")


def test_old_frequencies_are_tolerated(checkpoint):
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(checkpoint, lambda tensors: tensors.update({key: torch.ones(8)}))
    load(checkpoint)


def test_pickled_weights(checkpoint):
    (checkpoint / WEIGHTS).rename(checkpoint / "pytorch_model.bin")
    refused(checkpoint, "pickled", "pytorch_model.bin")


def test_a_truncated_file(checkpoint):
    data = (checkpoint / WEIGHTS).read_bytes()
    (checkpoint / WEIGHTS).write_bytes(data[: len(data) // 2])
    refused(checkpoint, WEIGHTS)


@pytest.mark.parametrize(
    ("changes", "parts"),
    [
        ({"architectures": ["T5ForConditionalGeneration"], "model_type": "t5"}, ["an encoder and"]),
        ({"architectures": ["BertForMaskedLM"], "model_type": "bert"}, ["does not generate"]),
        ({"architectures": ["BertLMHeadModel"], "model_type": "bert"}, ["lacks bert.embeddings"]),
        (
            {"model_type": "own", "auto_map": {"AutoConfig": "own.OwnConfig"}},
            ["auto_map", "not run"],
        ),
        ({"model_type": "own"}, ["'own'", "not known to transformers"]),
        ({"quantization_config": {"quant_method": "gptq"}}, ["quantized"]),
        ({"hidden_act": "nonsense"}, ["nonsense"]),
        ({"num_attention_heads": "many"}, ["num_attention_heads"]),
    ],
)
def test_other_configurations(checkpoint, changes, parts):
    change_config(checkpoint, **changes)
    refused(checkpoint, *parts)


@pytest.mark.parametrize(
    ("options", "changes"),
    [
        ({"sharding": Sharding(0, 2)}, {}),
        ({"rope_factor": 2.0}, {}),
        ({"quantize": "fp8"}, {}),
        ({"adapters": [ADAPTER]}, {}),
        ({}, {"quantization_config": {"quant_method": "gptq"}}),
    ],
)
def test_what_transformers_does_not_know_is_said_before_what_it_cannot_do(
    checkpoint, options, changes
):
    change_config(checkpoint, **changes)
    refused(checkpoint, "ArceeForCausalLM", **options)
    change_config(checkpoint, model_type="own")
    refused(checkpoint, "'own'", "not known to transformers", **options)


def test_code_beside_the_weights_is_not_run(checkpoint):
    (checkpoint / "own.py").write_text("raise SystemExit('ran')")
    change_config(checkpoint, auto_map={"AutoModelForCausalLM": "own.Own"})
    assert isinstance(load(checkpoint), PagedModel)


def test_an_encoder_that_is_no_decoder(tmp_path):
    config = tiny_config("bert")
    config.is_decoder = False
    make_tiny(config).save_pretrained(tmp_path)
    refused(tmp_path, "BertLMHeadModel is not causal", "is_decoder")


def test_scaling_of_positions(checkpoint):
    refused(checkpoint, "rope_scaling", "ArceeForCausalLM", rope_scaling="linear", rope_factor=2.0)


def test_a_type_that_another_class_runs(tmp_path):
    """Published under a name of its own, with code of its own; transformers has replaced both."""
    theirs = make_tiny(tiny_config("exaone"))
    texts = generated(theirs)
    theirs.save_pretrained(tmp_path)
    change_config(tmp_path, architectures=["ExaoneForCausalLM"])
    assert served(load(tmp_path)) == texts


def test_an_unknown_name_of_a_known_type(checkpoint):
    change_config(checkpoint, architectures=["NobodyKnowsForCausalLM"])
    refused(checkpoint, "NobodyKnowsForCausalLM", "ArceeForCausalLM")


def test_a_class_with_its_own_cache_takes_no_other_type_of_it(tmp_path):
    make_tiny(tiny_config("mamba")).save_pretrained(tmp_path)
    choices = Choices(kv_dtype=torch.float8_e5m2)
    refused(tmp_path, "keeps its keys and values itself", "--kv-cache-dtype", choices=choices)


def test_longrope_ends_with_the_original_context(tmp_path):
    """Beyond it a sequence would change the angles of those beside it."""
    config = tiny_config("phimoe")
    config.rope_parameters = {
        "rope_type": "longrope",
        "rope_theta": 1e4,
        "short_factor": [1.0] * 8,
        "long_factor": [8.0] * 8,
        "original_max_position_embeddings": 32,
        "short_mscale": 1.0,
        "long_mscale": 1.2,
    }
    make_tiny(config).save_pretrained(tmp_path)
    assert load(tmp_path).configuration.max_position_embeddings == 32


def test_yarn_reaches_as_far_as_it_stretches(checkpoint):
    rope = {"rope_type": "yarn", "rope_theta": 1e4, "factor": 4.0}
    change_config(checkpoint, rope_parameters=rope | {"original_max_position_embeddings": 1024})
    assert load(checkpoint).configuration.max_position_embeddings == 4096


def test_a_class_that_divides_by_zero(checkpoint):
    rope = {"rope_type": "longrope", "rope_theta": 1e4, "factor": 4.0}
    rope |= {"short_factor": [1.0] * 8, "long_factor": [8.0] * 8}
    change_config(checkpoint, rope_parameters=rope | {"original_max_position_embeddings": 1})
    refused(checkpoint, "cannot make ArceeForCausalLM", "division by zero")
