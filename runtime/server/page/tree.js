// A conversation as a tree of messages: every version of a message stays. Functions without state.
//
// {id, title, system, created, time, leaf, from, summary, nodes: {id: message}}. `leaf`: the end of
// the branch that was last looked at; `from`: the first message that is still sent to the model,
// `summary`: what is sent instead of those before it, if anything is.
// A message: {id, parent, created, role, content, reasoning, files, model, state, ...}.

import { newId } from "./dom.js";

export function newConversation(system = "") {
  const now = Date.now();
  return { id: newId(), title: "", system, created: now, time: now, leaf: null, from: null, nodes: {} };
}

export function newMessage(parent, role, more = {}) {
  return { id: newId(), parent, created: Date.now(), role, content: "", state: "done", ...more };
}

// The messages from the first to `leaf`.
export function path(conversation, leaf = conversation.leaf) {
  const found = [];
  for (let node = conversation.nodes[leaf]; node; node = conversation.nodes[node.parent]) found.push(node);
  return found.reverse();
}

export function children(conversation, parent) {
  return Object.values(conversation.nodes).filter(node => node.parent === parent)
    .sort((a, b) => a.created - b.created || (a.id < b.id ? -1 : 1));
}

// The end of the newest branch that goes through a message.
export function leafBelow(conversation, id) {
  for (;;) {
    const next = children(conversation, id).at(-1);
    if (!next) return id;
    id = next.id;
  }
}

// Takes one message out; what followed it follows the message before it.
export function takeOut(conversation, id) {
  const node = conversation.nodes[id];
  const below = children(conversation, id);
  const others = children(conversation, node.parent).filter(other => other.id !== id);
  for (const child of below) child.parent = node.parent;
  delete conversation.nodes[id];
  if (conversation.from === id) conversation.from = below[0]?.id ?? null;
  if (conversation.leaf === id) conversation.leaf = others.length ? leafBelow(conversation, others.at(-1).id) : node.parent;
  return { node, below: below.map(child => child.id) };
}

export function putBack(conversation, { node, below }) {
  conversation.nodes[node.id] = node;
  for (const id of below) if (conversation.nodes[id]) conversation.nodes[id].parent = node.id;
  conversation.leaf = leafBelow(conversation, node.id);
}

export function titleOf(text) {
  return text.replace(/\s+/g, " ").trim().slice(0, 60);
}

// A file within a message, in a fence that nothing in it closes.
function fenced({ name, text }) {
  const longest = Math.max(2, ...(text.match(/`+/g) ?? []).map(run => run.length));
  const fence = "`".repeat(longest + 1), kind = /\.(\w{1,10})$/.exec(name)?.[1] ?? "";
  return `File ${name}:\n\n${fence}${kind}\n${text.replace(/\n$/, "")}\n${fence}`;
}

export function contentOf(node) {
  return [...(node.files ?? []).filter(file => !file.picture).map(fenced), node.content].filter(Boolean).join("\n\n");
}

// Text and pictures as OpenAI's parts; text alone where there is no picture.
function partsOf(node) {
  const text = contentOf(node), pictures = (node.files ?? []).filter(file => file.picture);
  if (!pictures.length) return text;
  const shown = pictures.map(file => ({ type: "image_url", image_url: { url: file.picture } }));
  return text ? [...shown, { type: "text", text }] : shown;
}

function joined(before, after) {
  if (typeof before === "string" && typeof after === "string") return `${before}\n\n${after}`;
  const parts = content => (typeof content === "string" ? [{ type: "text", text: content }] : content);
  return [...parts(before), ...parts(after)];
}

// What the model is sent: system prompt, then the messages of a branch from the first that counts.
export function messages(conversation, nodes) {
  const from = nodes.findIndex(node => node.id === conversation.from);
  const sent = [];
  for (const node of from > 0 ? nodes.slice(from) : nodes) {
    const content = partsOf(node), last = sent.at(-1);
    if (!content.length) continue;
    // A message was deleted between two of a kind: templates want them in turn.
    if (last?.role === node.role) last.content = joined(last.content, content);
    else sent.push({ role: node.role, content });
  }
  const summary = from > 0 && conversation.summary && `Summary of the conversation so far:\n${conversation.summary}`;
  const system = [conversation.system, summary].filter(Boolean).join("\n\n");
  return system ? [{ role: "system", content: system }, ...sent] : sent;
}
