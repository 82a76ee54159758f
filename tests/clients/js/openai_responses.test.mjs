// The openai package: the Responses API.

import assert from "node:assert/strict";
import { test } from "node:test";

import OpenAI from "openai";
import { zodTextFormat } from "openai/helpers/zod";
import { z } from "zod";

import { ABOUT_ANNA, CITY, collect, QUESTION, URL, WEATHER } from "./talk.mjs";

const client = new OpenAI({ baseURL: `${URL}/v1`, apiKey: "unused", maxRetries: 0 });
const common = { model: "tgi", temperature: 0, max_output_tokens: 40 };
const tools = [
  {
    type: "function",
    name: "get_weather",
    description: "Get the weather of a city",
    parameters: CITY,
    strict: true,
  },
];

test("text", async () => {
  const answer = await client.responses.create({ ...common, input: QUESTION });
  assert.match(answer.output_text, /Paris/);
  assert.equal(answer.status, "completed");
});

test("stream", async () => {
  const events = await collect(
    await client.responses.create({ ...common, input: QUESTION, stream: true }),
  );
  assert.equal(events[0].type, "response.created");
  assert.equal(events.at(-1).type, "response.completed");
});

test("stream helper", async () => {
  const stream = client.responses.stream({ ...common, input: QUESTION });
  const final = await stream.finalResponse();
  assert.match(final.output_text, /Paris/);
});

test("a tool and its result", async () => {
  const first = await client.responses.create({
    ...common,
    input: [WEATHER],
    tools,
    tool_choice: "required",
  });
  const call = first.output[0];
  assert.equal(call.type, "function_call");
  assert.deepEqual(JSON.parse(call.arguments), { city: "Paris" });
  const result = {
    type: "function_call_output",
    call_id: call.call_id,
    output: '{"temperature": 21, "sky": "sunny"}',
  };
  const answer = await client.responses.create({ ...common, input: [WEATHER, call, result], tools });
  assert.match(answer.output_text, /sunny/);
});

test("a parsed answer", async () => {
  const Person = z.object({ name: z.string(), age: z.number().int() });
  const answer = await client.responses.parse({
    ...common,
    input: [ABOUT_ANNA],
    text: { format: zodTextFormat(Person, "person") },
  });
  assert.deepEqual(answer.output_parsed, { name: "Anna", age: 31 });
});

test("a wrong value", async () => {
  await assert.rejects(
    client.responses.create({ ...common, input: QUESTION, temperature: -1 }),
    OpenAI.UnprocessableEntityError,
  );
});
