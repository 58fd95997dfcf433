// The conversation that is open, and everything that can be done to it.
//
// Events: "open" (another conversation), "tree" (its messages), "piece" (of a message), "list".

import { notice } from "./dom.js";
import { preset } from "./options.js";
import { running, runningIn, start, stop } from "./run.js";
import { info, promptTokens, summarize } from "./server.js";
import * as store from "./store.js";
import * as tree from "./tree.js";

const KEPT_SHARE = 0.6;  // of the context, when the oldest messages are left out
const AGAIN = 5000;  // milliseconds until another tab is asked again whether it is still writing
const OPEN = "ggq.open";  // in sessionStorage: which conversation this tab shows

export const events = new EventTarget();
export let current = null;
let leaf = null;  // of the branch that this tab shows
let opening = null, settling = 0;
const starting = new Set();  // conversations that are about to be answered

const emit = (type, detail) => events.dispatchEvent(new CustomEvent(type, { detail }));

// A message as it is now: that of the record, or the one being written here.
const live = node => running(node.id)?.node ?? node;
export const shown = () => tree.path(current, leaf).map(live);
export const versions = id => tree.children(current, current.nodes[id].parent).map(node => node.id);
export const isRunning = () => starting.has(current.id) || runningIn(current.id) !== undefined;
export const leafOf = () => leaf;

function adopt(record) {
  current = record;
  if (!current.nodes[leaf]) leaf = record.leaf;
}

// Changes the open conversation, in the store and, if it is open still, here.
async function change(edit) {
  const now = current;
  const record = await store.update(now.id, found => { edit(found); found.time = Date.now(); return found; }, now).catch(error => {
    notice(`This browser cannot keep the conversation: ${error?.message ?? "no space"}`);
    edit(now);
    return now;
  });
  if (record.id === current.id) adopt(record);
  emit("list", record.id);
  return record;
}

// ---- which one is open

export async function open(id) {
  opening = id;
  const record = await store.read(id);
  if (opening !== id) return;  // another one was opened meanwhile
  if (!record) return create(id);  // one without messages is not kept, its draft is
  leaf = null;
  adopt(record);
  show();
  await settle();
}

export function create(id) {
  opening = null;
  leaf = null;
  adopt({ ...tree.newConversation(preset()?.system), ...(id && { id }) });
  show();
}

function show() {
  try { sessionStorage.setItem(OPEN, current.id); } catch {}
  emit("open");
  emit("list", current.id);
}

export async function restore() {
  let id = null;
  try { id = sessionStorage.getItem(OPEN); } catch {}
  const newest = (await store.all()).sort((a, b) => b.time - a.time)[0]?.id;
  await open(id ?? newest ?? "");
}

// An answer that nobody writes any more, because its page was closed, is said to be cut off.
async function settle() {
  const { id } = current;
  let again = false;
  const writing = Object.values(current.nodes).filter(node => node.state === "writing" && !running(node.id));
  for (const { id: message } of writing) {
    if (await store.isAlive(message)) {
      again = true;
      continue;
    }
    const record = await store.update(id, found => {
      const node = found.nodes[message];
      if (node?.state !== "writing" || running(message)) return undefined;
      node.state = "interrupted";
      return found;
    });
    if (current.id === id && record) { adopt(record); emit("tree"); }
  }
  clearTimeout(settling);
  if (again) settling = setTimeout(settle, AGAIN);
}

// Another tab has changed a conversation: what it added to the branch shown here is followed.
store.onChange(async id => {
  emit("list", id);
  if (id !== current?.id) return;
  const record = await store.read(id);
  if (id !== current.id) return;
  if (!record) return create();
  const follows = tree.path(record).some(node => node.id === leaf);
  if (follows && !isRunning()) leaf = record.leaf;
  adopt(record);
  emit("tree");
  clearTimeout(settling);
  settling = setTimeout(settle, AGAIN);
});

// ---- asking

export async function ask(text, files = []) {
  const user = tree.newMessage(leaf, "user", { content: text, files: files.length ? files : undefined });
  await reply(user.id, found => {
    found.title ||= tree.titleOf(text || files[0]?.name || "");
    found.nodes[user.id] = user;
  });
}

// Puts an answer after `parent`, which `edit` may have to make, and asks the model for it.
async function reply(parent, edit = () => {}) {
  const node = tree.newMessage(parent, "assistant", { state: "writing", model: info.model });
  await write(node.id, found => { edit(found); found.nodes[node.id] = node; found.leaf = node.id; });
}

