"""Tokenizers of every kind, built here so that the tests need no files and no network."""

from types import SimpleNamespace

import pytest
import tokenizers
from tokenizers import (
    AddedToken,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
    processors,
    trainers,
)

from frontend.text.tokenizer import Tokenizer

SENTENCES = [
    "The quick brown fox jumps over the lazy dog.",
    "Don't stop; 42 isn't the answer, or is it?",
    "Voilà: naïve café, größer, señor – “quoted” text…",
    "日本語のテキストと、中文文本。",
    "Emoji: 😀 😁 👩‍👩‍👧 🇩🇪 and a combining e\u0301.",
    "def main():\n    return {'key': [1, 2, 3]}\n",
]
SPECIAL = ["<unk>", "<s>", "</s>", "<|user|>"]
NAMED = {"unk_token": "<unk>", "bos_token": "<s>", "eos_token": "</s>"}


def byte_level() -> tokenizers.Tokenizer:
    """As GPT-2, Llama 3, Qwen: bytes written as characters; 260 of them, then merges."""
    tokenizer = tokenizers.Tokenizer(models.BPE())
    tokenizer.pre_tokenizer = pre_tokenizers.ByteLevel(add_prefix_space=False)
    tokenizer.decoder = decoders.ByteLevel()
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=420,
            special_tokens=SPECIAL,
            initial_alphabet=pre_tokenizers.ByteLevel.alphabet(),
            show_progress=False,
        ),
    )
    tokenizer.add_tokens([AddedToken("<tool call>", special=False)])  # a space: not byte-level
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", 1)]
    )
    return tokenizer


def _words() -> list[str]:
    return sorted({"▁" + word for sentence in SENTENCES[:3] for word in sentence.split()})


def byte_fallback(*, strip: bool = True) -> tokenizers.Tokenizer:
    """As Llama 2 and Mistral (with ``strip``) or Gemma: Unigram, unknown characters as bytes."""
    vocabulary = [(token, 0.0) for token in SPECIAL]
    vocabulary += [(f"<0x{byte:02X}>", -20.0) for byte in range(256)]
    vocabulary += [(word, -3.0) for word in _words()]
    vocabulary += [(character, -8.0) for character in "▁abcdefghijklmnopqrstuvwxyzT.,é日本"]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0, byte_fallback=True))
    tokenizer.normalizer = normalizers.Replace(" ", "▁")
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme="first", split=False)
    stages = [decoders.Replace("▁", " "), decoders.ByteFallback(), decoders.Fuse()]
    if strip:
        stages.append(decoders.Strip(" ", 1, 0))
    tokenizer.decoder = decoders.Sequence(stages)
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def metaspace() -> tokenizers.Tokenizer:
    """As T5 and XLM-R: SentencePiece without bytes."""
    vocabulary = [(token, 0.0) for token in SPECIAL]
    vocabulary += [(word, -3.0) for word in _words()]
    characters = sorted({c for sentence in SENTENCES for c in sentence if not c.isspace()})
    vocabulary += [(character, -8.0) for character in ["▁", *characters]]
    tokenizer = tokenizers.Tokenizer(models.Unigram(vocabulary, unk_id=0))
    tokenizer.pre_tokenizer = pre_tokenizers.Metaspace()
    tokenizer.decoder = decoders.Metaspace()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def wordpiece() -> tokenizers.Tokenizer:
    """As BERT: `##` continues a word."""
    characters = sorted({c for sentence in SENTENCES for c in sentence if not c.isspace()})
    tokens = [*SPECIAL, "the", "fox", "jump", "##s", "##ing", "isn", "t", "'"]
    tokens += characters + ["##" + character for character in characters]
    vocabulary = {token: index for index, token in enumerate(dict.fromkeys(tokens))}
    tokenizer = tokenizers.Tokenizer(models.WordPiece(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.decoder = decoders.WordPiece()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def word_level() -> tokenizers.Tokenizer:
    """No decoder at all: tokens are joined by spaces."""
    words = sorted({word for sentence in SENTENCES for word in sentence.split()})
    vocabulary = {token: index for index, token in enumerate([*SPECIAL, *words])}
    tokenizer = tokenizers.Tokenizer(models.WordLevel(vocabulary, unk_token="<unk>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.add_special_tokens([AddedToken(t, special=True, normalized=False) for t in SPECIAL])
    return tokenizer


def word_ends() -> tokenizers.Tokenizer:
    """As the first GPT: `</w>` ends a word. Its decoder looks at neighbours: windows are used."""
    tokenizer = tokenizers.Tokenizer(models.BPE(unk_token="<unk>", end_of_word_suffix="</w>"))
    tokenizer.pre_tokenizer = pre_tokenizers.WhitespaceSplit()
    tokenizer.decoder = decoders.BPEDecoder(suffix="</w>")
    tokenizer.train_from_iterator(
        SENTENCES,
        trainers.BpeTrainer(
            vocab_size=400, special_tokens=SPECIAL, end_of_word_suffix="</w>", show_progress=False
        ),
    )
    return tokenizer


BUILDERS = {
    "byte_level": byte_level,
    "byte_fallback": byte_fallback,
    "byte_fallback_unstripped": lambda: byte_fallback(strip=False),
    "metaspace": metaspace,
    "wordpiece": wordpiece,
    "word_level": word_level,
    "word_ends": word_ends,
}


@pytest.fixture(scope="session")
def kinds() -> SimpleNamespace:
    """Every kind of tokenizer, wrapped; ``raw`` builds a fresh one of the library's."""
    wrapped = {
        name: Tokenizer(build(), special=NAMED, stop_token_ids=[2])
        for name, build in BUILDERS.items()
    }
    return SimpleNamespace(**wrapped, raw=BUILDERS, sentences=SENTENCES)


@pytest.fixture(scope="session", params=sorted(BUILDERS))
def tokenizer(request, kinds) -> Tokenizer:
    return getattr(kinds, request.param)


@pytest.fixture(scope="session", params=sorted(set(BUILDERS) - {"word_ends"}))
def alike(request, kinds) -> Tokenizer:
    """A tokenizer whose decoder treats every token alike."""
    return getattr(kinds, request.param)
