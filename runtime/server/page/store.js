// Conversations in IndexedDB, one record each. Every change is read, made and written in one
// transaction, and told to the other tabs: none overwrites what another has written.

const STORE = "conversations", OLD = "ggq.chats";
const channel = new BroadcastChannel("ggq");

const settled = request => new Promise((done, failed) => {
  request.onsuccess = () => done(request.result);
  request.onerror = () => failed(request.error);
});

function open() {
  const request = indexedDB.open("ggq", 1);
  request.onupgradeneeded = () => { request.result.createObjectStore(STORE, { keyPath: "id" }); };
  return settled(request);
}

// A browser that keeps nothing still has conversations, for as long as the page is open.
const memory = new Map();
let database = null;

export async function start() {
  try {
    database = await open();
    database.onversionchange = () => database.close();
  } catch {
    return false;
  }
  await adopt();
  return true;
}

function transaction(mode) {
  return database.transaction(STORE, mode).objectStore(STORE);
}

export async function read(id) {
  return database ? settled(transaction("readonly").get(id)) : structuredClone(memory.get(id));
}

export async function all() {
  return database ? settled(transaction("readonly").getAll()) : [...memory.values()].map(one => structuredClone(one));
}

// `change` gets the record as it is now, or `base` where there is none, and returns the new one,
// null to delete it, undefined to leave it. Resolves to the record once it is written.
export async function update(id, change, base) {
  const result = database ? await updateStored(id, change, base) : updateMemory(id, change, base);
  if (result.changed) channel.postMessage({ type: "changed", id });
  return result.record;
}

function updateMemory(id, change, base) {
  const found = structuredClone(memory.get(id)) ?? base, record = found && change(found);
  if (record) memory.set(id, structuredClone(record));
  if (record === null) memory.delete(id);
  return { record: record === undefined ? found : record, changed: record !== undefined };
}

function updateStored(id, change, base) {
  return new Promise((done, failed) => {
    const store = transaction("readwrite");
    let result;
    store.get(id).onsuccess = event => {
      const found = event.target.result ?? base, record = found && change(found);
      if (record) store.put(record);
      if (record === null) store.delete(id);
      result = { record: record === undefined ? found : record, changed: record !== undefined };
    };
    store.transaction.oncomplete = () => done(result);
    store.transaction.onerror = store.transaction.onabort = () => failed(store.transaction.error);
  });
}

// ---- other tabs

const listeners = [], answering = new Set();
let isWriting = () => false;

export function onChange(listener) {
  listeners.push(listener);
}

// `test(id)`: whether this tab is writing that message.
export function answerFor(test) {
  isWriting = test;
}

channel.onmessage = ({ data }) => {
  if (data.type === "changed") for (const listener of listeners) listener(data.id);
  if (data.type === "who writes" && isWriting(data.message)) channel.postMessage({ type: "I do", message: data.message });
  if (data.type === "I do") for (const heard of answering) heard(data.message);
};

// Whether another tab is at work on a message that its record says is being written.
export function isAlive(message, milliseconds = 400) {
  return new Promise(done => {
    const end = alive => { answering.delete(heard); done(alive); };
    const heard = id => { if (id === message) end(true); };
    answering.add(heard);
    channel.postMessage({ type: "who writes", message });
    setTimeout(end, milliseconds, false);
  });
}

// ---- conversations of earlier versions, which were one value of localStorage

async function adopt() {
  let old;
  try {
    old = JSON.parse(localStorage.getItem(OLD));
  } catch {
    return;
  }
  for (const chat of old?.chats ?? []) {
    if (!chat.messages?.length) continue;
    const nodes = {};
    let leaf = null;
    chat.messages.forEach((message, at) => {
      const id = `${chat.id}-${at}`;
      nodes[id] = { ...message, id, parent: leaf, created: chat.time + at, state: "done" };
      leaf = id;
    });
    const record = { id: chat.id, title: chat.title, system: chat.system ?? "", created: chat.time, time: chat.time, leaf, from: null, nodes };
    await update(chat.id, () => record, record);
  }
  localStorage.removeItem(OLD);
}