// The conversation is the one that was open at the beginning, whatever is opened meanwhile.
async function write(id, edit) {
  const conversation = current.id;
  starting.add(conversation);
  const record = await change(edit);
  starting.delete(conversation);
  const node = record.nodes[id];
  if (record.id === current.id) leaf = id;
  start(record, tree.path(record, node.parent), { ...node }, run => {
    if (run.conversation === current.id && current.nodes[id]) current.nodes[id] = run.node;
    emit("piece", run);
    if (!running(id)) emit("list", run.conversation);
  });
  if (record.id === current.id) emit("tree");
  emit("list", record.id);
}

// The last message has no answer, because that was deleted or never came.
export async function answer(id) {
  if (!isRunning()) await reply(id);
}

export async function regenerate(id) {
  if (!isRunning()) await reply(current.nodes[id].parent);
}

export async function edit(id, text) {
  const old = current.nodes[id];
  leaf = old.parent;
  await ask(text, old.files);
}

// Goes on with an answer that was cut off; one of which nothing came is asked for again.
export async function resume(id) {
  if (isRunning()) return;
  await write(id, found => { Object.assign(found.nodes[id], { state: "writing", model: info.model }); });
}

export async function halt() {
  const run = runningIn(current.id);
  stop(run);
  await run?.finished;
}

// Leaves the oldest messages out of what is sent until there is room, or sends their summary in
// their place; then goes on.
export async function makeRoom(id, withSummary = false) {
  const conversation = current, before = tree.path(current, current.nodes[id].parent);
  const first = Math.max(0, before.findIndex(one => one.id === current.from));
  starting.add(conversation.id);
  emit("tree");
  try {
    const at = await firstThatFits(conversation, before, id, first);
    const summary = withSummary && at > first ? await summaryOf(conversation, before.slice(first, at)) : conversation.summary;
    if (current.id !== conversation.id) return;  // another one was opened meanwhile
    await change(found => { Object.assign(found, { from: before[at].id, summary }); });
  } catch (error) {
    notice(error.message);
    return;
  } finally {
    starting.delete(conversation.id);
    emit("tree");
  }
  await resume(id);
}

async function firstThatFits(conversation, before, id, first) {
  const tokens = at => promptTokens(tree.messages({ ...conversation, from: before[at].id }, [...before, conversation.nodes[id]]));
  const turns = before.map((one, i) => (one.role === "user" ? i : -1)).filter(i => i > first);
  let at = first;
  while (turns.length && await tokens(at) > KEPT_SHARE * info.nCtx) {
    at = turns.splice(0, Math.max(1, Math.floor(turns.length / 4))).at(-1);
  }
  if (await tokens(at) >= info.nCtx - 1) throw new Error("Even the last message alone does not fit the context.");
  return at;
}

// Of messages that are left out, and of the summary of those left out before them.
function summaryOf(conversation, nodes) {
  const done = notice("Summarizing the oldest messages…");
  const messages = tree.messages({ ...conversation, from: null, system: conversation.summary ?? "" }, nodes);
  return summarize(messages).finally(done);
}

// ---- branches and messages

export async function choose(id) {
  leaf = tree.leafBelow(current, id);
  await change(found => { found.leaf = leaf; });
  emit("tree");
}

export async function removeMessage(id) {
  const conversation = current.id;
  if (running(id)) await halt();
  if (current.id !== conversation) return;
  let taken;
  await change(found => { taken = tree.takeOut(found, id); });
  if (!current.nodes[leaf]) leaf = current.leaf;
  emit("tree");
  notice("Message deleted.", "Undo", async () => {
    const record = await store.update(conversation, found => { tree.putBack(found, taken); return found; });
    if (current.id !== conversation) return;
    leaf = record.leaf;
    adopt(record);
    emit("tree");
  });
}

// ---- conversations

export async function rename(id, title) {
  const record = await store.update(id, found => { found.title = title; return found; });
  if (record && id === current.id) { adopt(record); emit("renamed"); }
  emit("list", id);
}

export async function setSystem(text) {
  if (text === current.system) return;
  if (Object.keys(current.nodes).length) await change(found => { found.system = text; });
  else current.system = text;  // an empty conversation is not kept
}

export async function remove(id) {
  stop(runningIn(id));
  let old;
  await store.update(id, found => { old = found; return null; });
  if (id === current.id) await openNewest();
  emit("list", id);
  if (old) notice(`“${old.title}” deleted.`, "Undo", async () => { await keep([old]); await open(id); });
}

export async function removeAll() {
  for (const { id } of await store.all()) {
    stop(runningIn(id));
    await store.update(id, () => null);
    emit("list", id);
  }
  create();
}

async function openNewest() {
  const newest = (await store.all()).sort((a, b) => b.time - a.time)[0];
  if (newest) await open(newest.id);
  else create();
}

// Conversations from a file, or deleted ones that come back.
export async function keep(records) {
  for (const record of records) {
    await store.update(record.id, () => record, record);
    emit("list", record.id);
  }
}
