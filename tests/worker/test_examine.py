"""What a worker says of a model without running it."""

import json
import shutil
from pathlib import Path

import msgspec

from common.examination import Examination, Question
from launcher.model import builtin_directory
from worker.examine import examine


def test_a_model_is_measured_without_its_weights() -> None:
    directory = builtin_directory()
    found = examine(Question(model_dir=str(directory), device="cpu", dtype="float32"))
    assert found.problem == ""
    assert found.model is not None
    size = (directory / "model.safetensors").stat().st_size
    assert found.model.weights_bytes > 0.9 * size
    config = json.loads((directory / "config.json").read_text())
    heads = config.get("num_key_value_heads") or config["num_attention_heads"]
    head = config.get("head_dim") or config["hidden_size"] // config["num_attention_heads"]
    assert found.model.kv_bytes_per_token == 2 * config["num_hidden_layers"] * heads * head * 4
    assert found.available_bytes > 0
    assert msgspec.json.decode(msgspec.json.encode(found), type=Examination) == found


def test_a_model_is_measured_as_a_whole_if_shards_share_it() -> None:
    directory = str(builtin_directory())
    whole = examine(Question(model_dir=directory, device="cpu", dtype="float32"))
    shared = examine(Question(model_dir=directory, device="cpu", dtype="float32", num_shard=2))
    assert shared.model == whole.model


def test_a_model_that_cannot_be_cut() -> None:
    found = examine(Question(model_dir=str(builtin_directory()), device="cpu", num_shard=7))
    assert found.model is None
    assert "--num-shard may be 2, 4" in found.problem


def test_a_watermark_that_marks_nothing() -> None:
    asked = Question(model_dir=str(builtin_directory()), device="cpu", watermark_gamma=1e-9)
    found = examine(asked)
    assert found.model is None
    assert "--watermark-gamma 1e-09 favours none" in found.problem


def test_a_model_that_cannot_be_run(tmp_path: Path) -> None:
    broken = Path(shutil.copytree(builtin_directory(), tmp_path / "model"))
    config = json.loads((broken / "config.json").read_text())
    (broken / "config.json").write_text(json.dumps({**config, "architectures": ["Nobody"]}))
    found = examine(Question(model_dir=str(broken), device="cpu"))
    assert found.model is None
    assert "Nobody does not generate text" in found.problem
    assert found.torch


def test_keys_and_values_of_8_bits_take_a_quarter_of_float32() -> None:
    asked = Question(model_dir=str(builtin_directory()), device="cpu", dtype="float32")
    wide = examine(asked).model
    narrow = examine(msgspec.structs.replace(asked, kv_cache_dtype="fp8_e4m3")).model
    assert wide is not None
    assert narrow is not None
    assert narrow.kv_bytes_per_token * 4 == wide.kv_bytes_per_token
