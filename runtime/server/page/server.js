// Everything that is asked of the server.

import { options } from "./options.js";

export const info = { model: "", models: [], nCtx: 0, sees: false, defaults: {} };

// What the server, or the way to it, has against a request.
class Failure extends Error {
  constructor(message, status = 0, kind = "") {
    super(message);
    this.status = status;
    this.kind = kind;
  }
}

// A stream that ended before its end mark.
export class Broken extends Error {}

async function ask(path, body, signal) {
  const headers = options.key ? { authorization: `Bearer ${options.key}` } : {};
  const request = body === undefined ? { headers }
    : { method: "POST", headers: { ...headers, "content-type": "application/json" }, body: JSON.stringify(body), signal };
  let reply;
  try {
    reply = await fetch(path, request);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Failure("The server cannot be reached.");
  }
  if (reply.ok) return reply;
  const found = (await reply.json().catch(() => null))?.error;
  throw new Failure(found?.message ?? `The server answered ${reply.status}.`, reply.status, found?.type);
}

const asked = async (path, body) => (await ask(path, body)).json();

export async function learn() {
  const [props, models] = await Promise.all([asked("props"), asked("v1/models")]);
  info.models = models.data.map(entry => entry.id);
  info.model = info.models.includes(options.model) ? options.model : props.model;
  info.nCtx = models.data.find(entry => entry.id === info.model)?.meta?.n_ctx ?? props.n_ctx;
  info.sees = models.data.find(entry => entry.id === info.model)?.meta?.vision ?? props.modalities?.vision ?? false;
  info.defaults = props.default_generation_settings.params;
}

// Texts that are wanted at the same time go in one request, as far as it may be long.
const LONGEST = 1 << 18;  // characters
let waiting = [];

export function render(text) {
  return new Promise((done, failed) => {
    waiting.push({ text, done, failed });
    if (waiting.length === 1) queueMicrotask(renderAll);
  });
}

async function renderAll() {
  while (waiting.length) {
    let size = 0;
    const over = waiting.findIndex(({ text }, i) => { size += text.length; return i && size > LONGEST; });
    const batch = waiting.splice(0, over < 0 ? waiting.length : over);
    try {
      const { texts } = await asked("page/render", { texts: batch.map(one => one.text) });
      batch.forEach((one, i) => one.done(texts[i]));
    } catch (error) {
      for (const one of batch) one.failed(error);
    }
  }
}

export async function countTokens(text) {
  return (await asked("tokenize", { content: text, parse_special: false })).tokens.length;
}

export async function promptTokens(messages) {
  return (await asked("apply-template", { messages })).n_tokens;
}

export async function pdfText(file) {
  const bytes = new Uint8Array(await file.arrayBuffer());
  let binary = "";
  for (let at = 0; at < bytes.length; at += 0x8000) binary += String.fromCharCode(...bytes.subarray(at, at + 0x8000));
  return asked("page/pdf", { data: btoa(binary) });
}

const SUMMARIZE = "Summarize our conversation so far in at most 200 words: what was asked, found and decided, with the details that matter later.";

export async function summarize(messages) {
  const body = { model: info.model, messages: [...messages, { role: "user", content: SUMMARIZE }], max_tokens: 400 };
  return (await asked("v1/chat/completions", body)).choices[0].message.content;
}

// Yields the stream's events; throws Broken if the last of them is not the end mark.
export async function* answer(body, signal) {
  const reply = await ask("v1/chat/completions", body, signal);
  const reader = reply.body.pipeThrough(new TextDecoderStream()).getReader();
  let rest = "";
  for (;;) {
    let part;
    try {
      part = await reader.read();
    } catch (error) {
      throw error.name === "AbortError" ? error : new Broken();
    }
    if (part.done) throw new Broken();
    const lines = (rest + part.value).split("\n");
    rest = lines.pop();
    for (const line of lines) {
      if (line === "data: [DONE]") return;
      if (!line.startsWith("data: ")) continue;
      const event = JSON.parse(line.slice(6));
      if (event.error) throw new Failure(event.error.message, event.error.code, event.error.type);
      yield event;
    }
  }
}
