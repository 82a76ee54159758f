"""The other layouts in which checkpoints of a family come: same tokens, or a sentence."""

import json

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.errors import StartupError
from tests.worker.models.comparing import CPU, prompt
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny
from worker.loading import load_model

WEIGHTS = "model.safetensors"


def generated(directory):
    model = load_model(str(directory), device=CPU, dtype=torch.float32)
    return Paged(model).generate(prompt(40), 12)


def rewritten(directory, change):
    tensors = change(load_file(directory / WEIGHTS))
    save_file({key: tensor.contiguous() for key, tensor in tensors.items()}, directory / WEIGHTS)


def reconfigured(directory, change):
    path = directory / "config.json"
    config = json.loads(path.read_text())
    change(config)
    path.write_text(json.dumps(config))


def stacked(tensors):
    """Experts in one tensor, as transformers 5 has them in memory."""
    names = {"w1": "gate_proj", "w2": "down_proj", "w3": "up_proj"}
    found = {}
    for key in [key for key in tensors if ".experts." in key]:
        layer, _, rest = key.partition(".experts.")
        number, name, _ = rest.split(".")
        layer = layer.replace("block_sparse_moe", "mlp")
        found.setdefault(layer, {})[names.get(name, name), int(number)] = tensors.pop(key)
    for layer, matrices in found.items():
        experts = range(1 + max(number for _, number in matrices))
        both = [
            torch.cat((matrices["gate_proj", number], matrices["up_proj", number]))
            for number in experts
        ]
        down = [matrices["down_proj", number] for number in experts]
        tensors[f"{layer}.experts.gate_up_proj"] = torch.stack(both)
        tensors[f"{layer}.experts.down_proj"] = torch.stack(down)
    return {key.replace("block_sparse_moe", "mlp"): tensor for key, tensor in tensors.items()}


@pytest.mark.parametrize("name", ["mixtral", "qwen3_moe"])
def test_experts_in_one_tensor(name, tmp_path):
    write_tiny(tmp_path, FAMILIES[name]())
    wanted = generated(tmp_path)
    rewritten(tmp_path, stacked)
    assert any(key.endswith("experts.gate_up_proj") for key in load_file(tmp_path / WEIGHTS))
    assert generated(tmp_path) == wanted


def test_a_missing_expert(tmp_path):
    write_tiny(tmp_path, FAMILIES["qwen3_moe"]())
    key = "model.layers.2.mlp.experts.5.up_proj.weight"
    rewritten(tmp_path, lambda tensors: {k: t for k, t in tensors.items() if k != key})
    with pytest.raises(StartupError, match=r"layers\.2\.mlp\.experts\.5\.up_proj"):
        generated(tmp_path)


@pytest.mark.parametrize(
    ("family", "key"),
    [
        ("gpt_oss", "model.layers.1.mlp.router.weight"),
        ("mixtral", "model.layers.1.block_sparse_moe.gate.weight"),
        ("mixtral", "model.layers.1.block_sparse_moe.experts.3.w2.weight"),
    ],
)
def test_tensors_are_called_what_the_checkpoint_calls_them(family, key, tmp_path):
    write_tiny(tmp_path, FAMILIES[family]())
    tensors = load_file(tmp_path / WEIGHTS)
    for changed, sentence in (
        ({}, rf"the checkpoint lacks the tensor\(s\) {key}$"),
        ({key: torch.zeros(3)}, rf"^{key} in .* has the shape \[3\]"),
        ({key: torch.zeros(tensors[key].shape, dtype=torch.uint8)}, rf"^{key} in .* of type U8"),
        ({key: tensors[key], f"{key}s": torch.zeros(1)}, rf"no place for the tensor\(s\) {key}s "),
    ):
        others = {name: tensor for name, tensor in tensors.items() if name != key}
        rewritten(tmp_path, lambda _, found=others | changed: found)
        with pytest.raises(StartupError, match=sentence):
            generated(tmp_path)


def test_a_checkpoint_with_the_names_of_transformers_5_keeps_them(tmp_path):
    write_tiny(tmp_path, FAMILIES["mixtral"]())
    key = "model.layers.1.mlp.gate.weight"
    rewritten(tmp_path, lambda all_: {k: t for k, t in stacked(all_).items() if k != key})
    with pytest.raises(StartupError, match=rf"lacks the tensor\(s\) {key}$"):
        generated(tmp_path)


def test_the_first_checkpoints_of_gpt2(tmp_path):
    """Of the decoder alone, with the causal masks."""
    write_tiny(tmp_path, FAMILIES["gpt2"]())
    wanted = generated(tmp_path)
    mask = torch.ones(1, 1, 512, 512).tril()
    rewritten(
        tmp_path,
        lambda tensors: (
            {key.removeprefix("transformer."): t for key, t in tensors.items()}
            | {"h.0.attn.bias": mask, "h.1.attn.masked_bias": torch.tensor(-1e4)}
        ),
    )
    assert generated(tmp_path) == wanted


def test_gpt_neox_as_it_was_written_before(tmp_path):
    write_tiny(tmp_path, FAMILIES["gpt_neox"]())
    assert "embed_out.weight" in load_file(tmp_path / WEIGHTS)
    wanted = generated(tmp_path)
    rewritten(
        tmp_path,
        lambda tensors: (
            {
                "lm_head.weight" if key == "embed_out.weight" else key: tensor
                for key, tensor in tensors.items()
            }
            | {"gpt_neox.layers.0.attention.bias": torch.ones(1, 1, 8, 8)}
        ),
    )

    def old(config):
        rope = config.pop("rope_parameters")
        config["rotary_pct"] = rope["partial_rotary_factor"]
        config["rotary_emb_base"] = rope["rope_theta"]

    reconfigured(tmp_path, old)
    assert generated(tmp_path) == wanted


def test_gemma3_as_transformers_4_writes_it(tmp_path):
    write_tiny(tmp_path, FAMILIES["gemma3"]())
    reconfigured(tmp_path, lambda config: config["rope_parameters"].pop("full_attention"))
    reconfigured(tmp_path, lambda config: config.pop("layer_types"))
    reconfigured(tmp_path, lambda config: config.update(sliding_window_pattern=2))
    wanted = generated(tmp_path)

    def old(config):
        for key in ("rope_parameters", "_sliding_window_pattern", "tie_word_embeddings"):
            config.pop(key, None)
        config |= {"rope_theta": 1e6, "rope_local_base_freq": 1e4, "rope_scaling": None}

    reconfigured(tmp_path, old)
    assert generated(tmp_path) == wanted
