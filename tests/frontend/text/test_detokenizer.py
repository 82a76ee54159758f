import re

import pytest
from hypothesis import assume, example, given
from hypothesis import strategies as st

from frontend.text.detokenizer import Detokenizer, PieceStream, WindowStream

IDS = st.lists(st.integers(0, 430), max_size=40)
TEXTS = st.text(
    st.one_of(
        st.sampled_from("abcdefgh .,!?\n\t'é日本語の文😀👩\u200d👧🇩🇪\u0301\ufffd“”…"),
        st.characters(exclude_categories=["Cs"]),
    ),
    max_size=60,
)
BYTE_TOKEN = re.compile(r"<0x(..)>")


def streamed(tokenizer, prompt, generated):
    detokenizer = Detokenizer(tokenizer, prompt)
    return "".join(map(detokenizer.push, generated)) + detokenizer.finish()


def added(tokenizer, prompt, generated):
    before = tokenizer.decode(prompt, skip_special_tokens=False)
    return tokenizer.decode(prompt + generated, skip_special_tokens=False)[len(before) :]


def ids_of(tokenizer, text):
    return tokenizer.encode(text, add_special_tokens=False)


@pytest.mark.parametrize("prompt", ["", "The quick", "Emoji: 😀", "<s><|user|>", "日本"])
def test_sentences_of_every_kind(tokenizer, kinds, prompt):
    before = ids_of(tokenizer, prompt)
    for sentence in kinds.sentences:
        ids = ids_of(tokenizer, sentence)
        assert streamed(tokenizer, before, ids) == added(tokenizer, before, ids)


@given(prompt=TEXTS, text=TEXTS)
def test_any_text_of_every_kind(alike, prompt, text):
    before, ids = ids_of(alike, prompt), ids_of(alike, text)
    assert streamed(alike, before, ids) == added(alike, before, ids)


@given(prompt=IDS, ids=IDS)
@pytest.mark.parametrize("kind", ["byte_level", "metaspace", "wordpiece", "word_level"])
def test_any_ids(kinds, kind, prompt, ids):
    tokenizer = getattr(kinds, kind)
    # a prompt that ends on a character, and in which at least one token says something
    prompt = [1, *prompt, *ids_of(tokenizer, "fox")]
    assert streamed(tokenizer, prompt, ids) == added(tokenizer, prompt, ids)
    assert streamed(tokenizer, [], ids) == added(tokenizer, [], ids)


def repaired(tokenizer, raw, ids):
    """The decoder with fallback, but for characters inside spoilt runs, which survive."""
    text, run = [], b""
    for token_id in [*ids, None]:
        token = None if token_id is None else raw.id_to_token(token_id)
        found = BYTE_TOKEN.fullmatch(token or "")
        if found:
            run += bytes([int(found[1], 16)])
            continue
        if token is None and token_id is not None:
            continue
        while run:
            for size in (1, 2, 3, 4):
                try:
                    text.append(run[:size].decode())
                except UnicodeDecodeError:
                    continue
                break
            else:
                size = 1
                text.append("\ufffd")
            run = run[size:]
        if token is not None:
            text.append(token.replace("▁", " "))
    return "".join(text)


@given(ids=IDS)
@pytest.mark.parametrize("kind", ["byte_fallback", "byte_fallback_unstripped"])
def test_any_ids_with_byte_fallback(kinds, kind, ids):
    tokenizer = getattr(kinds, kind)
    raw = kinds.raw[kind]()
    prompt = ids_of(tokenizer, "fox")
    assert streamed(tokenizer, prompt, ids) == repaired(tokenizer, raw, ids)


