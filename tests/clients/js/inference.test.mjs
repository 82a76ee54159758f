// The @huggingface/inference package: text generation and chat on an endpoint of one's own.
//
// It sends text generation to the completions route, and hands on that route's chunks as they are.

import assert from "node:assert/strict";
import { test } from "node:test";

import { InferenceClient } from "@huggingface/inference";

import { collect, GREEDY, QUESTION, URL, USER } from "./talk.mjs";

const client = new InferenceClient("some-token", { endpointUrl: URL });
const request = { inputs: QUESTION, parameters: { max_new_tokens: 24, temperature: 0 } };

test("text generation", async () => {
  const answer = await client.textGeneration(request);
  assert.match(answer.generated_text, /Paris/);
});

test("text generation stream", async () => {
  const whole = await client.textGeneration(request);
  const chunks = await collect(client.textGenerationStream(request));
  const text = chunks.map((chunk) => chunk.choices[0].text).join("");
  assert.equal(text, whole.generated_text);
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
});

test("stop", async () => {
  const parameters = { ...request.parameters, stop: [" France"] };
  const answer = await client.textGeneration({ ...request, parameters });
  assert.match(answer.generated_text, /The capital of$/);
});

test("chat completion", async () => {
  const answer = await client.chatCompletion({ messages: [USER], ...GREEDY });
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.ok(answer.usage.completion_tokens > 0);
});

test("chat completion stream", async () => {
  const whole = await client.chatCompletion({ messages: [USER], ...GREEDY });
  const chunks = await collect(client.chatCompletionStream({ messages: [USER], ...GREEDY }));
  const text = chunks.map((chunk) => chunk.choices[0]?.delta.content ?? "").join("");
  assert.equal(text, whole.choices[0].message.content);
});

test("a wrong value", async () => {
  const parameters = { ...request.parameters, top_p: 1.5 };
  for (const call of [
    () => client.textGeneration({ ...request, parameters }),
    () => collect(client.textGenerationStream({ ...request, parameters })),
  ]) {
    await assert.rejects(call, (error) => {
      assert.equal(error.httpResponse.status, 422);
      assert.match(JSON.stringify(error.httpResponse.body), /top_p/);
      return true;
    });
  }
});
