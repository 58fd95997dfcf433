// The messages of the open conversation, drawn as they change; the end stays in view.

import * as chat from "./chat.js";
import { $, arrange, make, say } from "./dom.js";
import { MessageView } from "./message.js";
import { copyCode, Rendering } from "./rendering.js";
import { running } from "./run.js";
import { info } from "./server.js";

const IDEAS = ["Explain to a child why the sky is blue", "Write a haiku about the sea",
  "Show me a Python function that reverses a list", "Give me three ideas for dinner with rice"];
const NEAR = 80;  // pixels from the end that still are the end

const list = $("messages"), log = $("log");
let views = new Map(), stuck = true;

export function start() {
  chat.events.addEventListener("open", () => { views = new Map(); stuck = true; draw(); toEnd(); });
  chat.events.addEventListener("tree", draw);
  chat.events.addEventListener("piece", ({ detail: run }) => piece(run));
  log.addEventListener("scroll", () => { stuck = atEnd(); $("down").hidden = stuck; });
  log.addEventListener("click", copyCode);
  new ResizeObserver(() => { if (stuck) toEnd(); else $("down").hidden = atEnd(); }).observe(list);
  $("down").addEventListener("click", () => { toEnd(); $("prompt").focus(); });
}

const atEnd = () => log.scrollHeight - log.scrollTop - log.clientHeight < NEAR;

export function toEnd() {
  stuck = true;
  log.scrollTop = log.scrollHeight;
  $("down").hidden = true;
}

export function draw() {
  const nodes = chat.shown(), stepped = steppedAt();
  const from = nodes.findIndex(node => node.id === chat.current.from);
  const elements = [];
  const old = views;
  views = new Map();
  nodes.forEach((node, at) => {
    const view = old.get(node.id) ?? new MessageView(node);
    views.set(node.id, view);
    view.show(node, at < from, at === nodes.length - 1);
    if (at === from && at > 0) elements.push(...cut(chat.current.summary));
    elements.push(view.form ?? view.element);
  });
  arrange(list, elements.length ? elements : [welcome()]);
  const last = nodes.at(-1)?.id;
  if (running(last) && !old.has(last)) toEnd();  // what was just asked for is what is looked at
  if (stepped && !list.contains(document.activeElement)) focusStep(stepped);
  status();
}

let divider = { elements: [] };

// Where the messages begin that are sent; an unfolded summary stays unfolded.
function cut(summary) {
  if (!divider.elements.length || divider.summary !== summary) divider = { summary, elements: drawCut(summary) };
  return divider.elements;
}

function drawCut(summary) {
  const body = make("div", { class: "body" });
  if (summary) new Rendering(body).show(summary, true);
  const line = make("p", { class: "cut" }, `The messages above are ${summary ? "sent to the model as a summary" : "no longer sent to the model"}`);
  return summary ? [line, make("details", { class: "summary" }, make("summary", {}, "Summary"), body)] : [line];
}

// The focus stays at "next version" when that puts another message in the place of this one.
function steppedAt() {
  const { step } = document.activeElement?.dataset ?? {};
  return step && { step, at: [...list.children].indexOf(document.activeElement.closest("article")) };
}

function focusStep({ step, at }) {
  const steps = [...list.children[at]?.querySelectorAll("[data-step]:enabled") ?? []];
  (steps.find(one => one.dataset.step === step) ?? steps[0])?.focus();
}

function piece(run) {
  if (run.conversation !== chat.current.id) return;
  const view = views.get(run.node.id);
  if (view) view.show(run.node, false, true);
  status();
}

// Below the prompt: the speed of the answer in progress, else what of the context is used.
function status() {
  const last = chat.shown().at(-1), run = last && running(last.id);
  log.setAttribute("aria-busy", Boolean(run));
  const of = last?.nCtx, used = Math.min(last?.context ?? 0, of ?? 0);
  $("used").hidden = !used || Boolean(run);
  $("used").firstElementChild.style.width = `${Math.min(100, 100 * used / of)}%`;
  if (run) say(run.rate ? `${run.rate.toFixed(1)} tokens per second` : "");
  else say(used ? `${used} of ${of} tokens of the context used` : "");
}

function welcome() {
  const here = /^(localhost|127\.|\[::1)/.test(location.hostname);
  const where = here ? "runs on this machine. Nothing leaves it." : `runs on ${location.hostname}.`;
  const ideas = IDEAS.map(text => make("button", { type: "button", onclick: () => chat.ask(text) }, text));
  return make("section", { class: "hint" }, make("h2", {}, "What would you like to know?"),
    make("p", {}, info.model ? `${info.model} ${where}` : ""), make("div", {}, ...ideas));
}
