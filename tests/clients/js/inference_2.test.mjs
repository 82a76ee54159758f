// The @huggingface/inference package in version 2, the last that speaks TGI's native route.

import assert from "node:assert/strict";
import { test } from "node:test";

import { HfInference } from "@huggingface/inference-2";

import { collect, GREEDY, QUESTION, URL, USER } from "./talk.mjs";

const client = new HfInference("some-token").endpoint(URL);
const model = "tgi"; // else the client asks the hub for one
const request = {
  model,
  inputs: QUESTION,
  parameters: { max_new_tokens: 24, details: true, return_full_text: false },
};

test("text generation", async () => {
  const answer = await client.textGeneration(request);
  assert.match(answer.generated_text, /Paris/);
  assert.equal(answer.details.finish_reason, "eos_token");
  assert.equal(answer.details.generated_tokens, answer.details.tokens.length);
});

test("text generation stream", async () => {
  const whole = await client.textGeneration(request);
  const events = await collect(client.textGenerationStream(request));
  assert.equal(events.at(-1).generated_text, whole.generated_text);
  const shown = events.filter((event) => !event.token.special).map((event) => event.token.text);
  assert.equal(shown.join(""), whole.generated_text);
  assert.ok(events.slice(0, -1).every((event) => event.generated_text === null));
});

test("stop and seed", async () => {
  const parameters = { ...request.parameters, stop: ["France"] };
  const stopped = await client.textGeneration({ ...request, parameters });
  assert.equal(stopped.details.finish_reason, "stop_sequence");
  const drawing = { ...request.parameters, do_sample: true, seed: 3 };
  const drawn = await client.textGeneration({ ...request, parameters: drawing });
  assert.equal(drawn.details.seed, 3);
});

test("chat completion", async () => {
  const answer = await client.chatCompletion({ model, messages: [USER], ...GREEDY });
  assert.match(answer.choices[0].message.content, /Paris/);
});

test("chat completion stream", async () => {
  const chunks = await collect(client.chatCompletionStream({ model, messages: [USER], ...GREEDY }));
  assert.match(chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join(""), /Paris/);
});

test("a wrong value", async () => {
  const parameters = { ...request.parameters, top_p: 1.5 };
  await assert.rejects(client.textGeneration({ ...request, parameters }), /top_p/);
  await assert.rejects(collect(client.textGenerationStream({ ...request, parameters })), /top_p/);
});
