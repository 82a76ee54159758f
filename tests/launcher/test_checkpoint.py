"""Model directories with something wrong: one sentence each, naming the file."""

import struct
from pathlib import Path

import pytest

from common.errors import StartupError
from launcher.checkpoint import choose_weights, no_weights, read_header, verify
from launcher.model import builtin_directory
from tests.launcher.models import model_files, sharded_files, weights, write

SHARD = "model-00002-of-00002.safetensors"


def without(files: dict[str, bytes], name: str) -> dict[str, bytes]:
    return {key: data for key, data in files.items() if key != name}


def changed(files: dict[str, bytes], **other: bytes) -> dict[str, bytes]:
    return {**files, **{name.replace("__", "."): data for name, data in other.items()}}


def test_good_directories(tmp_path: Path) -> None:
    one = verify(write(tmp_path / "one", model_files()))
    assert [path.name for path in one.weights] == ["model.safetensors"]
    assert one.has_fast_tokenizer
    two = verify(write(tmp_path / "two", without(sharded_files(), "tokenizer.json")))
    assert len(two.weights) == 2
    assert not two.has_fast_tokenizer


def test_the_place_of_a_download_instead_of_the_repository(tmp_path: Path) -> None:
    place = tmp_path / "models--org--name"
    (place / "snapshots").mkdir(parents=True)
    with pytest.raises(StartupError) as caught:
        verify(place)
    assert f"--model-id org/name --huggingface-hub-cache {tmp_path} finds it" in str(caught.value)


def test_the_built_in_model() -> None:
    assert verify(builtin_directory()).has_fast_tokenizer


BAD_HEADER = struct.pack("<Q", 5) + b"[1,2]" + b"data"
NO_OFFSETS = struct.pack("<Q", 10) + b'{"a": {}} '


@pytest.mark.parametrize(
    ("files", "words"),
    [
        (without(model_files(), "config.json"), ["no config.json"]),
        (
            {"adapter_config.json": b"{}"},
            [
                "is an adapter",
                "--model-id BASE --lora-adapters /",
                "base_model_name_or_path of its",
            ],
        ),
        (
            {"adapter_config.json": b'{"base_model_name_or_path": "org/base"}'},
            ["serve its base model with it, --model-id org/base --lora-adapters /"],
        ),
        (
            {"adapter_config.json": b'{"base_model_name_or_path": "two\\nlines"}'},
            ["--model-id BASE --lora-adapters /"],
        ),
        ({"model.Q4_K_M.gguf": b"GGUF"}, ["no config.json", "GGUF is not read", "safetensors"]),
        (
            changed(
                model_files(),
                config__json=b'{"medusa_num_heads": 3, "base_model_name_or_path": "org/base"}',
            ),
            ["Medusa heads", "the model that they draft for (org/base)", "--speculate"],
        ),
        (
            changed(model_files(), config__json=b'{"model_type": "mlp_speculator"}'),
            ["an MLP speculator", "--speculate"],
        ),
        (changed(model_files(), config__json=b"{"), ["config.json", "not valid JSON"]),
        (changed(model_files(), config__json=b"[]"), ["config.json", "JSON object"]),
        (changed(model_files(), config__json=b"[" * 200_000), ["config.json", "not valid JSON"]),
        (changed(model_files(), config__json=b'{"a": "\xff"}'), ["config.json", "not valid JSON"]),
        (changed(model_files(), tokenizer__json=b"{"), ["tokenizer.json", "not valid JSON"]),
        (without(model_files(), "model.safetensors"), ["neither model.safetensors nor"]),
        (
            changed(without(model_files(), "model.safetensors"), pytorch_model__bin=b"x"),
            ["pickled weights (pytorch_model.bin)"],
        ),
        (changed(model_files(), model__safetensors=b""), ["model.safetensors", "cut off"]),
        (changed(model_files(), model__safetensors=b"1234567"), ["cut off (7 bytes)"]),
        (
            changed(model_files(), model__safetensors=weights()[:-1]),
            ["model.safetensors", "cut off"],
        ),
        (changed(model_files(), model__safetensors=weights()[:40]), ["cut off (40 bytes)"]),
        (changed(model_files(), model__safetensors=weights() + b"x"), ["too long"]),
        (changed(model_files(), model__safetensors=BAD_HEADER), ["is not a safetensors file"]),
        (changed(model_files(), model__safetensors=NO_OFFSETS), ["is not a safetensors file"]),
        (changed(model_files(), model__safetensors=b"\xff" * 64), ["is not a safetensors file"]),
        (without(sharded_files(), SHARD), [SHARD, "is missing"]),
        ({**sharded_files(), SHARD: weights({"c": 8})}, ["index.json promises b"]),
        ({**sharded_files(), "model.safetensors.index.json": b"{}"}, ["no weight_map"]),
        ({**sharded_files(), "model.safetensors.index.json": b"{"}, ["not valid JSON"]),
    ],
)
def test_bad_directories(tmp_path: Path, files, words) -> None:
    with pytest.raises(StartupError) as caught:
        verify(write(tmp_path, files))
    assert all(word in str(caught.value) for word in words), str(caught.value)
    assert "\n" not in str(caught.value)


def test_header(tmp_path: Path) -> None:
    path = tmp_path / "x.safetensors"
    path.write_bytes(weights({"a": 3, "b": 5}))
    assert read_header(path) == {"a", "b"}


def test_draft_heads_alone() -> None:
    sentence = str(no_weights("org/name", ["config.json", "medusa_lm_head.safetensors"]))
    assert sentence.startswith("org/name holds Medusa heads, which are not supported")


def test_weights_that_are_there_twice_are_read_once() -> None:
    index = "model.safetensors.index.json"
    names = ["consolidated.safetensors", "model-1.safetensors", "model-2.safetensors", "x.bin"]
    assert choose_weights(names) == []
    assert choose_weights([*names, index]) == ["model-1.safetensors", "model-2.safetensors"]
    assert choose_weights([*names, index, "model.safetensors"]) == ["model.safetensors"]
    assert choose_weights([index, "a.safetensors", "original/b.safetensors"]) == ["a.safetensors"]
