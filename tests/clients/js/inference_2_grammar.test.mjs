// The @huggingface/inference package in version 2: grammars on TGI's native route.

import assert from "node:assert/strict";
import { test } from "node:test";

import { HfInference } from "@huggingface/inference-2";

import { ABOUT_ANNA, PERSON, URL } from "./talk.mjs";

const client = new HfInference("some-token").endpoint(URL);

function generate(grammar) {
  const parameters = { grammar, max_new_tokens: 60, return_full_text: false };
  return client.textGeneration({ model: "tgi", inputs: ABOUT_ANNA.content, parameters });
}

test("a schema", async () => {
  const answer = await generate({ type: "json", value: PERSON });
  assert.deepEqual(JSON.parse(answer.generated_text), { name: "Anna", age: 31 });
});

test("a regular expression", async () => {
  const answer = await generate({ type: "regex", value: "[0-9]{3}-[0-9]{4}" });
  assert.match(answer.generated_text, /^[0-9]{3}-[0-9]{4}$/);
});
