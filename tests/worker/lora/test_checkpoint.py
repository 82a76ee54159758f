"""What cannot be served is refused by a sentence that names the adapter and what is wrong."""

import json
import math
from pathlib import Path

import pytest
import torch
from safetensors.torch import load_file, save_file

from common.adapters import CONFIG, WEIGHTS, Adapter
from common.errors import StartupError
from tests.worker.adapters import adapter_in, write_adapter
from tests.worker.driver import CPU, Driver
from tests.worker.models.families import FAMILIES
from tests.worker.paged import Paged
from tests.worker.tiny import write_tiny, write_tiny_llama
from worker.loading import load_model

PREFIX = "base_model.model.model.layers.0."
Q = f"{PREFIX}self_attn.q_proj"


@pytest.fixture
def base(tmp_path: Path) -> Path:
    write_tiny_llama(tmp_path / "base")
    return tmp_path / "base"


def load(base: Path, *adapters: Adapter, dtype: torch.dtype = torch.float32):
    return load_model(str(base), device=CPU, dtype=dtype, adapters=adapters)


def sentence(base: Path, adapter: Adapter) -> str:
    with pytest.raises(StartupError) as caught:
        load(base, adapter)
    text = str(caught.value)
    assert "\n" not in text
    assert text.startswith("the adapter a cannot be served: ")
    return text


@pytest.mark.parametrize(
    ("entries", "why"),
    [
        ({"peft_type": "IA3"}, "its peft_type is IA3, not LORA"),
        ({"use_dora": True}, "DoRA"),
        ({"modules_to_save": ["lm_head"]}, "modules_to_save"),
        ({"bias": "all"}, "trained biases (bias is all)"),
        ({"lora_bias": True}, "biases of its own"),
        ({"trainable_token_indices": [1]}, "embeddings of its own"),
        ({"target_parameters": ["mlp.experts"]}, "no linear layers"),
        ({"alora_invocation_tokens": [5]}, "activated LoRA"),
        ({"r": 0}, "r of adapter_config.json must be a positive integer, not 0"),
        ({"r": 4.5}, "r of adapter_config.json must be a positive integer, not 4.5"),
        ({"r": math.inf}, "r of adapter_config.json must be a positive integer, not inf"),
        ({"lora_alpha": math.nan}, "lora_alpha of adapter_config.json must be a positive number"),
        ({"lora_alpha": 10**400}, "lora_alpha of adapter_config.json must be a positive number"),
        ({"rank_pattern": {"q_proj": math.inf}}, "each value of rank_pattern of adapter_config"),
        ({"rank_pattern": {"a{99999999999999}": 4}}, "is no pattern (the repetition number is"),
        ({"init_lora_weights": "pissa_niter_4"}, "changed the model's own weights"),
        ({"init_lora_weights": "olora"}, "(init_lora_weights is olora)"),
        ({"lora_alpha": "8"}, "lora_alpha of adapter_config.json must be a positive number"),
        (
            {"alpha_pattern": {"q_proj": "x"}},
            "value of alpha_pattern of adapter_config.json must be",
        ),
        ({"alpha_pattern": {"(": 1}}, "alpha_pattern of adapter_config.json: '(' is no pattern"),
        (
            {"rank_pattern": {"q_proj": 4, "(?!q_proj).*": 8}},
            "rank_pattern of adapter_config.json: '(?!q_proj).*' is more than can be matched",
        ),
        ({"r": 5}, f"the tensor {PREFIX}mlp.down_proj.lora_A.weight has the shape [4, 96]"),
    ],
)
def test_what_the_configuration_says(base: Path, tmp_path: Path, entries, why: str) -> None:
    write_adapter(tmp_path / "a", base)
    config = json.loads((tmp_path / "a" / CONFIG).read_text())
    (tmp_path / "a" / CONFIG).write_text(json.dumps(config | entries))
    assert why in sentence(base, adapter_in(tmp_path / "a"))


