import assert from "node:assert/strict";
import { test } from "node:test";
import { sentBeside, turnsOf } from "../../src/runglass/server/viewer/data/chat.js";

const ASKED = { role: "user", content: "What is the weather?" };
const CALL = { id: "c1", type: "function", function: { name: "weather", arguments: '{"city": "Lisbon"}' } };
const FIRST = { number: 1, request: { system: "Be brief.", messages: [ASKED] }, response: { role: "assistant", content: null, toolCalls: [CALL] } };
const RESULT = { role: "tool", content: '{"sun": true}', toolCallId: "c1" };

test("a conversation over several calls has each turn once", () => {
  const second = {
    number: 2, request: { system: "Be brief.", messages: [ASKED, FIRST.response, RESULT] }, response: { content: "Sunny." },
  };
  const turns = turnsOf([FIRST, second]);
  assert.deepEqual(turns.map((turn) => [turn.role, turn.text]), [
    ["system", "Be brief."], ["user", "What is the weather?"], ["assistant", ""], ["tool", '{"sun": true}'], ["assistant", "Sunny."],
  ]);
  assert.deepEqual(turns[2].calls, [{ id: "c1", name: "weather", args: { city: "Lisbon" } }]);
  assert.equal(turns[3].answers, "c1");
  assert.equal(turns[4].call, 2);
});

test("text that comes in still is the last turn, of a further call too", () => {
  assert.deepEqual(turnsOf([], "Sun", "What is the weather?").map((turn) => turn.text), ["What is the weather?", "Sun"]);
  assert.deepEqual(turnsOf([FIRST], "Sun").map((turn) => turn.text), ["Be brief.", "What is the weather?", "", "Sun"]);
});

test("parts, images, arguments that are no JSON, and calls without content are told as they are", () => {
  const image = { type: "image_url", image_url: { url: "https://a/b.png" } };
  const [turn, answer] = turnsOf([{ number: 1, request: { messages: [{ role: "user", content: [{ type: "text", text: "Look" }, image] }] },
    response: { content: { answer: 1 }, toolCalls: [{ id: "x", function: { name: "f", arguments: "{no" } }] } }]);
  assert.equal(turn.text, "Look");
  assert.deepEqual(turn.other, [image]);
  assert.deepEqual(answer.other, { answer: 1 });
  assert.equal(answer.calls[0].args, "{no");
  assert.deepEqual(turnsOf([{ number: 1, model: "echo" }]), []);
});

test("images stand beside the text that they came with", () => {
  const images = [{ url: "https://a/b.png", mimeType: "image/png" }];
  const [turn] = turnsOf([{ number: 1, request: { messages: [{ ...ASKED, attachments: images }] } }]);
  assert.equal(turn.text, ASKED.content);
  assert.deepEqual(turn.other, images);
});

test("schema, tools and settings are those of the request that was answered", () => {
  const schema = { type: "object", additionalProperties: false, title: "answer" };
  const tools = [{ name: "look", input_schema: {} }, { type: "function", function: { name: "hear" } }];
  const declined = { number: 1, errorCode: "PROVIDER_ERROR", request: { messages: [ASKED], settings: { stream: true } } };
  const answered = { number: 2, request: { messages: [ASKED], tools, toolChoice: "auto", outputSchema: schema, settings: { n: 1 } } };
  assert.deepEqual(sentBeside([declined, answered, { number: 3 }]), [
    ["Tools", { look: tools[0], hear: tools[1] }], ["Tool choice", "auto"],
    ["Output schema", schema], ["Settings", { n: 1 }],
  ]);
  assert.deepEqual(sentBeside([]), []);
});
