// The @anthropic-ai/sdk package: messages, streams, tools, counting, errors.

import assert from "node:assert/strict";
import { test } from "node:test";

import Anthropic from "@anthropic-ai/sdk";

import { CITY, URL, USER, WEATHER } from "./talk.mjs";

const client = new Anthropic({ baseURL: URL, apiKey: "unused", maxRetries: 0 });
const common = { model: "tgi", max_tokens: 40, temperature: 0 };
const tools = [
  { name: "get_weather", description: "Get the weather of a city", input_schema: CITY },
];
const forced = { messages: [WEATHER], tools, tool_choice: { type: "any" } };

test("text", async () => {
  const answer = await client.messages.create({ ...common, messages: [USER] });
  assert.match(answer.content[0].text, /Paris/);
  assert.equal(answer.stop_reason, "end_turn");
  assert.ok(answer.usage.output_tokens > 0);
});

test("stream", async () => {
  const stream = client.messages.stream({ ...common, messages: [USER] });
  let text = "";
  stream.on("text", (delta) => {
    text += delta;
  });
  const final = await stream.finalMessage();
  assert.equal(final.content[0].text, text);
  assert.match(text, /Paris/);
  assert.equal(final.stop_reason, "end_turn");
});

test("a tool and its result", async () => {
  const first = await client.messages.create({ ...common, ...forced });
  const call = first.content.at(-1);
  assert.equal(first.stop_reason, "tool_use");
  assert.deepEqual(call.input, { city: "Paris" });
  const result = {
    type: "tool_result",
    tool_use_id: call.id,
    content: '{"temperature": 21, "sky": "sunny"}',
  };
  const messages = [
    WEATHER,
    { role: "assistant", content: first.content },
    { role: "user", content: [result] },
  ];
  const answer = await client.messages.create({ ...common, messages, tools });
  assert.match(answer.content[0].text, /sunny/);
});

test("a streamed tool", async () => {
  const final = await client.messages.stream({ ...common, ...forced }).finalMessage();
  assert.equal(final.content.at(-1).name, "get_weather");
  assert.deepEqual(final.content.at(-1).input, { city: "Paris" });
});

test("counting tokens", async () => {
  const counted = await client.messages.countTokens({ model: "tgi", messages: [USER] });
  const answer = await client.messages.create({ ...common, messages: [USER] });
  assert.equal(counted.input_tokens, answer.usage.input_tokens);
});

test("a wrong value", async () => {
  const wrong = { ...common, messages: [USER], temperature: -1 };
  await assert.rejects(client.messages.create(wrong), (error) => {
    assert.ok(error instanceof Anthropic.APIError);
    assert.equal(error.error.error.type, "invalid_request_error");
    assert.match(error.message, /temperature/);
    return true;
  });
});
