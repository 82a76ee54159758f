// The openai package: tools, forms of answers, its helpers for both.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodResponseFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ABOUT_ANNA, CITY, collect, GREEDY, PERSON, URL, USER, WEATHER } from "./talk.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "unused", maxRetries: 0 });
const getWeather = {
  name: "get_weather",
  description: "Get the weather of a city",
  parameters: CITY,
};
const common = { model: "tgi", ...GREEDY };
const tools = [{ type: "function", function: getWeather }];
const Person = z.object({ name: z.string(), age: z.number().int() });
const anna = { name: "Anna", age: 31 };

function call(extra = {}) {
  return client.chat.completions.create({ ...common, messages: [WEATHER], tools, ...extra });
}

test("a required tool", async () => {
  const { message, finish_reason } = (await call({ tool_choice: "required" })).choices[0];
  assert.equal(finish_reason, "tool_calls");
  assert.equal(message.tool_calls[0].function.name, "get_weather");
  assert.deepEqual(JSON.parse(message.tool_calls[0].function.arguments), { city: "Paris" });
});

test("a free choice of tools", async () => {
  const { message } = (await call({ tool_choice: "auto" })).choices[0];
  assert.equal(message.tool_calls[0].function.name, "get_weather");
});

test("a streamed call", async () => {
  const chunks = await collect(await call({ tool_choice: "required", stream: true }));
  const parts = chunks.flatMap((chunk) => chunk.choices[0].delta.tool_calls ?? []);
  assert.equal(parts.filter((part) => part.id).length, 1);
  const text = parts.map((part) => part.function.arguments ?? "").join("");
  assert.deepEqual(JSON.parse(text), { city: "Paris" });
});

test("a call and its result in the conversation", async () => {
  const first = (await call({ tool_choice: "required" })).choices[0].message;
  const result = {
    role: "tool",
    tool_call_id: first.tool_calls[0].id,
    content: '{"temperature": 21, "sky": "sunny"}',
  };
  const answer = await call({ messages: [WEATHER, first, result] });
  assert.match(answer.choices[0].message.content, /sunny/);
});

test("tools run by the helper", async () => {
  let asked = null;
  const runner = client.chat.completions.runTools({
    ...common,
    messages: [WEATHER],
    tools: [
      {
        type: "function",
        function: {
          ...getWeather,
          parse: JSON.parse,
          function: (given) => {
            asked = given;
            return { temperature: 21, sky: "sunny" };
          },
        },
      },
    ],
  });
  assert.match(await runner.finalContent(), /sunny/);
  assert.deepEqual(asked, { city: "Paris" });
});

test("stream helper", async () => {
  const stream = client.chat.completions.stream({ ...common, messages: [USER] });
  let text = "";
  stream.on("content", (delta) => {
    text += delta;
  });
  const final = await stream.finalChatCompletion();
  assert.equal(final.choices[0].message.content, text);
  assert.equal(final.choices[0].message.role, "assistant");
  assert.match(text, /Paris/);
});

test("a schema", async () => {
  const answer = await client.chat.completions.create({
    ...common,
    messages: [ABOUT_ANNA],
    response_format: { type: "json_schema", json_schema: { name: "person", schema: PERSON } },
  });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), anna);
});

test("a parsed answer", async () => {
  const answer = await client.chat.completions.parse({
    ...common,
    messages: [ABOUT_ANNA],
    response_format: zodResponseFormat(Person, "person"),
  });
  assert.deepEqual(answer.choices[0].message.parsed, anna);
});

test("two choices", async () => {
  const answer = await client.chat.completions.create({ ...common, messages: [USER], n: 2 });
  assert.deepEqual(answer.choices.map((choice) => choice.index).sort(), [0, 1]);
});
