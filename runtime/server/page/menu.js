// A menu at a button, and what the one of a conversation holds.

import * as chat from "./chat.js";
import { $, copy, make, notice } from "./dom.js";
import { download, toJSON, toMarkdown } from "./files.js";
import * as store from "./store.js";
import { path } from "./tree.js";

// Shows `entries` ([label, act] pairs) below `anchor`; arrows move, Escape closes.
function showMenu(anchor, entries) {
  const menu = $("popup");
  const items = entries.map(([label, act]) => make("button", { type: "button", role: "menuitem", onclick: () => { close(); act(); } }, label));
  const close = () => { menu.hidePopover(); anchor.focus(); };
  menu.replaceChildren(...items);
  menu.onkeydown = event => {
    const step = { ArrowDown: 1, ArrowUp: -1 }[event.key];
    const at = items.indexOf(document.activeElement);
    if (step) items.at((at + step) % items.length).focus();
    else if (event.key === "Home") items[0].focus();
    else if (event.key === "End") items.at(-1).focus();
    else if (event.key === "Escape" || event.key === "Tab") close();
    else return;
    event.preventDefault();
    event.stopPropagation();
  };
  menu.ontoggle = event => { if (anchor.ariaExpanded) anchor.ariaExpanded = event.newState === "open"; };
  menu.showPopover();
  const box = anchor.getBoundingClientRect(), size = menu.getBoundingClientRect();
  menu.style.left = `${Math.max(8, Math.min(box.left, innerWidth - size.width - 8))}px`;
  menu.style.top = `${box.bottom + size.height + 8 > innerHeight ? box.top - size.height - 4 : box.bottom + 4}px`;
  items[0].focus();
}

// `rename()`: how the place that the menu belongs to lets a title be changed.
export function showConversationMenu(anchor, id, rename) {
  const withRecord = act => async () => { const record = await store.read(id); if (record) await act(record); };
  const leaf = record => (id === chat.current.id ? chat.leafOf() : record.leaf);
  const file = record => (record.title || "conversation").replace(/[^\p{L}\p{N} _-]+/gu, "").trim() || "conversation";
  showMenu(anchor, [
    ["Rename", rename],
    ["Copy all", withRecord(async record => { await copy(toMarkdown(record, path(record, leaf(record)))); notice("Copied."); })],
    ["Export as Markdown", withRecord(record => download(`${file(record)}.md`, toMarkdown(record, path(record, leaf(record))), "text/markdown"))],
    ["Export as JSON", withRecord(record => download(`${file(record)}.json`, toJSON([record]), "application/json"))],
    ["Delete", () => chat.remove(id)],
  ]);
}
