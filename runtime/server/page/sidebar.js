// The list of conversations: search, open, rename, menu.

import * as chat from "./chat.js";
import { $, iconButton, make, renew } from "./dom.js";
import { showConversationMenu } from "./menu.js";
import { runningIn } from "./run.js";
import * as store from "./store.js";

const AROUND = 30;  // characters shown before what was found
const WAIT = 120;  // milliseconds after the last key

const heads = new Map();  // what is shown of each conversation, read once
let turns = 0, listing = 0, renaming = null;

export async function start() {
  $("new").addEventListener("click", fresh);
  $("fresh").addEventListener("click", fresh);
  $("menu").addEventListener("click", () => { open(true); $("new").focus(); });
  $("shade").addEventListener("click", () => open(false));
  $("search").addEventListener("input", listSoon);
  $("search").addEventListener("keydown", event => {
    if (event.key !== "Escape" || !$("search").value) return;
    event.stopPropagation();
    $("search").value = "";
    list();
  });
  chat.events.addEventListener("list", ({ detail: id }) => refresh(id));
  chat.events.addEventListener("open", () => open(false));
  for (const record of await store.all()) heads.set(record.id, head(record));
}

function fresh() {
  $("search").value = "";
  chat.create();
  open(false);
}

// On a narrow screen the list lies above the messages.
export function open(shown) {
  $("side").classList.toggle("shown", shown);
  $("menu").setAttribute("aria-expanded", shown);
}

export const isOpen = () => $("side").classList.contains("shown");

function listSoon() {
  clearTimeout(listing);
  listing = setTimeout(list, WAIT);
}

const head = ({ id, title, time }) => ({ id, title, time });

async function refresh(id) {
  const record = await store.read(id);
  if (record) heads.set(id, head(record));
  else heads.delete(id);
  listSoon();
}

async function list() {
  if (renaming) return;
  const words = $("search").value.trim().toLowerCase(), turn = ++turns;
  const found = words ? await search(words) : [...heads.values()];
  if (turn !== turns) return;  // something else is looked for by now
  found.sort((a, b) => b.time - a.time);
  renew($("chats"), 0, found.map(entry));
  $("none").hidden = found.length > 0 || !words;
}

async function search(words) {
  return (await store.all()).map(record => ({ ...head(record), snippet: match(record, words) })).filter(one => one.snippet !== null);
}

// Where the words are in a conversation: "" in its title, a piece of text, or null for nowhere.
function match(record, words) {
  if (record.title.toLowerCase().includes(words)) return "";
  for (const { content } of Object.values(record.nodes)) {
    const at = content.toLowerCase().indexOf(words);
    if (at >= 0) return `${at > AROUND ? "…" : ""}${content.slice(Math.max(0, at - AROUND), at + words.length + AROUND)}`;
  }
  return null;
}

function entry(record) {
  const { id, snippet } = record, title = record.title || "Conversation";
  const item = make("li", { "data-id": id, class: runningIn(id) && "running" },
    make("button", { class: "open", type: "button", "aria-current": id === chat.current.id && "true", title, onclick: () => chat.open(id), onkeydown: event => { if (event.key === "F2") rename(item, record); } },
      make("span", {}, title), snippet ? make("small", {}, snippet) : null, runningIn(id) ? make("span", { class: "unseen" }, "(answering)") : null),
    iconButton("dots", `Menu of ${title}`, event => showConversationMenu(event.currentTarget, id, () => rename(item, record)), { "aria-haspopup": "menu" }));
  return item;
}

function rename(item, record) {
  const field = make("input", { "aria-label": "New title", maxlength: 200 });
  field.value = record.title;
  renaming = record.id;
  const leave = async save => {
    if (!renaming) return;
    renaming = null;
    const title = field.value.trim();
    if (save && title) await chat.rename(record.id, title);
    await list();
    document.querySelector(`#chats li[data-id="${record.id}"] .open`)?.focus();
  };
  field.addEventListener("keydown", event => {
    if (event.key === "Enter") leave(true);
    if (event.key === "Escape") { event.stopPropagation(); leave(false); }
  });
  field.addEventListener("blur", () => leave(true));
  item.replaceChildren(field);
  field.focus();
  field.select();
}

// The title in the header stands for the open conversation's entry.
export function renameOpen() {
  const item = document.querySelector(`#chats li[data-id="${chat.current.id}"]`);
  if (!item) return;
  open(true);
  rename(item, chat.current);
}
