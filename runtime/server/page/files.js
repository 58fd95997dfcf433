// Conversations as files: JSON with everything in it, Markdown of one branch; files that are attached.

import { make, newId } from "./dom.js";
import { countTokens, info, pdfText } from "./server.js";
import { contentOf, newConversation, newMessage } from "./tree.js";

const FORMAT = "ggq conversations";
const MARK = /^<!-- (system|user|assistant) -->$/;
const ESCAPED = /^(\\*)(<!-- (?:system|user|assistant) -->)$/gm;  // such a line within a message
const MAX_FILE = 10 << 20;  // bytes
const MAX_PICTURE = 32 << 20;
const LONGEST_SIDE = 1600;  // pixels of a picture that is kept and sent
const PICTURE = /^data:image\/(png|jpeg);base64,[A-Za-z0-9+/=]+$/;

export function download(name, text, type) {
  const link = make("a", { href: URL.createObjectURL(new Blob([text], { type })), download: name });
  document.body.append(link);
  link.click();
  link.remove();
  setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
}

export function toJSON(records) {
  return JSON.stringify({ format: FORMAT, version: 1, conversations: records }, null, 1);
}

export function toMarkdown(record, nodes) {
  const named = node => (node.files ?? []).filter(file => file.picture).map(file => `(picture ${file.name})`);
  const part = (role, text) => `<!-- ${role} -->\n\n${text.replace(ESCAPED, "\\$1$2")}`;
  const parts = nodes.map(node => part(node.role, [...named(node), contentOf(node)].join("\n\n")));
  if (record.system) parts.unshift(part("system", record.system));
  return `# ${record.title || "Conversation"}\n\n${parts.join("\n\n")}\n`;
}

// The conversations of a file; throws an Error that says what is wrong with it.
export async function fromFile(file) {
  const text = await file.text();
  return /^\s*[{[]/.test(text) ? fromJSON(text) : [fromMarkdown(text)];
}

function fromJSON(text) {
  let value;
  try {
    value = JSON.parse(text);
  } catch {
    throw new Error("it is not valid JSON");
  }
  const records = value.format === FORMAT ? value.conversations : null;
  if (!Array.isArray(records)) throw new Error("it holds no conversations of ggq");
  return records.map(imported);
}

// A copy with its own id, of the known fields alone: what is there already is not overwritten.
function imported(record) {
  const text = value => (typeof value === "string" ? value : "");
  const out = { ...newConversation(text(record.system)), title: text(record.title) };
  for (const node of Object.values(record.nodes ?? {})) {
    if (!["user", "assistant"].includes(node?.role)) throw new Error("a message has no role");
    const files = Array.isArray(node.files) ? node.files.filter(file => typeof file?.name === "string" && (typeof file.text === "string" || PICTURE.test(file.picture ?? ""))) : [];
    const state = text(node.state) === "writing" ? "interrupted" : text(node.state) || "done";
    out.nodes[text(node.id)] = {
      id: text(node.id), parent: text(node.parent) || null, created: Number(node.created) || 0, role: node.role, state,
      content: text(node.content), reasoning: text(node.reasoning) || undefined, fault: text(node.fault) || undefined,
      model: text(node.model) || undefined, files: files.length ? files : undefined,
      ...Object.fromEntries(["tokens", "rate", "context", "nCtx"].filter(name => Number.isFinite(node[name])).map(name => [name, node[name]])),
    };
  }
  if (text(record.summary)) out.summary = record.summary;
  checkParents(out);
  out.leaf = out.nodes[record.leaf] ? record.leaf : Object.keys(out.nodes).at(-1) ?? null;
  out.from = out.nodes[record.from] ? record.from : null;
  if (!out.leaf) throw new Error("a conversation is empty");
  return out;
}

function checkParents({ nodes }) {
  for (const node of Object.values(nodes)) {
    if (!nodes[node.parent]) node.parent = null;
    const seen = new Set();
    for (let at = node; at; at = nodes[at.parent]) {
      if (seen.has(at)) throw new Error("its messages follow each other in a circle");
      seen.add(at);
    }
  }
}

function fromMarkdown(text) {
  const parts = [];
  let title = "";
  for (const line of text.replace(/\r\n?/g, "\n").split("\n")) {
    const role = MARK.exec(line)?.[1];
    if (role) parts.push({ role, lines: [] });
    else if (parts.length) parts.at(-1).lines.push(line.replace(/^\\(\\*<!-- (?:system|user|assistant) -->)$/, "$1"));
    else title ||= /^# (.*)/.exec(line)?.[1] ?? "";
  }
  const record = newConversation();
  record.title = title || "Conversation";
  for (const { role, lines } of parts) {
    const content = lines.join("\n").replace(/^\n+|\n+$/g, "");
    if (role === "system") { record.system = content; continue; }
    const node = { ...newMessage(record.leaf, role, { content }), id: newId() };
    record.nodes[node.id] = node;
    record.leaf = node.id;
  }
  if (!record.leaf) throw new Error("it holds no messages of ggq");
  return record;
}

// ---- attachments

// A file's text and its tokens, or a picture; throws an Error that says why it has none.
export async function attached(file) {
  if (file.type.startsWith("image/")) return picture(file);
  if (file.size > MAX_FILE) throw new Error(`${file.name} is larger than ${MAX_FILE >> 20} MiB`);
  const pdf = file.type === "application/pdf" || /\.pdf$/i.test(file.name);
  const { text, pages } = pdf ? await pdfText(file) : { text: await plain(file) };
  return { name: file.name, text, pages, tokens: await countTokens(text) };
}

async function plain(file) {
  try {
    const text = new TextDecoder("utf-8", { fatal: true }).decode(await file.arrayBuffer());
    if (!text.includes("\0")) return text.replace(/\r\n?/g, "\n");
  } catch {}  // said below
  throw new Error(`${file.name} is neither text nor a PDF`);
}

// A picture as a data: URL, upright and no larger than models look at: what is kept stays small.
async function picture(file) {
  if (!info.sees) throw new Error(`${file.name} is a picture, and this model takes none: it needs a projector, --mmproj`);
  if (file.size > MAX_PICTURE) throw new Error(`${file.name} is larger than ${MAX_PICTURE >> 20} MiB`);
  const image = await createImageBitmap(file).catch(() => { throw new Error(`${file.name} is no picture that this browser can read`); });
  const share = Math.min(1, LONGEST_SIDE / Math.max(image.width, image.height));
  const [width, height] = [image.width, image.height].map(side => Math.max(1, Math.round(side * share)));
  const canvas = make("canvas", { width, height });
  canvas.getContext("2d").drawImage(image, 0, 0, width, height);
  image.close();
  const urls = [canvas.toDataURL("image/png"), onWhite(canvas).toDataURL("image/jpeg", 0.92)];
  const found = urls[0].length <= 1.5 * urls[1].length ? urls[0] : urls[1];  // drawings stay sharp
  return { name: file.name, picture: found, width, height };
}

function onWhite(canvas) {
  const { width, height } = canvas, made = make("canvas", { width, height }), pen = made.getContext("2d");
  pen.fillStyle = "white";
  pen.fillRect(0, 0, width, height);
  pen.drawImage(canvas, 0, 0);
  return made;
}
