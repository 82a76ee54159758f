"""Where a model's templates and special tokens come from, against transformers; broken ones."""

import json

import pytest
import tokenizers
import transformers

from common.errors import RequestError, StartupError
from frontend.text.template import ChatTemplate
from tests.frontend.text.rendering import TOOLS

CHAT = [{"role": "user", "content": "Hi"}]


@pytest.fixture
def model(tmp_path):
    def write(**files):
        for path in tmp_path.glob("*.*"):
            path.unlink()
        for name, content in files.items():
            if name == "jinja":
                (tmp_path / "chat_template.jinja").write_text(content, encoding="utf-8")
            else:
                (tmp_path / f"{name}.json").write_text(json.dumps(content), encoding="utf-8")
        return tmp_path

    return write


def loaded(path, given=None, **options):
    template = ChatTemplate.load(path, given)
    return None if template is None else template.render(CHAT, **options)


def test_sources_in_order(model, tmp_path_factory):
    config = {"chat_template": "config {{ eos_token }}", "eos_token": {"content": "E"}}
    assert loaded(model()) is None
    assert loaded(model(tokenizer_config={"bos_token": "<s>"})) is None
    assert loaded(model(tokenizer_config=config)) == "config E"
    both = {"tokenizer_config": config, "chat_template": {"chat_template": "json {{ eos_token }}"}}
    assert loaded(model(**both)) == "json E"
    assert loaded(model(**both, jinja="file {{ eos_token }}")) == "file E"
    given = tmp_path_factory.mktemp("given") / "mine.json"
    given.write_text('{"chat_template": "given {{ eos_token }}", "eos_token": "G"}')
    assert loaded(model(**both, jinja="file"), given) == "given G"
    given.write_text('{"eos_token": "G"}')
    assert loaded(model(**both, jinja="file {{ eos_token }}"), given) == "file G"


def test_named_templates(model):
    named = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
    path = model(tokenizer_config={"chat_template": named})
    assert loaded(path) == "plain"
    assert loaded(path, tools=TOOLS) == "tools"
    assert loaded(path, tools=[]) == "tools"  # as transformers
    path = model(tokenizer_config={"chat_template": named[:1]})
    assert loaded(path, tools=TOOLS) == "plain"
    path = model(tokenizer_config={"chat_template": named[1:]})
    with pytest.raises(RequestError, match="default"):
        loaded(path)


def test_additional_templates(model):
    path = model(jinja="plain")
    (path / "additional_chat_templates").mkdir()
    (path / "additional_chat_templates" / "tool_use.jinja").write_text("tools")
    assert loaded(path) == "plain"
    assert loaded(path, tools=TOOLS) == "tools"


SHOW = "{{ bos_token }}|{{ eos_token }}|{{ pad_token }}|{{ boi_token }}|{{ x_token }}"
TOKEN = {"__type": "AddedToken", "content": "<s>", "lstrip": False, "normalized": False}
TWO = [{"name": "default", "template": "plain"}, {"name": "tool_use", "template": "tools"}]
LAYOUTS = {
    "strings": {"bos_token": "<s>", "eos_token": "</s>"},
    "objects": {"bos_token": TOKEN, "eos_token": None},
    "own names": {"bos_token": "<s>", "x_token": "<x>", "extra_special_tokens": {"boi_token": "B"}},
    "own group": {"model_specific_special_tokens": {"boi_token": "B"}},
    "lists": {"extra_special_tokens": ["<a>"], "additional_special_tokens": ["<b>"]},
    "no tokens": {"add_bos_token": True, "bos_token": None},
    "map": {"special_tokens_map": {"bos_token": "<s>", "eos_token": {"content": "</s>"}}},
    "map first": {"bos_token": "A", "pad_token": "P", "special_tokens_map": {"bos_token": "B"}},
    "map unread": {
        "bos_token": "A",
        "added_tokens_decoder": {},
        "special_tokens_map": {"bos_token": "B", "eos_token": "E"},
    },
    "file": {"jinja": "file {{ bos_token }}", "bos_token": "<s>"},
    "file with returns": {"jinja": "a\r\n{% if true %}\r\nb\r\n{% endif %}\r\n"},
    "empty file": {"jinja": ""},
    "file and names": {"jinja": "file", "chat_template": TWO},
    "names": {"chat_template": TWO},
    "no default": {"chat_template": TWO[1:]},
    "more files": {"jinja": "file", "tool_use": "file for tools"},
    "only more files": {"tool_use": "file for tools"},
}


