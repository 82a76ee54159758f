"""Models without tokenizer.json: converted once, in a process of its own."""

import json
import subprocess
import sys
from pathlib import Path

import pytest
import sentencepiece
from tokenizers import Tokenizer

from common.errors import StartupError
from launcher.model import Model, make_ready
from launcher.prepare import prepare, prepared_directory
from tests.launcher.models import model_files, write


def slow_model(directory: Path) -> Path:
    """GPT-2's old format: vocab.json and merges.txt."""
    files = model_files()
    del files["tokenizer.json"]
    letters = ["<|endoftext|>", *"abcdefgh", "ab", "abc"]
    files["vocab.json"] = json.dumps(
        {token: number for number, token in enumerate(letters)}
    ).encode()
    files["merges.txt"] = b"#version: 0.2\na b\nab c\n"
    files["tokenizer_config.json"] = b'{"tokenizer_class": "GPT2Tokenizer"}'
    files["config.json"] = b'{"model_type": "gpt2"}'
    return write(directory, files)


def test_converts_once(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    model = slow_model(tmp_path / "model")
    said: list[str] = []
    found = Model("m", model)
    target = make_ready(found, lambda: [tmp_path / "cache"], said.append)
    assert target == prepared_directory(model, tmp_path / "cache")
    assert Tokenizer.from_file(str(target / "tokenizer.json")).encode("abcab").ids == [10, 9]
    names = {path.name for path in model.iterdir()}
    assert {path.name for path in target.iterdir()} == names | {"tokenizer.json"}
    assert (target / "model.safetensors").resolve() == model / "model.safetensors"
    assert "converting" in said[0]
    monkeypatch.setattr("subprocess.run", None)
    assert prepare(model, tmp_path / "cache") == target


def test_converts_sentencepiece(tmp_path: Path) -> None:
    files = model_files()
    del files["tokenizer.json"]
    files["tokenizer_config.json"] = b'{"tokenizer_class": "LlamaTokenizer"}'
    files["config.json"] = b'{"model_type": "llama"}'
    model = write(tmp_path / "model", files)
    (tmp_path / "text").write_text("\n".join(["hello wide world", "a b c d e f g h i j k"] * 50))
    sentencepiece.SentencePieceTrainer.train(
        input=str(tmp_path / "text"), model_prefix=str(model / "tokenizer"), vocab_size=40,
        model_type="bpe", minloglevel=2,
    )  # fmt: skip
    target = prepare(model, tmp_path / "cache")
    tokens = Tokenizer.from_file(str(target / "tokenizer.json")).encode("hello world").tokens
    assert "".join(tokens).replace("▁", " ").strip() == "hello world"


def test_a_changed_tokenizer_is_converted_anew(tmp_path: Path) -> None:
    model = slow_model(tmp_path / "model")
    before = prepared_directory(model, tmp_path)
    (model / "merges.txt").write_bytes(b"#version: 0.2\na b\n")
    assert prepared_directory(model, tmp_path) != before


def test_a_preparation_that_was_cut_off_is_made_anew(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    model = slow_model(tmp_path / "model")
    with monkeypatch.context() as meanwhile:
        meanwhile.setattr(Path, "symlink_to", cut_off)
        with pytest.raises(OSError, match="no room"):
            prepare(model, tmp_path / "cache")
    target = prepare(model, tmp_path / "cache")
    names = {path.name for path in model.iterdir()}
    assert {path.name for path in target.iterdir()} == names | {"tokenizer.json"}


def cut_off(path: Path, target: Path) -> None:
    raise OSError("no room")


@pytest.mark.parametrize("done", [False, True])
def test_what_a_killed_conversion_has_left_is_not_kept(tmp_path: Path, done: bool) -> None:
    """Nor is what another launcher has just finished written again."""
    model, output = slow_model(tmp_path / "model"), tmp_path / "tokenizer.json"
    (tmp_path / "tokenizer.json.unfinished").write_text("{" * 10_000)
    if done:
        output.write_text("of another launcher")
    command = [sys.executable, "-m", "launcher.convert_tokenizer", str(model), str(output)]
    subprocess.run(command, check=True)
    assert {path.name for path in tmp_path.iterdir()} == {"model", "tokenizer.json"}
    if done:
        assert output.read_text() == "of another launcher"
    else:
        assert Tokenizer.from_file(str(output)).encode("abcab").ids == [10, 9]


def test_a_place_that_cannot_be_written_is_passed_over(tmp_path: Path) -> None:
    (tmp_path / "file").write_text("")
    with pytest.raises(StartupError, match="no place for the converted tokenizer"):
        make_ready(Model("m", slow_model(tmp_path / "m")), lambda: [tmp_path / "file" / "x"], print)


def test_a_model_without_any_tokenizer(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    files = model_files()
    del files["tokenizer.json"], files["tokenizer_config.json"]
    model = write(tmp_path / "model", files)
    monkeypatch.setattr("subprocess.run", None)
    with pytest.raises(StartupError, match="has no tokenizer: there is no"):
        prepare(model, tmp_path / "cache")
    assert not (tmp_path / "cache").exists()


def test_a_tokenizer_that_cannot_be_converted(tmp_path: Path) -> None:
    files = model_files()
    del files["tokenizer.json"]
    model = write(tmp_path / "model", files)
    with pytest.raises(StartupError) as caught:
        prepare(model, tmp_path / "cache")
    assert "has no tokenizer.json, and its tokenizer cannot be converted" in str(caught.value)
    assert "\n" not in str(caught.value)
