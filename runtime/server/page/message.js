// One message on the screen.

import * as chat from "./chat.js";
import { button, copy, icon, iconButton, make, renew } from "./dom.js";
import { Rendering } from "./rendering.js";
import { running } from "./run.js";

export class MessageView {
  constructor(node) {
    this.id = node.id;
    this.body = make("div", { class: "body" });
    this.thoughts = make("details", { class: "thoughts" }, make("summary", {}, "Thoughts"), make("div", { class: "body" }));
    this.thoughts.addEventListener("toggle", () => { if (this.thoughts.open !== this.unfolds) this.unfolds = null; });
    this.files = make("ul", { class: "files", "aria-label": "Attached files" });
    this.note = make("div", { class: "note", role: "status" });
    this.tools = make("div", { class: "tools" });
    this.who = make("h2", { class: node.role === "user" ? "unseen" : "who" });
    this.element = make("article", { class: `message ${node.role}`, "data-id": node.id }, this.who, this.thoughts, this.files, this.body, this.note, this.tools);
    this.text = new Rendering(this.body);
    this.thought = new Rendering(this.thoughts.lastElementChild);
    this.form = null;  // in its place while it is edited
    this.unfolds = false;  // null: as the user has it
  }

  // Shows the message as it is now; `left`: it is no longer sent to the model.
  show(node, left, last) {
    const busy = node.state === "writing";
    this.node = node;
    this.element.classList.toggle("busy", busy);
    this.element.classList.toggle("left", left);
    this.who.textContent = node.role === "user" ? "You" : node.model || "Assistant";
    if (node.role === "user") this.body.textContent = node.content;
    else this.text.show(node.content, !busy);
    this.showThoughts(node, busy);
    this.showFiles(node.files ?? []);
    this.showNote(node);
    if (busy) this.tools.replaceChildren();
    else this.showTools(node, last);
  }

  showThoughts(node, busy) {
    this.thoughts.hidden = !node.reasoning;
    if (!node.reasoning) return;
    const thinking = busy && !node.content;
    this.thoughts.firstElementChild.textContent = thinking ? "Thinking…" : "Thoughts";
    if (this.unfolds !== null) this.thoughts.open = this.unfolds = thinking;
    this.thought.show(node.reasoning, !thinking);
  }

  showFiles(files) {
    this.files.hidden = !files.length;
    if (this.files.children.length === files.length) return;
    this.files.replaceChildren(...files.map(file => make("li", { class: file.picture && "picture" }, sign(file), make("span", {}, file.name), make("small", {}, sized(file)))));
  }

  showNote(node) {
    const says = JSON.stringify([node.state, node.fault, node.kind]);
    if (this.noted === says) return;
    this.noted = says;
    const note = NOTES[node.state]?.(node);
    this.note.hidden = !note;
    this.note.classList.toggle("bad", ["failed", "broken"].includes(node.state));
    this.note.replaceChildren(...(note ? [make("span", {}, note.text), ...note.actions] : []));
  }

  // Buttons that are there already stay, with the focus: they act on `this.node`, as it is then.
  showTools(node, last) {
    const mine = node.role === "user", stats = statsOf(node);
    const copied = iconButton("copy", "Copy", async () => {
      await copy(this.node.content);
      copied.replaceChildren(icon("check"));
      setTimeout(() => copied.replaceChildren(icon("copy")), 1500);
    });
    renew(this.tools, 0, [
      ...this.branches(), copied,
      mine ? iconButton("pen", "Edit", () => this.edit()) : iconButton("again", "Regenerate", () => chat.regenerate(this.id)),
      iconButton("bin", "Delete message", () => chat.removeMessage(this.id)),
      ...(mine && last ? [iconButton("again", "Answer", () => chat.answer(this.id))] : []),
      ...(stats ? [make("span", { class: "stats" }, stats)] : []),
    ]);
  }

  // < 2/3 >: the versions of this message.
  branches() {
    const all = chat.versions(this.id), at = all.indexOf(this.id);
    if (all.length < 2) return [];
    const go = step => () => { const now = chat.versions(this.id); chat.choose(now[now.indexOf(this.id) + step]); };
    const to = (step, name, label) => iconButton(name, label, go(step), { disabled: !all[at + step], "data-step": step });
    return [make("div", { class: "branches", role: "group", "aria-label": "Versions" },
      to(-1, "left", "Previous version"), make("span", {}, `${at + 1}/${all.length}`), to(1, "right", "Next version"))];
  }

  edit() {
    const { node } = this;
    const area = make("textarea", { "aria-label": "Edit the message", rows: Math.min(14, node.content.split("\n").length + 1) });
    area.value = node.content;
    const close = () => { this.form.replaceWith(this.element); this.form = null; };
    const leave = () => { close(); this.element.querySelector('[aria-label="Edit"]')?.focus(); };
    const send = async () => {
      if (!area.value.trim() || chat.isRunning()) return;
      close();
      await chat.edit(node.id, area.value.trim());
    };
    area.addEventListener("keydown", event => {
      if (event.key === "Enter" && !event.shiftKey && !event.isComposing) { event.preventDefault(); send(); }
      if (event.key === "Escape") { event.stopPropagation(); leave(); }
    });
    this.form = make("div", { class: "message user editing" }, area,
      make("div", { class: "row" }, button("Cancel", leave), button("Send", send, { class: "main" })));
    this.element.replaceWith(this.form);
    area.focus();
  }
}

// What stands before a file's name: the picture itself, or a sign.
export function sign(file) {
  return file.picture ? make("img", { src: file.picture, alt: "", width: file.width, height: file.height }) : icon("file");
}

export function sized({ tokens, pages, picture, width, height }) {
  const parts = [picture && width && `${width} × ${height}`, pages && `${pages} ${pages === 1 ? "page" : "pages"}`, tokens !== undefined && `${tokens.toLocaleString("en")} tokens`];
  return parts.filter(Boolean).join(", ");
}

function statsOf(node) {
  const parts = [];
  if (node.stats) parts.push(node.stats);  // of an earlier version of ggq
  if (node.tokens) parts.push(`${node.tokens} tokens`);
  if (node.tokens && node.rate) parts.push(`${node.rate.toFixed(1)} per second`);
  if (node.context && node.nCtx) parts.push(`context ${Math.min(node.context, node.nCtx)} of ${node.nCtx}`);
  return parts.join(" · ");
}

// ---- how an answer ended, and what can be done about it

const go = (label, id) => button(label, () => chat.resume(id));
const room = id => [
  button("Leave out the oldest messages", () => chat.makeRoom(id)),
  button("Summarize them", () => chat.makeRoom(id, true)),
];

const NOTES = {
  stopped: node => ({ text: "Stopped.", actions: [go("Continue", node.id)] }),
  length: node => ({ text: "Cut off: the longest answer that is allowed was reached.", actions: [go("Continue", node.id)] }),
  context: node => ({ text: `Cut off: the context of ${node.nCtx} tokens is full.`, actions: room(node.id) }),
  broken: node => ({ text: "The connection broke before the end of this answer.", actions: [go("Continue", node.id)] }),
  interrupted: node => ({ text: "The page was closed before the end of this answer.", actions: [go("Continue", node.id)] }),
  failed: node => ({
    text: node.fault,
    actions: node.kind === "exceed_context_size_error" ? room(node.id) : [go("Try again", node.id)],
  }),
  writing: node => (running(node.id) ? null : { text: "Being written in another tab.", actions: [] }),
};
