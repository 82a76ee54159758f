"""Checkpoints: every good layout loads, every bad one is named."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import StartupError
from tests.worker.models import comparing
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.devices import resolve_dtype
from worker.loading import load_model

CPU = torch.device("cpu")
WEIGHTS = "model.safetensors"
INDEX = "model.safetensors.index.json"


@pytest.fixture
def checkpoint(tmp_path):
    write_tiny_llama(tmp_path)
    return tmp_path


def load(directory, dtype=torch.float32):
    return load_model(str(directory), device=CPU, dtype=dtype)


def refused(directory, *named):
    with pytest.raises(StartupError) as caught:
        load(directory)
    for part in named:
        assert part in str(caught.value)
    assert "\n" not in str(caught.value)


def change_tensors(directory, change):
    tensors = load_file(directory / WEIGHTS)
    change(tensors)
    save_file(tensors, directory / WEIGHTS)


def change_config(directory, **changes):
    path = directory / "config.json"
    path.write_text(json.dumps(json.loads(path.read_text()) | changes))


def shard(directory, parts=3):
    """As a large model is stored."""
    tensors = load_file(directory / WEIGHTS)
    (directory / WEIGHTS).unlink()
    where = {}
    for number in range(parts):
        name = f"model-{number + 1:05}-of-{parts:05}.safetensors"
        own = sorted(tensors)[number::parts]
        save_file({key: tensors[key] for key in own}, directory / name)
        where |= dict.fromkeys(own, name)
    (directory / INDEX).write_text(json.dumps({"metadata": {}, "weight_map": where}))


def generated(model):
    return Paged(model).generate(list(b"once upon a time"), 12)


def test_shards(checkpoint):
    whole = generated(load(checkpoint))
    shard(checkpoint)
    assert generated(load(checkpoint)) == whole


def test_the_weights_are_copied(checkpoint):
    model = load(checkpoint)
    wanted = generated(load(checkpoint))
    (checkpoint / WEIGHTS).write_bytes(b"")
    assert generated(model) == wanted


@pytest.mark.parametrize("name", ["dtype", "torch_dtype", None])
def test_the_dtype_is_the_checkpoints(tmp_path, name):
    write_tiny_llama(tmp_path, dtype=torch.bfloat16)
    config = json.loads((tmp_path / "config.json").read_text())
    config.pop("dtype", None)
    if name:
        config[name] = "bfloat16"
    (tmp_path / "config.json").write_text(json.dumps(config))
    wanted = resolve_dtype(None, torch.bfloat16, CPU)
    assert load(tmp_path, dtype=None).configuration.dtype == wanted


def test_a_tied_output_layer_may_be_stored(tmp_path):
    write_tiny_llama(tmp_path, tie_word_embeddings=True)
    assert "lm_head.weight" not in load_file(tmp_path / WEIGHTS)
    wanted = generated(load(tmp_path))
    change_tensors(
        tmp_path,
        lambda tensors: tensors.update(
            {"lm_head.weight": tensors["model.embed_tokens.weight"].clone()}
        ),
    )
    assert generated(load(tmp_path)) == wanted


@pytest.mark.parametrize("name", ["qwen2_tied", "gpt2", "gpt_neox_serial"])
def test_a_tied_output_layer_that_is_another_is_not_tied(tmp_path, name):
    write_tiny(tmp_path, FAMILIES[name]())
    output = "embed_out.weight" if name.startswith("gpt_neox") else "lm_head.weight"
    embedding = load_file(tmp_path / WEIGHTS)[load(tmp_path).embedding_key]
    change_tensors(tmp_path, lambda tensors: tensors.update({output: embedding.flip(0).clone()}))
    ours, theirs = comparing.load(tmp_path, torch.float32)
    ids = comparing.prompt(20)
    paged = Paged(ours)
    got = paged.step([(paged.start(ids), 20)], rows="all")
    comparing.close(got, comparing.expected(theirs, ids))


def test_of_a_tied_pair_either_will_do(tmp_path):
    write_tiny_llama(tmp_path, tie_word_embeddings=True)
    wanted = generated(load(tmp_path))
    change_tensors(
        tmp_path,
        lambda tensors: tensors.update(
            {"lm_head.weight": tensors.pop("model.embed_tokens.weight")}
        ),
    )
    assert generated(load(tmp_path)) == wanted


def test_old_frequencies_are_tolerated(checkpoint):
    key = "model.layers.0.self_attn.rotary_emb.inv_freq"
    change_tensors(checkpoint, lambda tensors: tensors.update({key: torch.ones(8)}))
    load(checkpoint)


def test_no_config(checkpoint):
    (checkpoint / "config.json").unlink()
    refused(checkpoint, "config.json")


@pytest.mark.parametrize("text", ["{", "[]", "\udcff"])
def test_a_config_that_is_none(checkpoint, text):
    (checkpoint / "config.json").write_bytes(text.encode("utf-8", "surrogateescape"))
    refused(checkpoint, "config.json")


def test_an_unknown_architecture(checkpoint):
    change_config(checkpoint, architectures=["NobodyKnows"], model_type="nobody-knows")
    refused(checkpoint, "nobody-knows", "transformers")


@pytest.mark.parametrize(
    ("model_type", "parts"),
    [
        ("mistral", ["contradicts itself", "LlamaForCausalLM", "'mistral'", "MistralForCausalLM"]),
        ("granite", ["contradicts itself", "LlamaForCausalLM", "'granite'", "GraniteForCausalLM"]),
        ("nobody-knows", ["'nobody-knows'", "not known to transformers"]),
        (["llama"], ["model_type must be a name"]),
    ],
)
def test_a_model_type_that_is_not_the_architectures(checkpoint, model_type, parts):
    change_config(checkpoint, model_type=model_type)
    refused(checkpoint, *parts)


def test_without_a_model_type_the_architecture_decides(checkpoint):
    change_config(checkpoint, model_type=None)
    assert load(checkpoint).configuration.architecture == "LlamaForCausalLM"


def test_another_activation(checkpoint):
    change_config(checkpoint, hidden_act="gelu")
    refused(checkpoint, "gelu")


def test_missing_tensors(checkpoint):
    change_tensors(checkpoint, lambda tensors: tensors.pop("model.layers.1.mlp.up_proj.weight"))
    refused(checkpoint, "model.layers.1.mlp.up_proj.weight")


def test_an_untied_output_layer_is_needed(checkpoint):
    change_tensors(checkpoint, lambda tensors: tensors.pop("lm_head.weight"))
    refused(checkpoint, "lm_head.weight")


def test_many_missing_tensors_are_counted(checkpoint):
    change_config(checkpoint, num_hidden_layers=4)
    refused(checkpoint, "model.layers.2.", "13 more")


def test_left_over_tensors(checkpoint):
    change_tensors(
        checkpoint, lambda tensors: tensors.update({"model.layers.0.extra": torch.ones(2)})
    )
    refused(checkpoint, "model.layers.0.extra")


def test_biases_that_the_config_does_not_know(tmp_path):
    write_tiny_llama(tmp_path, attention_bias=True)
    change_config(tmp_path, attention_bias=False)
    refused(tmp_path, "bias")


def test_a_wrong_shape(checkpoint):
    change_config(checkpoint, intermediate_size=100)
    refused(checkpoint, "mlp", "[96, 64]", "[100, 64]")


def test_a_tensor_of_integers(checkpoint):
    key = "model.norm.weight"
    change_tensors(checkpoint, lambda tensors: tensors.update({key: torch.ones(64).int()}))
    refused(checkpoint, key, "I32")


def test_truncated_weights(checkpoint):
    content = (checkpoint / WEIGHTS).read_bytes()
    for size in (0, 5, 1000, len(content) - 1):
        (checkpoint / WEIGHTS).write_bytes(content[:size])
        refused(checkpoint, WEIGHTS)


def test_a_missing_shard(checkpoint):
    shard(checkpoint)
    (checkpoint / "model-00002-of-00003.safetensors").unlink()
    refused(checkpoint, INDEX, "model-00002-of-00003.safetensors")


def test_a_shard_outside_of_the_directory(checkpoint):
    (checkpoint / WEIGHTS).rename(checkpoint.parent / "elsewhere.safetensors")
    (checkpoint / INDEX).write_text(json.dumps({"weight_map": {"x": "../elsewhere.safetensors"}}))
    refused(checkpoint, "elsewhere.safetensors")


@pytest.mark.parametrize("content", ["{}", '{"weight_map": {}}', '{"weight_map": []}'])
def test_an_index_without_a_map(checkpoint, content):
    (checkpoint / WEIGHTS).unlink()
    (checkpoint / INDEX).write_text(content)
    refused(checkpoint, INDEX)


@pytest.mark.parametrize("name", ["pytorch_model.bin", "consolidated.00.pth", "model.pt"])
def test_pickled_weights(checkpoint, name):
    (checkpoint / WEIGHTS).rename(checkpoint / name)
    refused(checkpoint, name, "safetensors")


def test_no_weights(checkpoint):
    (checkpoint / WEIGHTS).unlink()
    refused(checkpoint, "no weights")
