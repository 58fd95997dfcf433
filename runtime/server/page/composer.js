// Where messages are written: the prompt, its attachments, drafts that outlive a reload.

import * as chat from "./chat.js";
import { $, iconButton, make, notice } from "./dom.js";
import { attached } from "./files.js";
import { toEnd } from "./log.js";
import { sign, sized } from "./message.js";
import { info } from "./server.js";

const prompt = $("prompt");
const kept = new Map();  // files to send, by conversation
let reading = 0;

const files = () => kept.get(chat.current.id) ?? [];
function setFiles(list, conversation = chat.current.id) {
  kept.set(conversation, list);
  if (conversation !== chat.current.id) return;
  showFiles();
  grow();
}
const draft = () => `ggq.draft.${chat.current.id}`;

export function start() {
  $("composer").addEventListener("submit", event => { event.preventDefault(); send(); });
  prompt.addEventListener("input", () => { keepDraft(); grow(); });
  prompt.addEventListener("keydown", key);
  prompt.addEventListener("paste", event => {
    if (event.clipboardData.files.length) { event.preventDefault(); add([...event.clipboardData.files]); }
  });
  $("attach").addEventListener("click", () => $("file").click());
  $("file").addEventListener("change", () => { add([...$("file").files]); $("file").value = ""; });
  document.addEventListener("dragover", event => event.preventDefault());
  document.addEventListener("drop", event => { event.preventDefault(); add([...event.dataTransfer.files]); });
  $("stop").addEventListener("click", () => { chat.halt(); prompt.focus(); });
  chat.events.addEventListener("open", opened);
  for (const type of ["tree", "piece"]) chat.events.addEventListener(type, buttons);
}

function opened() {
  showFiles();
  prompt.value = "";
  try { prompt.value = sessionStorage.getItem(draft()) ?? ""; } catch {}
  buttons();
  grow();
  if (!matchMedia("(pointer: coarse)").matches) prompt.focus();  // no keyboard pops up on a phone
}

function keepDraft() {
  try {
    if (prompt.value) sessionStorage.setItem(draft(), prompt.value);
    else sessionStorage.removeItem(draft());
  } catch {}
}

function send() {
  const text = prompt.value.trim();
  const sent = files();
  if (!(text || sent.length) || reading || chat.isRunning()) return;
  prompt.value = "";
  keepDraft();
  setFiles([]);
  toEnd();
  chat.ask(text, sent);
}

function buttons() {
  const busy = chat.isRunning();
  $("send").hidden = busy;
  $("stop").hidden = !busy;
}

function grow() {
  prompt.style.height = "auto";
  prompt.style.height = `${prompt.scrollHeight}px`;
  $("send").disabled = Boolean(reading) || !(prompt.value.trim() || files().length);
}

function key(event) {
  if (event.key === "Enter" && !event.shiftKey && !event.isComposing) {
    event.preventDefault();
    $("composer").requestSubmit();
  }
  if (event.key === "ArrowUp" && !prompt.value) {
    const edits = document.querySelectorAll('.message.user [aria-label="Edit"]');
    if (edits.length) event.preventDefault();
    edits[edits.length - 1]?.click();
  }
}

async function add(list) {
  const conversation = chat.current.id;
  for (const file of list) {
    reading++;
    grow();
    showFiles(file.name);
    try {
      setFiles([...kept.get(conversation) ?? [], await attached(file)], conversation);
    } catch (error) {
      notice(error.message);
    }
    reading--;
    showFiles();
    grow();
  }
  prompt.focus();
}

function showFiles(name) {
  const shown = files().map(file => make("li", { class: file.tokens > info.nCtx && "bad" }, sign(file), make("span", {}, file.name),
    make("small", {}, sized(file) + (file.tokens > info.nCtx ? ", more than the context" : "")),
    iconButton("x", `Remove ${file.name}`, () => { setFiles(files().filter(other => other !== file)); prompt.focus(); })));
  if (name) shown.push(make("li", { class: "reading" }, make("span", {}, `Reading ${name}…`)));
  $("files").replaceChildren(...shown);
  $("files").hidden = !shown.length;
}
