// Answers in progress: read from the server, saved every second, whatever is on the screen.

import { sampling } from "./options.js";
import { Broken, answer, info } from "./server.js";
import * as store from "./store.js";
import { messages } from "./tree.js";

const SAVE = 1000;  // milliseconds
const runs = new Map();  // by message

store.answerFor(id => runs.has(id));
export const running = id => runs.get(id);
export const runningIn = conversation => [...runs.values()].find(run => run.conversation === conversation);
export const stop = run => run?.control.abort();

// Before the page goes: what has come so far.
addEventListener("pagehide", () => { for (const run of runs.values()) save(run); });

// Begins or continues `node`, the answer to the last of `before`; `changed(run)` hears of every piece.
export function start(conversation, before, node, changed) {
  const run = { conversation: conversation.id, node, control: new AbortController(), rate: 0, saved: 0, changed };
  const sent = messages(conversation, before);
  const begun = node.content || node.reasoning;
  if (begun) sent.push({ role: "assistant", content: node.content, reasoning_content: node.reasoning || undefined });
  const body = { model: info.model, messages: sent, stream: true, stream_options: { include_usage: true }, ...sampling() };
  if (begun) body.continue_final_message = true;
  node.state = "writing";
  runs.set(node.id, run);
  run.finished = follow(run, body);
  return run;
}

async function follow(run, body) {
  const { node } = run, beat = setInterval(save, SAVE, run);
  let reason = null;
  delete node.fault;
  try {
    for await (const event of answer(body, run.control.signal)) {
      reason = event.choices?.[0]?.finish_reason ?? reason;
      take(run, event);
    }
    node.state = reason === "length" ? (node.context >= info.nCtx - 1 ? "context" : "length") : "done";
  } catch (error) {
    if (error.name === "AbortError") node.state = "stopped";
    else if (error instanceof Broken) node.state = "broken";
    else Object.assign(node, { state: "failed", fault: error.message, kind: error.kind, status: error.status });
  }
  clearInterval(beat);
  runs.delete(node.id);
  await save(run);
  run.changed(run);
}

function take(run, event) {
  const { node } = run, delta = event.choices?.[0]?.delta;
  if (delta?.content || delta?.reasoning_content) {
    node.content += delta.content ?? "";
    node.reasoning = (node.reasoning ?? "") + (delta.reasoning_content ?? "");
    const now = performance.now();
    run.first ??= now;
    run.pieces = (run.pieces ?? 0) + 1;
    if (now - run.first > 300) run.rate = 1000 * (run.pieces - 1) / (now - run.first);
    if (now - run.saved > SAVE) save(run);  // timers are slow in tabs that nobody looks at
    run.changed(run);
  }
  if (event.usage) {
    node.context = event.usage.total_tokens;
    node.tokens = (node.tokens ?? 0) + event.usage.completion_tokens;
    node.rate = event.timings?.predicted_per_second;
    node.nCtx = info.nCtx;
  }
}

// Writes the message into its conversation as that is now; a deleted one stays deleted.
async function save(run) {
  run.saved = performance.now();
  const { node } = run;
  const record = await store.update(run.conversation, found => {
    if (!found.nodes[node.id]) return undefined;
    found.nodes[node.id] = { ...node, parent: found.nodes[node.id].parent };
    found.time = Date.now();
    return found;
  }).catch(() => run);  // what cannot be kept can still be read
  if (!record?.nodes?.[node.id] && record !== run) stop(run);
}