@pytest.mark.parametrize(
    ("tensors", "why"),
    [
        ({f"{Q}.lora_magnitude_vector": (64,)}, f"{Q}.lora_magnitude_vector belongs to a DoRA"),
        ({f"{Q}.bias": (64,)}, "is a trained bias"),
        ({"base_model.model.model.embed_tokens.lora_embedding_A": (4, 256)}, "trained embedding"),
        (
            {"base_model.model.lm_head.modules_to_save.weight": (256, 64)},
            "a whole layer of its own",
        ),
        ({"lora_unet_x.alpha": (1,)}, "is none of a pair base_model.model"),
        ({f"{PREFIX}mlp.wide.lora_A.weight": (4, 64)}, "lora_B of model.layers.0.mlp.wide is miss"),
        (
            {f"{PREFIX}w.lora_A.weight": (4, 64), f"{PREFIX}w.lora_B.weight": (64, 4)},
            f"the tensor {PREFIX}w.lora_A.weight is of model.layers.0.w, which the model lacks",
        ),
        (
            {
                "base_model.model.lm_head.lora_A.weight": (4, 64),
                "base_model.model.lm_head.lora_B.weight": (256, 4),
            },
            "is of lm_head, which is not adapted here",
        ),
        (
            {f"{Q}.lora_A.weight": (4, 32)},
            "a layer of 32 inputs and 64 outputs, the model's has 64",
        ),
        ({f"{Q}.lora_A.default.weight": (4, 64)}, f"{Q}.lora_A.weight are the same one"),
        ({f"{Q}.lora_B.weight": (64, 3)}, f"{Q}.lora_B.weight has the shape [64, 3] with a rank"),
    ],
)
def test_what_the_tensors_are(base: Path, tmp_path: Path, tensors, why: str) -> None:
    write_adapter(tmp_path / "a", base)
    path = tmp_path / "a" / WEIGHTS
    more = {key: torch.zeros(shape) for key, shape in tensors.items()}
    save_file(load_file(path) | more, path)
    assert why in sentence(base, adapter_in(tmp_path / "a"))


@pytest.mark.parametrize("letter", "AB")
def test_numbers_that_are_none(base: Path, tmp_path: Path, letter: str) -> None:
    """In a type that holds less, too: each request of the adapter would end with an error."""
    write_adapter(tmp_path / "a", base, targets="q_proj")
    path = tmp_path / "a" / WEIGHTS
    tensors = load_file(path)
    tensors[f"{Q}.lora_{letter}.weight"][0, 0] = 1e6
    save_file(tensors, path)
    adapter = adapter_in(tmp_path / "a")
    load(base, adapter)
    with pytest.raises(
        StartupError, match=r"adds to model\.layers\.0\.self_attn\.q_proj is not fin"
    ):
        load(base, adapter, dtype=torch.float16)
    tensors[f"{Q}.lora_{letter}.weight"][0, 0] = math.nan
    save_file(tensors, path)
    assert "is not finite in torch.float32" in sentence(base, adapter_in(tmp_path / "a"))


def test_a_configuration_that_is_too_deep(base: Path, tmp_path: Path) -> None:
    write_adapter(tmp_path / "a", base)
    (tmp_path / "a" / CONFIG).write_bytes(b"[" * 100_000)
    assert f"{CONFIG} cannot be read" in sentence(base, adapter_in(tmp_path / "a"))


def test_experts_are_not_adapted(tmp_path: Path) -> None:
    write_tiny(tmp_path / "base", FAMILIES["mixtral"]())
    write_adapter(tmp_path / "a", tmp_path / "base")
    path = tmp_path / "a" / WEIGHTS
    key = f"{PREFIX}block_sparse_moe.gate"
    more = {f"{key}.lora_A.weight": torch.zeros(4, 64), f"{key}.lora_B.weight": torch.zeros(4, 4)}
    save_file(load_file(path) | more, path)
    assert "which is not adapted here" in sentence(tmp_path / "base", adapter_in(tmp_path / "a"))


def test_files_that_have_changed_since_the_start(base: Path, tmp_path: Path) -> None:
    adapter = write_adapter(tmp_path / "a", base, seed=1)
    write_adapter(tmp_path / "a", base, seed=2)
    assert "not those that the server was started with" in sentence(base, adapter)


def test_a_model_without_a_declaration(tmp_path: Path, base: Path) -> None:
    adapter = write_adapter(tmp_path / "a", base)
    config = json.loads((base / "config.json").read_text())
    config |= {"architectures": ["StableLmForCausalLM"], "model_type": "stablelm"}
    (base / "config.json").write_text(json.dumps(config))
    with pytest.raises(StartupError, match="StableLmForCausalLM runs through transformers, where"):
        load(base, adapter)


def test_patterns_change_rank_and_scale(base: Path, tmp_path: Path) -> None:
    """The first that a name ends with counts; others are as the configuration says."""
    adapter = write_adapter(
        tmp_path / "a",
        base,
        rank_pattern={"layers.0.self_attn.q_proj": 2, "q_proj": 6},
        alpha_pattern={"down_proj": 3},
        merged=tmp_path / "merged",
    )
    ids = list(range(40, 70))
    model = load(base, adapter)
    driver = Driver(
        model, model.make_cache(model.configuration, 64, CPU), adapters=(adapter.digest,)
    )
    driver.add(1, ids, 12, adapter=adapter.digest)
    driver.run()
    assert driver.records[1].ids == Paged(load(tmp_path / "merged")).generate(ids, 12)
