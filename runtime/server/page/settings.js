// The settings: sampling, presets, system prompt, colours, key; conversations in and out.

import * as chat from "./chat.js";
import { $, make, notice } from "./dom.js";
import { download, fromFile, toJSON } from "./files.js";
import { NUMBERS, options, preset, presets, setOptions, setPresets } from "./options.js";
import { info } from "./server.js";
import * as store from "./store.js";

const dialog = $("dialog");
const NO_SEED = 0xffffffff;  // how servers say a random one

export function start(learned) {
  $("settings").addEventListener("click", () => show());
  dialog.addEventListener("close", () => { if (dialog.returnValue === "done") { keep(); learned(); } });
  $("cancel").addEventListener("click", () => dialog.close());
  $("preset").addEventListener("change", () => { fill(presets.find(one => one.name === $("preset").value) ?? {}); });
  $("save-preset").addEventListener("click", savePreset);
  $("delete-preset").addEventListener("click", deletePreset);
  $("import").addEventListener("click", () => $("imported").click());
  $("imported").addEventListener("change", () => { take([...$("imported").files]); $("imported").value = ""; });
  $("export").addEventListener("click", async () => download("ggq conversations.json", toJSON(await store.all()), "application/json"));
  $("clear").addEventListener("click", () => { if (confirm("Delete all conversations?")) chat.removeAll(); });
}

export function show(field = "system") {
  $("system").value = chat.current.system;
  for (const name of NUMBERS) {
    $(name).value = options[name] ?? "";
    const value = info.defaults[name];
    const given = !(name === "seed" && value === NO_SEED) && !(name === "max_tokens" && value < 0);
    if (value !== undefined && given) $(name).placeholder = value;
  }
  $("key").value = options.key ?? "";
  $("theme").value = options.theme ?? "";
  showPresets(preset()?.name ?? "");
  dialog.returnValue = "";  // Escape leaves everything as it was
  dialog.showModal();
  $(field).focus();
}

function showPresets(chosen) {
  $("preset").replaceChildren(make("option", { value: "" }, "None"), ...presets.map(({ name }) => make("option", { value: name }, name)));
  $("preset").value = chosen;
  $("delete-preset").disabled = !chosen;
  $("preset-name").value = "";
}

function fill(values) {
  $("system").value = values.system ?? "";
  for (const name of NUMBERS) $(name).value = values[name] ?? "";
  $("delete-preset").disabled = !$("preset").value;
}

function numbers() {
  const valid = NUMBERS.filter(name => $(name).value !== "" && $(name).validity.valid);
  return Object.fromEntries(valid.map(name => [name, Number($(name).value)]));
}

function savePreset() {
  const name = $("preset-name").value.trim() || $("preset").value;
  if (!name) { $("preset-name").focus(); return; }
  setPresets([...presets.filter(one => one.name !== name), { name, system: $("system").value.trim(), ...numbers() }]);
  showPresets(name);
}

function deletePreset() {
  setPresets(presets.filter(one => one.name !== $("preset").value));
  showPresets("");
}

function keep() {
  const unset = Object.fromEntries(NUMBERS.map(name => [name, undefined]));
  setOptions({ ...unset, ...numbers(), preset: $("preset").value, key: $("key").value.trim(), theme: $("theme").value });
  chat.setSystem($("system").value.trim());
}

async function take(files) {
  let count = 0;
  for (const file of files) {
    try {
      const records = await fromFile(file);
      await chat.keep(records);
      count += records.length;
      await chat.open(records[0].id);
    } catch (error) {
      notice(`${file.name} cannot be imported: ${error.message}.`);
      return;
    }
  }
  dialog.close();
  notice(`${count} ${count === 1 ? "conversation" : "conversations"} imported.`);
}