@given(data=st.binary(max_size=12), tail=st.booleans())
@pytest.mark.parametrize("kind", ["byte_fallback", "byte_fallback_unstripped"])
def test_runs_of_bytes_equal_the_decoder_unless_mixed(kinds, kind, data, tail):
    tokenizer = getattr(kinds, kind)
    prompt = ids_of(tokenizer, "fox")
    ids = [4 + byte for byte in data] + (ids_of(tokenizer, "dog") if tail else [])
    try:
        data.decode()
        exact = True
    except UnicodeDecodeError:
        exact = not any(
            _is_character(data[start:stop])
            for start in range(len(data))
            for stop in range(start + 1, len(data) + 1)
        )
    if exact:
        assert streamed(tokenizer, prompt, ids) == added(tokenizer, prompt, ids)


def _is_character(data):
    try:
        return len(data.decode()) == 1
    except UnicodeDecodeError:
        return False


@given(prompt=st.lists(st.integers(0, 500)), ids=st.lists(st.integers(0, 500)))
def test_no_ids_raise(tokenizer, prompt, ids):
    detokenizer = Detokenizer(tokenizer, prompt)
    for token_id in ids:
        assert isinstance(detokenizer.push(token_id), str)
    detokenizer.finish()
    assert detokenizer.finish() == ""


@given(prompt=TEXTS, text=TEXTS)
@example(prompt="", text="\uf44d\U0001f000")  # a token ends one character and begins the next
def test_pieces_say_what_two_cursors_say(alike, prompt, text):
    """The fast stream against TGI's rule: never later, and the same in the end."""
    assume("\ufffd" not in prompt + text)
    before = ids_of(alike, "fox " + prompt)
    fast = PieceStream(alike.pieces, at_start=False)
    reference = WindowStream(alike, before)
    total, expected = "", ""
    for token_id in ids_of(alike, text):
        total += fast.push(token_id)
        expected += reference.push(token_id)
        assert total.startswith(expected)
    assert total + fast.flush() == expected + reference.flush()


def test_first_token_keeps_its_space(kinds):
    for tokenizer in (kinds.byte_fallback, kinds.metaspace):
        prompt = [1, *ids_of(tokenizer, "The quick")]
        first = ids_of(tokenizer, "brown")[0]
        assert tokenizer.token_text(first) == "brown"
        assert Detokenizer(tokenizer, prompt).push(first) == " brown"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_only_an_unfinished_character_is_held(kinds, kind):
    tokenizer = getattr(kinds, kind)
    detokenizer = Detokenizer(tokenizer, ids_of(tokenizer, "fox"))
    ids = _bytes(tokenizer, kind, "a😀b".encode())
    assert [detokenizer.push(token_id) for token_id in ids] == ["a", "", "", "", "😀", "b"]


def _bytes(tokenizer, kind, data):
    """One token per byte."""
    if kind == "byte_fallback":
        return [4 + byte for byte in data]
    found = {}
    for token_id in range(tokenizer.vocabulary_size):
        piece = tokenizer.pieces[token_id]
        raw = piece.encode() if isinstance(piece, str) else piece
        if len(raw) == 1:
            found[raw[0]] = token_id
    return [found[byte] for byte in data]


def test_words_before_an_unfinished_character_are_not_held(kinds):
    tokenizer = kinds.byte_level
    mixed = next(
        token_id
        for token_id in range(tokenizer.vocabulary_size)
        if isinstance(piece := tokenizer.pieces[token_id], bytes) and piece[:1] == b" "
    )
    detokenizer = Detokenizer(tokenizer, [1])
    assert detokenizer.push(mixed) == " "
    assert detokenizer.finish() == "\ufffd"
    assert detokenizer.text == " \ufffd"


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_marks_and_bad_bytes_do_not_freeze_the_stream(kinds, kind):
    tokenizer = getattr(kinds, kind)
    detokenizer = Detokenizer(tokenizer, [1])
    mark = _bytes(tokenizer, kind, "\ufffd".encode())
    for _ in range(5):  # a model that writes U+FFFD itself
        assert [detokenizer.push(token_id) for token_id in mark] == ["", "", "\ufffd"]
    bad = _bytes(tokenizer, kind, b"\xff\x80\xc0")
    assert [detokenizer.push(token_id) for token_id in bad] == ["\ufffd"] * 3
    # the start of a character, then another start: the first can never be finished
    assert [detokenizer.push(i) for i in _bytes(tokenizer, kind, b"\xe2\xe2\x82\xac")] == [
        *("", "\ufffd", "", "€")
    ]


