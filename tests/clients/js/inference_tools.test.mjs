// The @huggingface/inference package: tools, and outputs held to a form.

import assert from "node:assert/strict";
import { test } from "node:test";

import { InferenceClient } from "@huggingface/inference";

import { ABOUT_ANNA, CITY, collect, GREEDY, PERSON, URL, WEATHER } from "./talk.mjs";

const client = new InferenceClient("some-token", { endpointUrl: URL });
const getWeather = {
  name: "get_weather",
  description: "Get the weather of a city",
  parameters: CITY,
};
const tools = [{ type: "function", function: getWeather }];
const anna = { name: "Anna", age: 31 };
const asking = { messages: [WEATHER], tools, tool_choice: "required", ...GREEDY };

test("a tool", async () => {
  const answer = await client.chatCompletion(asking);
  const call = answer.choices[0].message.tool_calls[0];
  assert.equal(call.function.name, "get_weather");
  assert.deepEqual(JSON.parse(call.function.arguments), { city: "Paris" });
});

test("a streamed tool", async () => {
  const chunks = await collect(client.chatCompletionStream(asking));
  const parts = chunks.flatMap((chunk) => chunk.choices[0]?.delta.tool_calls ?? []);
  const text = parts.map((part) => part.function.arguments ?? "").join("");
  assert.deepEqual(JSON.parse(text), { city: "Paris" });
});

test("a schema in chat", async () => {
  const answer = await client.chatCompletion({
    messages: [ABOUT_ANNA],
    response_format: { type: "json_schema", json_schema: { name: "person", schema: PERSON } },
    ...GREEDY,
  });
  assert.deepEqual(JSON.parse(answer.choices[0].message.content), anna);
});
