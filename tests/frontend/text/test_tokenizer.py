"""One model's tokenizer: ids, offsets, special tokens, ends, broken files."""

import json
import subprocess
import sys
import threading
from concurrent.futures import ThreadPoolExecutor

import pytest
from hypothesis import given
from hypothesis import strategies as st

from common.errors import ErrorKind, RequestError, StartupError
from frontend.text.tokenizer import EncodedToken, Tokenizer

TEXTS = st.text(st.characters(exclude_categories=["Cs"]), max_size=40)


@pytest.fixture
def model(tmp_path, kinds):
    """Writes a model directory; keywords are the JSON files' contents."""

    def write(raw=None, **files):
        (raw or kinds.raw["byte_level"]()).save(str(tmp_path / "tokenizer.json"))
        for name, content in files.items():
            (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def test_encodes_and_decodes(kinds):
    tokenizer = kinds.byte_level
    ids = tokenizer.encode("The fox 😀", add_special_tokens=True)
    assert ids[0] == 1
    assert ids[1:] == tokenizer.encode("The fox 😀", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "<s>The fox 😀"
    assert tokenizer.decode(ids, skip_special_tokens=True) == "The fox 😀"


def test_stored_truncation_and_padding_are_off(model, kinds):
    raw = kinds.raw["byte_level"]()
    raw.enable_truncation(3)
    raw.enable_padding(length=50)
    tokenizer = Tokenizer.load(model(raw))
    ids = tokenizer.encode("The quick brown fox", add_special_tokens=False)
    assert tokenizer.decode(ids, skip_special_tokens=False) == "The quick brown fox"


@pytest.mark.parametrize("text", ["a\ud800b", "\udfff", "ü\ud83d"])
def test_lone_surrogates_are_refused(tokenizer, text):
    for encode in (
        lambda: tokenizer.encode(text, add_special_tokens=False),
        lambda: tokenizer.encode_with_offsets(text),
    ):
        with pytest.raises(RequestError) as caught:
            encode()
        assert caught.value.kind is ErrorKind.VALIDATION


def test_offsets_are_bytes(kinds):
    text = "é<s>fox 😀!"
    data = text.encode()
    tokens = kinds.byte_level.encode_with_offsets(text)[:]
    assert tokens[0] == EncodedToken(id=1, start=0, stop=0)
    slices = [data[token.start : token.stop].decode(errors="replace") for token in tokens[1:]]
    assert slices[:2] == ["é", "<s>"]  # written by the user, so it has a place
    assert slices[-1] == "!"
    assert "😀" in slices[-2]
    plain = kinds.byte_level.encode_with_offsets(text, add_special_tokens=False)[:]
    assert plain == tokens[1:]
    assert kinds.byte_level.encode_with_offsets("fox")[:][-1].stop == 3


@given(text=TEXTS)
def test_offsets_lie_in_the_text_on_characters(tokenizer, text):
    data = text.encode()
    tokens = tokenizer.encode_with_offsets(text)[:]
    assert [token.id for token in tokens] == tokenizer.encode(text, add_special_tokens=True)
    for token in tokens:
        assert 0 <= token.start <= token.stop <= len(data)
        data[token.start : token.stop].decode()


def test_token_text(tokenizer):
    for token_id in [0, 1, 2, 3, 10, 200]:
        alone = tokenizer.decode([token_id], skip_special_tokens=False)
        assert tokenizer.token_text(token_id) == alone
        assert tokenizer.token_text(token_id) == alone  # from the cache
    assert tokenizer.token_text(1) == "<s>"
    assert tokenizer.token_text(1_000_000) == ""


@pytest.mark.parametrize("token_id", [-1, 2**32])
def test_numbers_that_cannot_be_ids(tokenizer, token_id):
    with pytest.raises(RequestError):
        tokenizer.decode([token_id], skip_special_tokens=False)


def test_special_ids(model, kinds):
    tokenizer = kinds.byte_level
    tool = tokenizer.encode("<tool call>", add_special_tokens=False)
    assert len(tool) == 1  # added, but not special
    assert [tokenizer.is_special(i) for i in (*range(5), *tool)] == [True] * 4 + [False] * 2
    config = {
        "eos_token": {"content": "<tool call>", "__type": "AddedToken"},
        "bos_token": "<s>",
        "pad_token": "<not in the vocabulary>",
        "added_tokens_decoder": {"9": {"content": "fox", "special": True}},
    }
    named = Tokenizer.load(model(tokenizer_config=config))
    assert named.is_special(tool[0])
    assert named.eos_token == "<tool call>"
    assert named.bos_token == "<s>"
    assert named.decode([*tool, 1], skip_special_tokens=True) == ""
    assert named.vocabulary_size == tokenizer.vocabulary_size


def test_without_configuration(model):
    tokenizer = Tokenizer.load(model())
    assert tokenizer.bos_token is None
    assert tokenizer.eos_token is None
    assert tokenizer.stop_token_ids == []


def test_older_map_of_special_tokens(model):
    older = {"eos_token": {"content": "</s>"}, "bos_token": "<s>"}
    config = {"bos_token": None, "eos_token": "<|user|>"}
    tokenizer = Tokenizer.load(model(special_tokens_map=older, tokenizer_config=config))
    assert tokenizer.eos_token == "</s>"
    assert tokenizer.bos_token == "<s>"
    config["added_tokens_decoder"] = {}
    tokenizer = Tokenizer.load(model(special_tokens_map=older, tokenizer_config=config))
    assert tokenizer.eos_token == "<|user|>"
    assert tokenizer.bos_token is None


def test_given_configuration_replaces_the_models(model, tmp_path):
    given = tmp_path / "other.json"
    given.write_text('{"eos_token": "<|user|>"}')
    tokenizer = Tokenizer.load(model(tokenizer_config={"eos_token": "</s>"}), given)
    assert tokenizer.eos_token == "<|user|>"
    assert tokenizer.stop_token_ids == [3]
    with pytest.raises(StartupError, match="--tokenizer-config-path"):
        Tokenizer.load(tmp_path, tmp_path / "absent.json")


@pytest.mark.parametrize(
    ("generation", "config", "expected"),
    [
        ([2, 3, 2], {"eos_token_id": 7}, [2, 3]),
        (3, {}, [3, 2]),  # the model's and the tokenizer's
        (2, {}, [2]),
        (None, {"eos_token_id": 7}, [2]),
        ([], {}, [2]),
        ([True, -1, "x"], {}, [2]),
    ],
)
def test_stop_token_ids(model, generation, config, expected):
    path = model(
        tokenizer_config={"eos_token": "</s>"},
        generation_config={"eos_token_id": generation},
        config=config,
    )
    tokenizer = Tokenizer.load(path)
    assert tokenizer.stop_token_ids == expected
    tokenizer.stop_token_ids.append(9)
    assert tokenizer.stop_token_ids == expected


@pytest.mark.parametrize(
    "config", [{"eos_token_id": [5, 6]}, {"text_config": {"eos_token_id": [5, 6]}}]
)
def test_stop_token_ids_of_the_model_configuration(model, config):
    assert Tokenizer.load(model(config=config)).stop_token_ids == [5, 6]


def test_missing_and_broken_files(model, tmp_path):
    with pytest.raises(StartupError, match=r"no tokenizer\.json"):
        Tokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{}")
    with pytest.raises(StartupError, match="can be loaded"):
        Tokenizer.load(tmp_path)
    path = model()
    for name in ("tokenizer_config", "generation_config", "config", "special_tokens_map"):
        for text in ("{", "[]", "[" * 100_000):
            (path / f"{name}.json").write_text(text)
            with pytest.raises(StartupError, match=name):
                Tokenizer.load(path)
        (path / f"{name}.json").write_bytes(b"\xff")
        with pytest.raises(StartupError, match=name):
            Tokenizer.load(path)
        (path / f"{name}.json").unlink()


def test_threads_share_one(kinds):
    tokenizer = Tokenizer(kinds.raw["byte_level"](), special={"eos_token": "</s>"})

    def work(number):
        text = f"The fox {number} 😀"
        ids = tokenizer.encode(text, add_special_tokens=False)
        assert text.startswith(tokenizer.token_text(ids[0]))
        return tokenizer.decode(ids, skip_special_tokens=True) == text

    with ThreadPoolExecutor(8) as pool:
        assert all(pool.map(work, range(200)))


def test_imports_neither_transformers_nor_torch():
    code = (
        "import sys, frontend.text.tokenizer, frontend.text.detokenizer,"
        " frontend.text.stop_strings, frontend.text.template;"
        " assert not {'transformers', 'torch', 'falcon', 'gevent'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True)


def test_a_long_text_holds_up_no_other_thread(kinds):
    """Tokenization of long texts has to let go of the interpreter lock."""
    turns = 0
    done = threading.Event()

    def encode():
        kinds.byte_level.encode("a" * 300_000, add_special_tokens=False)
        done.set()

    thread = threading.Thread(target=encode)
    thread.start()
    while not done.wait(0.001):
        turns += 1
    thread.join()
    assert turns > 3


def test_numbers_that_are_no_ids_end_nothing(model):
    ends = [-1, 99999999999999999999, True, 7]
    assert Tokenizer.load(model(generation_config={"eos_token_id": ends})).stop_token_ids == [7]
