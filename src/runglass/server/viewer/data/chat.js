// The calls of an llm step as the conversation that it was: each turn once, with what was asked of tools. Pure.
import { parse } from "./json.js";

/** @typedef {{role: string, text: string, calls: {id: string, name: string, args: Json}[], answers: string,
 *   call?: number, other: Json}} Turn `answers` is the id of the tool call that it answers */

/** The turns of all calls; those that a call repeats of the one before it are told once.
 * @param {Json[]} calls of models @param {string} [streamed] text that comes in still
 * @param {unknown} [prompt] what the first call asks, where that one is not told yet @returns {Turn[]} */
export function turnsOf(calls, streamed = "", prompt = undefined) {
  /** @type {Turn[]} */
  const turns = [];
  /** @type {Json[]} */
  let known = [];
  for (const call of calls) {
    const request = call.request ?? {};
    if (request.system && !turns.some((turn) => turn.role === "system" && turn.text === request.system)) {
      turns.push(turnOf({ role: "system", content: request.system }));
    }
    const messages = Array.isArray(request.messages) ? request.messages : [];
    const same = sharedLength(known, messages);
    for (const message of messages.slice(same)) turns.push(turnOf(message));
    known = messages;
    if (call.response) {
      turns.push({ ...turnOf({ role: "assistant", ...call.response }), call: call.number });
      // The next call repeats what this one has answered.
      known = [...messages, call.response];
    }
  }
  if (streamed && !calls.length && typeof prompt === "string") turns.push(turnOf({ role: "user", content: prompt }));
  if (streamed) turns.push(turnOf({ role: "assistant", content: streamed }));
  return turns;
}

/** What went out beside the conversation, with the call that was answered: the last one.
 * @param {Json[]} calls of models @returns {[title: string, value: Json][]} */
export function sentBeside(calls) {
  const request = calls.findLast((call) => call.request)?.request ?? {};
  const tools = Array.isArray(request.tools) ? Object.fromEntries(request.tools.map(toolOf)) : request.tools;
  /** @type {[title: string, value: Json][]} */
  const sent = [["Tools", tools], ["Tool choice", request.toolChoice],
    ["Output schema", request.outputSchema], ["Settings", request.settings]];
  return sent.filter(([, value]) => value !== undefined && value !== null);
}

/** A tool by its name, in whichever form its provider has it. @param {Json} tool @param {number} at */
function toolOf(tool, at) {
  return [String(tool?.function?.name ?? tool?.name ?? at), tool];
}

/** @param {Json} message @returns {Turn} */
function turnOf(message) {
  const { content } = message;
  const isText = typeof content === "string";
  const parts = Array.isArray(content) ? content : [];
  const text = isText ? content : parts.filter((part) => part?.type === "text").map((part) => String(part.text)).join("\n");
  const beside = Array.isArray(content) ? content.filter((part) => part?.type !== "text") : isText ? [] : content ?? [];
  const rest = message.attachments ? [beside, message.attachments].flat() : beside;
  return {
    role: String(message.role ?? "assistant"), text,
    calls: (message.toolCalls ?? []).map((/** @type {Json} */ call) => ({
      id: String(call.id ?? ""), name: String(call.function?.name ?? ""), args: parsed(call.function?.arguments),
    })),
    answers: String(message.toolCallId ?? ""),
    other: Array.isArray(rest) && !rest.length ? undefined : rest,
  };
}

/** How many messages at the start are the same. @param {Json[]} before @param {Json[]} now */
function sharedLength(before, now) {
  let same = 0;
  while (same < before.length && same < now.length && alike(before[same], now[same])) same += 1;
  return same;
}

/** @param {Json} a @param {Json} b */
function alike(a, b) {
  const told = (/** @type {Json} */ message) => JSON.stringify([message.role ?? "assistant", message.content ?? null,
    (message.toolCalls ?? []).map((/** @type {Json} */ call) => call.id), message.toolCallId ?? null]);
  return told(a) === told(b);
}

/** What a model asked a tool with: JSON where it is some. @param {Json} text */
function parsed(text) {
  if (typeof text !== "string") return text;
  try {
    return parse(text);
  } catch {
    return text;
  }
}
