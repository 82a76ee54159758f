// The openai package: chat completions, completions, models, errors.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";

import { collect, GREEDY, QUESTION, URL, USER } from "./talk.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "unused", maxRetries: 0 });

function chat(extra = {}) {
  return client.chat.completions.create({ model: "tgi", messages: [USER], ...GREEDY, ...extra });
}

test("chat", async () => {
  const answer = await chat();
  assert.match(answer.choices[0].message.content, /Paris/);
  assert.equal(answer.choices[0].finish_reason, "stop");
  const { prompt_tokens, completion_tokens, total_tokens } = answer.usage;
  assert.equal(prompt_tokens + completion_tokens, total_tokens);
});

test("chat stream with usage", async () => {
  const whole = await chat();
  const chunks = await collect(await chat({ stream: true, stream_options: { include_usage: true } }));
  const last = chunks.pop();
  assert.equal(
    chunks.map((chunk) => chunk.choices[0].delta.content ?? "").join(""),
    whole.choices[0].message.content,
  );
  assert.equal(chunks.at(-1).choices[0].finish_reason, "stop");
  assert.deepEqual(last.choices, []);
  assert.equal(last.usage.total_tokens, whole.usage.total_tokens);
});

test("chat logprobs", async () => {
  const answer = await chat({ logprobs: true, top_logprobs: 2 });
  const content = answer.choices[0].logprobs.content;
  assert.equal(content.length, answer.usage.completion_tokens);
  for (const token of content) assert.equal(token.top_logprobs[0].logprob, token.logprob);
});

test("chat stop string", async () => {
  const answer = await chat({ stop: " France" });
  assert.equal(answer.choices[0].message.content, "The capital of");
});

test("a stream given up by the client", async () => {
  const stream = await chat({ stream: true, max_tokens: 500, temperature: 1 });
  for await (const chunk of stream) {
    assert.equal(chunk.object, "chat.completion.chunk");
    break;
  }
  assert.match((await chat()).choices[0].message.content, /Paris/);
});

test("completions of two prompts", async () => {
  const prompt = [QUESTION, "What is the capital of Italy?"];
  const answer = await client.completions.create({ model: "tgi", prompt, ...GREEDY });
  const texts = [];
  for (const choice of answer.choices) texts[choice.index] = choice.text;
  assert.match(texts[0], /Paris/);
  assert.match(texts[1], /Rome/);
});

test("completion stream", async () => {
  const request = { model: "tgi", prompt: QUESTION, ...GREEDY };
  const chunks = await collect(await client.completions.create({ ...request, stream: true }));
  assert.match(chunks.map((chunk) => chunk.choices[0].text).join(""), /Paris/);
});

test("models", async () => {
  const models = await collect(client.models.list());
  assert.equal(models.length, 1);
  assert.equal((await client.models.retrieve(models[0].id)).id, models[0].id);
  await assert.rejects(client.models.retrieve("no-such-model"), OpenAI.NotFoundError);
});

test("a wrong value", async () => {
  await assert.rejects(chat({ temperature: -1 }), (error) => {
    assert.ok(error instanceof OpenAI.UnprocessableEntityError);
    assert.match(error.message, /temperature/);
    assert.equal(error.code, "validation");
    return true;
  });
});
