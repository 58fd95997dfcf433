// The page's parts put together; the header; keys that work everywhere.

import * as chat from "./chat.js";
import * as composer from "./composer.js";
import { $, make, say } from "./dom.js";
import * as log from "./log.js";
import { showConversationMenu } from "./menu.js";
import { paint, setOptions } from "./options.js";
import { info, learn } from "./server.js";
import * as settings from "./settings.js";
import * as sidebar from "./sidebar.js";
import * as store from "./store.js";

function header() {
  $("title").textContent = chat.current.title || "New conversation";
  $("more").disabled = !Object.keys(chat.current.nodes).length;
}

// What the server says of itself: names of models, its context, its defaults.
async function ask() {
  try {
    await learn();
  } catch (error) {
    if (error.status === 401) settings.show("key");
    else say(error.message);
    return;
  }
  document.title = `${info.model} – ggq`;
  const several = info.models.length > 1;
  $("model").hidden = several;
  $("model").textContent = `${info.model} · ${info.nCtx.toLocaleString("en")} tokens of context`;
  $("models").hidden = !several;
  $("models").replaceChildren(...info.models.map(name => make("option", { value: name }, name)));
  $("models").value = info.model;
  log.draw();
}

// A key may be what is missing.
chat.events.addEventListener("piece", ({ detail: { node } }) => { if (node.status === 401 && !$("dialog").open) settings.show("key"); });
for (const type of ["open", "list", "renamed"]) chat.events.addEventListener(type, header);
$("more").addEventListener("click", () => showConversationMenu($("more"), chat.current.id, sidebar.renameOpen));
$("models").addEventListener("change", () => { setOptions({ model: $("models").value }); ask(); });

document.addEventListener("keydown", event => {
  const control = event.ctrlKey || event.metaKey;
  if (event.key === "Escape" && !$("dialog").open) {
    if (sidebar.isOpen()) { sidebar.open(false); $("menu").focus(); }
    else chat.halt();
  } else if (control && event.key === "k") {
    event.preventDefault();
    sidebar.open(true);
    $("search").focus();
  } else if (control && event.shiftKey && event.key.toLowerCase() === "o") {
    event.preventDefault();
    chat.create();
  } else if (event.key === "/" && document.activeElement === document.body) {
    event.preventDefault();
    $("prompt").focus();
  }
});

paint();
log.start();
composer.start();
settings.start(ask);
if (!await store.start()) say("This browser keeps nothing: the conversations last as long as this page.");
await sidebar.start();
await chat.restore();
await ask();
