"""Real models in float32 with grammars: a tiny Llama in a busy batch, and the built-in model."""

import json
import random
from pathlib import Path

import pytest
import torch
from jsonschema import validate
from tokenizers import Tokenizer

from common.sampling import SamplingParameters
from tests.worker.driver import CPU, GREEDY, Driver
from tests.worker.grammars import Inline, byte_guidance, lark, regex, schema
from tests.worker.tiny import VOCABULARY, write_tiny_llama
from worker.cache import KVCache
from worker.guidance import Guidance, _read_tokenizer
from worker.loading import load_model

BLOCKS = 256
BUILTIN = Path(__file__).parents[2] / "common/models/builtin"
SAMPLED = [
    SamplingParameters(do_sample=True, seed=2**63 + 5, temperature=0.8, top_p=0.9),
    SamplingParameters(do_sample=True, seed=1, repetition_penalty=1.3, top_k=30),
    SamplingParameters(do_sample=True, seed=2, typical_p=0.9, output_presence_penalty=0.5),
    SamplingParameters(do_sample=True, seed=3, watermark=True),
]
GRAMMARS = [
    regex("([a-m]{3}|x[0-9]+y){2,9}"),
    lark('start: (word ".")~4\nword: /[a-f]{2,5}/ | "(" word ")"'),
    schema({"type": "object", "properties": {"n": {"type": "integer"}}, "required": ["n"]}),
]
PERSON = {
    "type": "object",
    "properties": {
        "name": {"type": "string", "maxLength": 12},
        "age": {"type": "integer", "minimum": 0, "maximum": 120},
        "likes": {"type": "array", "items": {"enum": ["tea", "coffee", "milk"]}, "maxItems": 3},
        "admin": {"type": "boolean"},
    },
    "required": ["name", "age", "likes", "admin"],
    "additionalProperties": False,
    "x-guidance": {"whitespace_flexible": False},  # a small model could go on with spaces
}


def driver_of(model, guidance, *, step_tokens=64) -> Driver:
    cache = KVCache(model.configuration, BLOCKS, CPU, torch.float32)
    return Driver(model, cache, blocks=BLOCKS, step_tokens=step_tokens, guidance=guidance)


@pytest.fixture(scope="module")
def tiny(tmp_path_factory):
    directory = tmp_path_factory.mktemp("tiny")
    write_tiny_llama(directory, seed=3)
    guidance = byte_guidance(directory)
    yield load_model(str(directory), device=CPU, dtype=torch.float32), guidance
    guidance.close()


@pytest.mark.parametrize("seed", range(3))
def test_in_a_busy_batch_with_preemptions(tiny, seed):
    """Guided and free ones arrive, are read in chunks, are stopped and continued at random."""
    model, guidance = tiny
    choice = random.Random(seed)
    driver = driver_of(model, guidance)
    started: dict[int, tuple[list[int], int, dict]] = {}
    waiting = list(range(12))
    while waiting or driver.engine.held:
        driver.step_tokens = choice.choice([3, 9, 40, 200])
        running = [n for n in started if not driver.records[n].finish]
        if waiting and choice.random() < 0.4:
            number = waiting.pop(0)
            prompt = [choice.randrange(VOCABULARY) for _ in range(choice.randrange(1, 50))]
            options = {"sampling": choice.choice([GREEDY, *SAMPLED]), "stop_token_ids": [0, 254]}
            if number % 3:
                options["grammar"] = choice.choice(GRAMMARS)
            started[number] = prompt, choice.randrange(1, 30), options
            driver.add(number, prompt, started[number][1], **options)
        elif running and choice.random() < 0.1:
            number = choice.choice(running)
            prompt, count, options = started[number]
            driver.release(number)
            driver.add(number, prompt, count, generated=driver.records[number].ids[:], **options)
        else:
            driver.step()
    for number, (prompt, count, options) in started.items():
        alone = driver_of(model, guidance)
        alone.add(0, prompt, count, **options)
        alone.run()
        assert driver.records[number].error == alone.records[0].error == ""
        assert driver.records[number].ids == alone.records[0].ids
        assert driver.records[number].finish == alone.records[0].finish


@pytest.fixture(scope="module")
def builtin():
    model = load_model(str(BUILTIN), device=CPU, dtype=torch.float32)
    vocabulary = model.configuration.vocab_size
    guidance = Guidance(
        _read_tokenizer(BUILTIN, vocabulary),
        vocabulary=vocabulary,
        threads=1,
        device=CPU,
        compilers=Inline(),
    )
    yield model, guidance, Tokenizer.from_file(str(BUILTIN / "tokenizer.json"))
    guidance.close()


def test_the_builtin_model_writes_objects_that_parse_and_validate(builtin):
    model, guidance, tokenizer = builtin
    driver = driver_of(model, guidance)
    prompt = tokenizer.encode("Describe a person as JSON:", add_special_tokens=False).ids
    sampling = [GREEDY, *SAMPLED]
    driver.dispatch(
        add=[
            driver.new(n, prompt, 150, sampling=p, stop_token_ids=[1], grammar=schema(PERSON))
            for n, p in enumerate(sampling)
        ]
    )
    driver.run()
    values = []
    for number in range(len(sampling)):
        record = driver.records[number]
        assert (record.error, record.finish, record.ids[-1]) == ("", "eos_token", 1)
        values.append(json.loads(tokenizer.decode(record.ids, skip_special_tokens=True)))
        validate(values[-1], PERSON)
    assert any(value != values[0] for value in values)


def test_the_builtin_model_continues_an_object_anywhere(builtin):
    model, guidance, tokenizer = builtin
    prompt = tokenizer.encode("A person:", add_special_tokens=False).ids
    options = {"sampling": SAMPLED[0], "stop_token_ids": [1], "grammar": schema(PERSON)}
    whole = driver_of(model, guidance)
    whole.add(0, prompt, 150, **options)
    whole.run()
    ids = whole.records[0].ids
    assert whole.records[0].finish == "eos_token"
    for cut in range(1, len(ids), 5):
        driver = driver_of(model, guidance, step_tokens=7)
        new = driver.new(0, prompt, 150, generated=ids[:cut], **options)
        driver.records[0].ids = ids[:cut]
        driver.dispatch(add=[new])
        driver.run()
        assert driver.records[0].ids == ids
        assert driver.records[0].finish == "eos_token"