def told(render, **options):
    try:
        return render(CHAT, **options)
    except Exception:
        return None


@pytest.mark.parametrize("layout", LAYOUTS)
def test_a_directory_means_what_it_means_to_transformers(tmp_path, layout):
    config = {"tokenizer_class": "PreTrainedTokenizerFast", "chat_template": SHOW}
    config |= LAYOUTS[layout]
    tokenizers.Tokenizer(tokenizers.models.BPE()).save(str(tmp_path / "tokenizer.json"))
    if "jinja" in config:
        (tmp_path / "chat_template.jinja").write_bytes(config.pop("jinja").encode())
    if "tool_use" in config:
        (tmp_path / "additional_chat_templates").mkdir()
        path = tmp_path / "additional_chat_templates" / "tool_use.jinja"
        path.write_text(config.pop("tool_use"))
    if "special_tokens_map" in config:
        older = json.dumps(config.pop("special_tokens_map"))
        (tmp_path / "special_tokens_map.json").write_text(older)
    (tmp_path / "tokenizer_config.json").write_text(json.dumps(config))
    reference = transformers.PreTrainedTokenizerFast.from_pretrained(tmp_path)
    template = ChatTemplate.load(tmp_path)
    for tools in (None, []):
        expected = told(reference.apply_chat_template, tools=tools, tokenize=False)
        found = told(template.render, tools=tools, add_generation_prompt=False)
        assert found == expected


def test_given_configurations_come_before_the_older_map(model, tmp_path_factory):
    path = model(special_tokens_map={"eos_token": "old", "bos_token": "<s>"})
    given = tmp_path_factory.mktemp("given") / "mine.json"
    given.write_text(json.dumps({"chat_template": SHOW, "eos_token": "mine"}))
    assert loaded(path, given) == "<s>|mine|||"


def test_the_template_for_documents():
    sources = {"default": "plain", "tool_use": "tools", "rag": "{{ documents | length }}"}
    template = ChatTemplate(sources)
    assert template.sources == sources
    assert template.mentions("documents", documents=True)
    assert not template.mentions("documents")
    assert template.render(CHAT, documents=[{"a": 1}]) == "1"
    assert template.render(CHAT) == "plain"
    template = ChatTemplate({**sources, "default": "{{ documents[0].a }}"})
    assert template.render(CHAT, documents=[{"a": "own"}]) == "own"


def test_words_of_templates():
    template = ChatTemplate({"default": "{{ 'developer' }}", "tool_use": "object"})
    assert template.says("developer")
    assert not template.says("object")
    assert template.says("object", tools=True)


@pytest.mark.parametrize(
    "files",
    [
        {"jinja": "a\n{% if %}"},
        {"jinja": "{{ 'open }}"},
        {"jinja": "{{ x | no_such_filter }}"},
        {"jinja": "{% for x in y %}"},
        {"jinja": "{% break %}"},
        {"jinja": "{{ " + "(" * 5000 + ")" * 5000 + " }}"},
        {"tokenizer_config": {"chat_template": 3}},
        {"tokenizer_config": {"chat_template": [{"name": "default"}]}},
        {"chat_template": {"chat_template": "{% endif %}"}},
    ],
)
def test_broken_templates_stop_the_start(model, files):
    with pytest.raises(StartupError, match=r"chat.template"):
        ChatTemplate.load(model(**files))


def test_syntax_errors_name_the_line(model):
    with pytest.raises(StartupError, match=r"chat_template\.jinja has an error in line 2"):
        ChatTemplate.load(model(jinja="a\n{% if %}"))
