// Nodes: made, drawn anew where they changed, filled with the server's HTML; notices.

export const $ = id => document.getElementById(id);

export function make(tag, attributes = {}, ...children) {
  const node = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) {
    if (name.startsWith("on")) node.addEventListener(name.slice(2), value);
    else if (value !== undefined && value !== null && value !== false) node.setAttribute(name, value === true ? "" : value);
  }
  node.append(...children.filter(child => child !== null && child !== undefined));
  return node;
}

const SVG = "http://www.w3.org/2000/svg";

export function icon(name) {
  const svg = document.createElementNS(SVG, "svg"), use = document.createElementNS(SVG, "use");
  svg.setAttribute("aria-hidden", "true");
  use.setAttribute("href", `#i-${name}`);
  svg.append(use);
  return svg;
}

// A button that is only a picture: its label is read out and shown as a tooltip.
export function iconButton(name, label, onclick, attributes = {}) {
  return make("button", { class: "icon", type: "button", "aria-label": label, title: label, onclick, ...attributes }, icon(name));
}

export function button(label, onclick, attributes = {}) {
  return make("button", { type: "button", onclick, ...attributes }, label);
}

// Replaces the children from `from` on; equal ones stay, with what is selected or focused in them.
export function renew(parent, from, nodes) {
  nodes.forEach((node, i) => {
    const old = parent.childNodes[from + i];
    if (!old) parent.append(node);
    else if (!old.isEqualNode(node)) old.replaceWith(node);
  });
  while (parent.childNodes.length > from + nodes.length) parent.lastChild.remove();
}

// Puts `nodes` in this order; those that are there already are not moved needlessly.
export function arrange(parent, nodes) {
  nodes.forEach((node, i) => { if (parent.children[i] !== node) parent.insertBefore(node, parent.children[i] ?? null); });
  while (parent.children.length > nodes.length) parent.lastElementChild.remove();
}

// The one place where text becomes HTML: what the server's renderer has made safe.
const rendered = globalThis.trustedTypes?.createPolicy("ggq", { createHTML: html => html }) ?? { createHTML: html => html };

export function elements(html) {
  const template = document.createElement("template");
  template.innerHTML = rendered.createHTML(html);
  return [...template.content.children];
}

export async function copy(text) {
  try {
    await navigator.clipboard.writeText(text);
  } catch {  // not on a page over plain HTTP from another machine
    const area = make("textarea", {});
    area.value = text;
    document.body.append(area);
    area.select();
    document.execCommand("copy");
    area.remove();
  }
}

export function say(text) {
  $("status").textContent = text;
}

let hiding = 0;

// A notice at the bottom, with something to do about it; returns what takes it away.
export function notice(text, label, act) {
  clearTimeout(hiding);
  const hide = () => { $("notice").replaceChildren(); };
  $("notice").replaceChildren(make("div", {}, make("span", {}, text),
    label ? button(label, () => { hide(); act(); }) : null, iconButton("x", "Close the notice", hide)));
  hiding = setTimeout(hide, 10_000);
  return hide;
}

export const pause = milliseconds => new Promise(done => { setTimeout(done, milliseconds); });

// crypto.randomUUID is missing on pages over plain HTTP from another machine.
export function newId() {
  return [...crypto.getRandomValues(new Uint8Array(16))].map(byte => byte.toString(16).padStart(2, "0")).join("");
}
