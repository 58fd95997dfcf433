// An element that shows Markdown, which may still be growing. The server renders it, block by
// block; while it grows only the blocks that can still change are sent again.

import { button, copy, elements, make, pause, renew } from "./dom.js";
import { render } from "./server.js";

const UNSURE = 2;  // last blocks that more text may change
const PAUSE = 80, SHARE = 3;  // milliseconds between two drawings; at least so many times the last one

export class Rendering {
  constructor(element) {
    this.element = element;
    this.restart();
  }

  restart() {
    this.stable = "";  // text whose blocks are drawn for good
    this.kept = 0;  // their nodes
    this.drawn = null;
  }

  // Resolves once this text, or a later one, is drawn. `whole`: no more will come.
  show(text, whole) {
    text = text.replace(/\r\n?/g, "\n");
    if (whole && this.drawn === text && !this.wanted) return Promise.resolve();
    this.wanted = { text, whole };
    this.working ??= this.work().finally(() => { this.working = null; });
    return this.working;
  }

  async work() {
    while (this.wanted) {
      const { text, whole } = this.wanted, started = performance.now();
      this.wanted = null;
      if (whole || !text.startsWith(this.stable)) this.restart();
      try {
        this.draw(await render(text.slice(this.stable.length)), text, whole);
      } catch {  // the text is there even if the server is not
        this.restart();
        this.element.replaceChildren(make("p", { class: "unrendered" }, text));
      }
      if (!whole) await pause(Math.max(PAUSE, SHARE * (performance.now() - started)));
    }
  }

  draw(blocks, text, whole) {
    const nodes = blocks.map(block => elements(block.html).map(framed));
    renew(this.element, this.kept, nodes.flat());
    if (whole) this.drawn = text;
    const sure = blocks.length - UNSURE;
    if (whole || sure <= 0) return;
    this.kept += nodes.slice(0, sure).flat().length;
    this.stable += firstLines(text.slice(this.stable.length), blocks[sure].line);
  }
}

function firstLines(text, count) {
  let at = 0;
  for (; count > 0; count--) at = text.indexOf("\n", at) + 1;
  return text.slice(0, at);
}

// Code gets a frame with its language and a button; wide tables and formulas can be scrolled.
function framed(node) {
  for (const pre of node.querySelectorAll("pre[data-language]")) pre.replaceWith(figure(pre.cloneNode(true)));
  for (const table of node.querySelectorAll("table")) table.tabIndex = 0;
  if (node.matches("table, .math")) node.tabIndex = 0;
  return node.matches("pre[data-language]") ? figure(node) : node;
}

function figure(pre) {
  pre.tabIndex = 0;
  return make("figure", { class: "code" },
    make("figcaption", {}, pre.dataset.language || "text", button("Copy", null, { class: "plain", "data-copy": true })), pre);
}

// Copy buttons are drawn anew with their code: one listener for all.
export async function copyCode(event) {
  const pressed = event.target.closest?.("[data-copy]");
  if (!pressed) return;
  await copy(pressed.closest("figure").querySelector("code").textContent);
  pressed.textContent = "Copied";
  setTimeout(() => { pressed.textContent = "Copy"; }, 1500);
}
