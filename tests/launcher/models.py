"""Tiny model directories for the launcher's tests: valid to look at, not to run."""

import json
import struct
from pathlib import Path


def weights(tensors: dict[str, int] | None = None) -> bytes:
    """A safetensors file with float32 vectors of the given lengths."""
    header, offset = {}, 0
    for name, length in (tensors or {"model.embed.weight": 4}).items():
        end = offset + 4 * length
        header[name] = {"dtype": "F32", "shape": [length], "data_offsets": [offset, end]}
        offset = end
    text = json.dumps({"__metadata__": {"format": "pt"}, **header}).encode()
    return (
        struct.pack("<Q", len(text))
        + text
        + bytes(range(256)) * (offset // 256)
        + bytes(offset % 256)
    )


def model_files(context: int | None = 512) -> dict[str, bytes]:
    """The files of a model."""
    config = {"architectures": ["LlamaForCausalLM"]}
    if context:
        config |= {"max_position_embeddings": context}
    return {
        "config.json": json.dumps(config).encode(),
        "model.safetensors": weights(),
        "tokenizer.json": b"{}",
        "tokenizer_config.json": json.dumps({"model_max_length": 10**30}).encode(),
    }


def sharded_files() -> dict[str, bytes]:
    """The same in two shards."""
    files = model_files()
    del files["model.safetensors"]
    one, two = "model-00001-of-00002.safetensors", "model-00002-of-00002.safetensors"
    files[one] = weights({"a": 4})
    files[two] = weights({"b": 8})
    files["model.safetensors.index.json"] = json.dumps(
        {"weight_map": {"a": one, "b": two}}
    ).encode()
    return files


def write(directory: Path, files: dict[str, bytes]) -> Path:
    """The files on disk."""
    directory.mkdir(parents=True, exist_ok=True)
    for name, data in files.items():
        (directory / name).write_bytes(data)
    return directory
