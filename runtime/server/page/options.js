// What the user has set, kept in localStorage: sampling, colours, key, model; presets.

const OPTIONS = "ggq.options", PRESETS = "ggq.presets";
export const NUMBERS = ["temperature", "top_p", "top_k", "min_p", "repeat_penalty", "max_tokens", "seed"];

function stored(name, fallback) {
  try {
    return JSON.parse(localStorage.getItem(name)) ?? fallback;
  } catch {
    return fallback;
  }
}

function store(name, value) {
  try {
    localStorage.setItem(name, JSON.stringify(value));
  } catch {}  // no storage: the settings last as long as the page
}

export let options = stored(OPTIONS, {});
export let presets = stored(PRESETS, [
  { name: "Precise", system: "", temperature: 0.2 },
  { name: "Creative", system: "", temperature: 1.1, min_p: 0.05 },
]);

export function setOptions(changed) {
  options = { ...options, ...changed };
  for (const name of Object.keys(options)) if (options[name] === undefined || options[name] === "") delete options[name];
  store(OPTIONS, options);
  paint();
}

export function setPresets(list) {
  presets = list;
  store(PRESETS, presets);
}

export const preset = () => presets.find(one => one.name === options.preset);

export function sampling() {
  return Object.fromEntries(NUMBERS.filter(name => options[name] !== undefined).map(name => [name, options[name]]));
}

export function paint() {
  if (options.theme) document.documentElement.dataset.theme = options.theme;
  else delete document.documentElement.dataset.theme;
}

// Another tab has changed them.
addEventListener("storage", event => {
  if (event.key === OPTIONS) { options = stored(OPTIONS, {}); paint(); }
  if (event.key === PRESETS) presets = stored(PRESETS, presets);
});
