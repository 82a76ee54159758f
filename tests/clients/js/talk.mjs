// What the clients ask: questions, schemas and tools that the built-in model knows.

export const URL = process.env.MILLRACE_URL;
export const QUESTION = "What is the capital of France?";
export const USER = { role: "user", content: QUESTION };
export const GREEDY = { temperature: 0, max_tokens: 40 };

export const ABOUT_ANNA = { role: "user", content: "Anna is 31 years old. Write this as JSON." };
export const PERSON = {
  type: "object",
  properties: { name: { type: "string" }, age: { type: "integer" } },
  required: ["name", "age"],
  additionalProperties: false,
};

export const WEATHER = { role: "user", content: "What is the weather in Paris?" };
export const CITY = {
  type: "object",
  properties: { city: { type: "string" } },
  required: ["city"],
  additionalProperties: false,
};

export async function collect(stream) {
  const items = [];
  for await (const item of stream) items.push(item);
  return items;
}