def test_windows_hold_at_most_four_tokens(kinds):
    tokenizer = kinds.byte_level
    stream = WindowStream(tokenizer, [1])
    bad = _bytes(tokenizer, "byte_level", b"\xff")[0]
    texts = [stream.push(bad) for _ in range(12)]
    assert "".join(texts) == "\ufffd" * 12
    assert texts[3] == "\ufffd" * 4


def test_special_tokens_are_written_out_but_are_no_text(tokenizer):
    detokenizer = Detokenizer(tokenizer, [1])
    (first, *rest) = ids_of(tokenizer, "The fox")
    begin = detokenizer.push(first)
    assert detokenizer.push(3).strip() == "<|user|>"
    assert detokenizer.visible == ""
    end = "".join(map(detokenizer.push, rest)) + detokenizer.finish()
    assert detokenizer.text == begin + end
    assert "<|user|>" not in detokenizer.text


@pytest.mark.parametrize("kind", ["byte_level", "byte_fallback"])
def test_a_special_token_ends_an_unfinished_character(kinds, kind):
    tokenizer = getattr(kinds, kind)
    detokenizer = Detokenizer(tokenizer, [1])
    detokenizer.push(_bytes(tokenizer, kind, b"\xe2")[0])
    assert detokenizer.push(2) == "\ufffd</s>"
    assert detokenizer.visible == "\ufffd"
    assert detokenizer.text == "\ufffd"


@given(text=TEXTS, cut=st.integers(0, 80))
def test_resuming_gives_the_same_text(tokenizer, text, cut):
    ids = ids_of(tokenizer, text)
    prompt = [1, *ids_of(tokenizer, "The")]
    whole = Detokenizer(tokenizer, prompt)
    pushed = [whole.push(token_id) for token_id in ids]
    resumed = Detokenizer(tokenizer, prompt, ids[:cut])
    assert [resumed.push(token_id) for token_id in ids[cut:]] == pushed[cut:]
    assert resumed.finish() == whole.finish()
    assert resumed.text == whole.text


def test_text_is_what_was_pushed(tokenizer, kinds):
    detokenizer = Detokenizer(tokenizer, [1])
    said = ""
    for sentence in kinds.sentences:
        for token_id in ids_of(tokenizer, sentence):
            detokenizer.push(token_id)
            said += detokenizer.visible
            assert detokenizer.text == said


class CountingTokenizer:
    """Counts the ids that are decoded."""

    def __init__(self, tokenizer):
        self._tokenizer = tokenizer
        self.pieces = None
        self.decoded = 0

    def is_special(self, token_id):
        return self._tokenizer.is_special(token_id)

    def decode(self, ids, *, skip_special_tokens):
        self.decoded += len(ids)
        return self._tokenizer.decode(ids, skip_special_tokens=skip_special_tokens)


@pytest.mark.parametrize("token_id", [5, 200, 10_000])
def test_windows_stay_small(kinds, token_id):
    """A text, a byte that is never a character, an id outside the vocabulary, for long."""
    counting = CountingTokenizer(kinds.byte_level)
    detokenizer = Detokenizer(counting, list(range(4, 2000)))
    for _ in range(5000):
        detokenizer.push(token_id)
    assert counting.decoded <= 5000 * 12


def test_a_hundred_thousand_tokens(kinds):
    """Ends at once when it is linear; `text` is read after every token, as a server may."""
    tokenizer = kinds.byte_level
    ids = ids_of(tokenizer, " ".join(kinds.sentences)) * 400
    detokenizer = Detokenizer(tokenizer, [1])
    pushed = []
    for token_id in ids[:100_000]:
        pushed.append(detokenizer.push(token_id))
        assert detokenizer.text.endswith(pushed[-1])
    assert detokenizer.text == "".join(pushed)
