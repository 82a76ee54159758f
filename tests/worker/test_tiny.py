"""The checkpoints that tests are run on are what they say."""

import json

from tokenizers import Tokenizer

from tests.worker.tiny import write_tiny_llama


def test_a_token_is_a_byte(tmp_path):
    write_tiny_llama(tmp_path)
    tokenizer = Tokenizer.from_file(str(tmp_path / "tokenizer.json"))
    text = "Grüße,\n\t世界 🙂"
    assert tokenizer.encode(text).ids == list(text.encode())
    assert tokenizer.decode(list(text.encode())) == text
    assert tokenizer.get_vocab_size() == 256
    assert json.loads((tmp_path / "tokenizer_config.json").read_text())["eos_token"] == "Ā"
