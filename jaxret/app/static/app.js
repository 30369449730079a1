// The page of `jaxret serve`. Its state is in the address; an upload stays in this tab's memory.

const $ = (id) => document.getElementById(id);
const MOST_BYTES = 32e6;
const FIELDS = ["in", "label", "newer", "older", "max", "sort", "k", "keep"];
const NARROWING = ["in", "label", "newer", "older", "max"];
const PLAIN = { in: "", label: "", newer: "", older: "", max: "", sort: "", k: "60", keep: "largest" };

let info = null; // of /api/info
let state = null; // what the address says
let shown = []; // images in the grid, in its order
let following = null; // what loads the next page
let latest = 0; // number of the last request; answers to earlier ones are dropped
let current = null; // aborts it
let inDetails = -1;
const images = new Map(); // id -> image
const uploads = new Map(); // key -> {blob, address}

// Small parts.

function make(tag, properties = {}, ...children) {
  const { data, ...rest } = properties;
  const element = Object.assign(document.createElement(tag), rest);
  Object.assign(element.dataset, data);
  element.append(...children);
  return element;
}

// Names may hold characters that reorder or hide text: they are shown as code points.
const clean = (text) => text.replace(/[\p{Cc}\p{Cf}\p{Zl}\p{Zp}\p{Co}]/gu, (c) => `\\u{${c.codePointAt(0).toString(16)}}`);
const count = (n, one) => `${n.toLocaleString("en")} ${one}${n === 1 ? "" : "s"}`;
const number = (d) => (Number.isInteger(d) ? String(d) : Number(d.toPrecision(4)).toString());
const day = (image) => (image.taken ?? image.modified).slice(0, 10);
const bytes = (n) => (n < 1e6 ? `${(n / 1e3).toFixed(0)} kB` : `${(n / 1e6).toFixed(1)} MB`);
const unit = () => (info?.bits ? `of ${info.bits} bits` : "");

class Refused extends Error {}

async function ask(address, options) {
  let answer;
  try {
    answer = await fetch(address, options);
  } catch (error) {
    if (error.name === "AbortError") throw error;
    throw new Refused("jaxret does not answer. Is it still running?");
  }
  if (answer.ok) return answer.json();
  const said = await answer.json().catch(() => ({}));
  if (answer.status === 403) throw new Refused("jaxret was started anew: open the address that it printed.");
  const refused = new Refused(clean(said.error?.message ?? `jaxret answered ${answer.status}.`));
  refused.code = said.error?.code;
  throw refused;
}

function tell(text, again = null) {
  $("problem").hidden = !text;
  $("problem").firstElementChild.textContent = text ?? "";
  $("retry").hidden = !again;
  $("retry").onclick = again;
}

// State and address.

function read() {
  const given = new URLSearchParams(location.search);
  const found = { view: given.get("view") ?? "", upload: given.get("upload") ?? "" };
  for (const name of ["item", "not"]) found[name] = given.getAll(name).filter((x) => /^\d{1,18}$/.test(x)).map(Number);
  for (const name of FIELDS) found[name] = given.get(name) ?? PLAIN[name];
  return found;
}

function write(next) {
  const given = new URLSearchParams();
  for (const name of ["view", "upload"]) if (next[name]) given.set(name, next[name]);
  for (const name of ["item", "not"]) for (const id of next[name]) given.append(name, id);
  for (const name of FIELDS) if (next[name] !== PLAIN[name]) given.set(name, next[name]);
  return `/${given.size ? `?${given}` : ""}`;
}

function go(change, { replace = false, focus = false } = {}) {
  const next = { ...state, ...change };
  history[replace ? "replaceState" : "pushState"](null, "", write(next));
  state = next;
  load(focus);
}

const queries = () => state.item.length + state.not.length + (state.upload ? 1 : 0);

function searchFrom(id, focus = true) {
  go({ view: "", item: [id], not: [], upload: "", max: "" }, { focus });
  scrollTo({ top: 0 });
}

function add(id, sign) {
  const item = state.item.filter((x) => x !== id);
  const not = state.not.filter((x) => x !== id);
  (sign === "+" ? item : not).push(id);
  if (!item.length && !state.upload) return tell("“Less like this” needs a picture to search by first.");
  go({ view: "", item, not, max: "" }, { focus: true });
}

function remove(id) {
  const item = state.item.filter((x) => x !== id);
  const not = item.length || state.upload ? state.not.filter((x) => x !== id) : [];
  go({ item, not });
}

function upload(file) {
  if (file.size > MOST_BYTES) return tell(`This picture has ${bytes(file.size)}; the limit is 32 MB.`);
  const key = String(Date.now());
  uploads.set(key, { blob: file, address: URL.createObjectURL(file), name: file.name || "pasted picture" });
  go({ view: "", upload: key, item: [], not: [], max: "" }, { focus: true });
}

// Loading.

async function load(focus = false) {
  const mine = ++latest;
  current?.abort();
  current = new AbortController();
  const { signal } = current;
  document.body.classList.add("busy");
  controls();
  tell(null);
  try {
    const show = state.view === "duplicates" ? await duplicates(signal) : queries() ? await search(signal) : await browse(signal);
    if (mine !== latest) return;
    show();
    if (focus) (cells()[0] ?? $("grid")).focus({ preventScroll: true });
  } catch (error) {
    if (mine !== latest || error.name === "AbortError") return;
    if (!(error instanceof Refused)) throw error;
    if (error.code === "revision_gone") return load();
    tell(error.message, () => load(focus));
  } finally {
    if (mine === latest) document.body.classList.remove("busy");
  }
}

function parameters(names) {
  const given = new URLSearchParams();
  for (const name of names) if (state[name]) given.append(name, state[name]);
  if (given.has("older")) given.set("older", after(given.get("older")));
  return given;
}

function after(date) {
  const next = new Date(`${date}T00:00:00Z`);
  next.setUTCDate(next.getUTCDate() + 1);
  return next.toISOString().slice(0, 10);
}

async function search(signal) {
  const given = parameters(["k", ...NARROWING.filter((name) => name !== "max" || single())]);
  for (const name of ["item", "not"]) for (const id of state[name]) given.append(name, id);
  const sent = uploads.get(state.upload);
  if (state.upload && !sent) throw new Refused("The picture that was dropped is no longer in this tab: drop it again.");
  const type = sent?.blob.type.startsWith("image/") ? sent.blob.type : "application/octet-stream";
  const options = sent ? { method: "POST", body: sent.blob, headers: { "Content-Type": type }, signal } : { signal };
  const [found] = await Promise.all([ask(`/api/search?${given}`, options), know([...state.item, ...state.not], signal)]);
  return () => {
    const wanted = new Set(state.item.flatMap((id) => classes(images.get(id))));
    const results = [...found.results];
    if (state.sort === "date") results.sort((a, b) => (day(a) < day(b) ? 1 : day(a) > day(b) ? -1 : a.distance - b.distance));
    fill(results, wanted);
    const within = state.max !== "" && single() ? ` within ${state.max} ${unit()}` : "";
    const parts = [
      results.length ? `${results.length.toLocaleString("en")} of ${found.within.toLocaleString("en")}${within}` : `Nothing found${within}`,
      `${count(found.searched, "image")} searched`,
      `${Math.max(1, Math.round(found.took_ms))} ms`,
    ];
    const same = results.filter((image) => classes(image).some((name) => wanted.has(name))).length;
    if (wanted.size && results.length) parts.splice(1, 0, `${same} of the same class`);
    $("status").textContent = parts.join(" · ");
    if (!info?.bits && results.length && state.max === "") limit(Number(number(results.at(-1).distance * 2 || 1)), null);
    title();
    more(null);
  };
}

async function browse(signal) {
  const given = parameters(["in", "label", "newer", "older"]);
  const found = await ask(`/api/items?${given}`, { signal });
  return () => {
    fill(found.images, new Set());
    const some = NARROWING.some((name) => state[name] && name !== "max");
    $("status").textContent = found.images.length ? (some ? "The newest that pass the filters" : "The newest") : "No image passes the filters";
    title();
    const next = (page) => {
      if (page.next === null) return more(null);
      given.set("after", page.next);
      given.set("revision", page.revision);
      more(async () => {
        const added = await ask(`/api/items?${given}`);
        fill([...shown, ...added.images], new Set(), shown.length);
        next(added);
      });
    };
    next(found);
  };
}

async function know(ids, signal) {
  const unknown = ids.filter((id) => !images.has(id));
  const found = await Promise.all(unknown.map((id) => ask(`/api/items/${id}`, { signal })));
  for (const { image } of found) images.set(image.id, image);
}

async function duplicates(signal) {
  const given = parameters(["max", "keep"]);
  $("status").textContent = "Comparing all images";
  const found = await ask(`/api/duplicates?${given}`, { signal });
  return () => {
    $("groups").replaceChildren(...found.groups.map(groupOf));
    const members = found.total ? `${count(found.total, "group")}` : "No duplicates";
    $("status").textContent = `${members} within ${number(found.radius)} ${unit()} · ${count(found.searched, "image")} · nothing is deleted`;
    title();
    if (state.max === "") limit(info?.bits ? Math.ceil(info.bits / 4) : found.radius * 3 || 1, found.radius);
    const next = (page) => {
      if (page.next === null) return more(null);
      given.set("after", page.next);
      given.set("revision", page.revision);
      more(async () => {
        const added = await ask(`/api/duplicates?${given}`);
        $("groups").append(...added.groups.map(groupOf));
        next(added);
      });
    };
    next(found);
  };
}

function more(loads) {
  $("more").hidden = !loads;
  following = loads;
}

// Drawing.

const classes = (image) => image?.label?.split("|") ?? [];

function title() {
  const first = images.get(state.item[0])?.path ?? (state.upload ? "dropped picture" : "");
  document.title = [state.view === "duplicates" ? "Duplicates" : clean(first), "jaxret"].filter(Boolean).join(" – ");
}

function described(image, wanted) {
  const parts = [clean(image.path)];
  if (image.distance !== undefined) parts.push(`distance ${number(image.distance)}`);
  if (image.label) parts.push(`class ${clean(image.label)}${wanted.size ? (classes(image).some((x) => wanted.has(x)) ? ", the same" : ", another") : ""}`);
  if (image.state !== "ok") parts.push(image.state);
  return parts.join(", ");
}

function pictureOf(image, alt) {
  const frame = make("div", { className: "frame" });
  const picture = make("img", { alt, width: 256, height: 256, loading: "lazy", decoding: "async", draggable: false });
  let tries = 0;
  picture.onerror = () => {
    if (tries++ < 3 && image.state === "ok") return setTimeout(() => (picture.src = `${image.thumb}`), 700 * tries);
    picture.replaceWith(make("span", { className: "gone", textContent: `${clean(image.path)} (${image.state === "ok" ? "no picture" : image.state})` }));
  };
  picture.src = image.thumb;
  frame.append(picture);
  if (image.distance !== undefined) frame.append(make("span", { className: "far", textContent: number(image.distance), title: `distance ${number(image.distance)} ${unit()}` }));
  if (image.state !== "ok") frame.append(make("span", { className: "state", textContent: image.state }));
  return frame;
}

function wordsOf(image) {
  const name = clean(image.path);
  const cut = name.lastIndexOf("/");
  const soft = [cut > 0 ? name.slice(0, cut) : "", day(image)].filter(Boolean).join(" · ");
  const classed = image.label && classes(image)[0] !== image.path.split("/")[0] ? [make("p", { className: "soft", textContent: clean(image.label) })] : [];
  return make("div", { className: "words" },
    make("p", { textContent: name.slice(cut + 1), title: name }), make("p", { className: "soft", textContent: soft, title: soft }), ...classed);
}

function cardOf(image, wanted) {
  const text = described(image, wanted);
  const card = make("div", { className: "card", tabIndex: -1, data: { id: image.id } });
  card.setAttribute("role", "gridcell");
  card.setAttribute("aria-label", text);
  const frame = pictureOf(image, text);
  if (wanted.size && image.label) {
    const same = classes(image).some((name) => wanted.has(name));
    card.classList.add(same ? "same" : "other");
    frame.querySelector(".far")?.append(same ? " ✓" : " ✗");
    frame.append(make("span", { className: "bar" }));
  }
  const tools = make("div", { className: "tools" });
  for (const [sign, words] of [["+", "+ more like it"], ["−", "− less like it"], ["i", "details"]])
    tools.append(make("button", { type: "button", tabIndex: -1, textContent: words, data: { sign } }));
  card.append(frame, wordsOf(image), tools);
  images.set(image.id, image);
  return card;
}

function fill(found, wanted, kept = 0) {
  shown = found;
  const old = kept ? cells().slice(0, kept) : [];
  const all = [...old, ...found.slice(kept).map((image) => cardOf(image, wanted))];
  if (all.length && !all.some((cell) => cell.tabIndex === 0)) all[0].tabIndex = 0;
  rows(all);
}

const cells = () => [...$("grid").querySelectorAll(".card")];
const columns = () => getComputedStyle($("grid")).gridTemplateColumns.split(" ").length;

function rows(all) {
  const width = columns();
  const made = [];
  for (let start = 0; start < all.length; start += width) {
    const row = make("div", {}, ...all.slice(start, start + width));
    row.setAttribute("role", "row");
    made.push(row);
  }
  $("grid").replaceChildren(...made);
  $("grid").dataset.width = width;
}

function groupOf(group) {
  const members = [group.keeper, ...group.members];
  const list = make("div", { className: "members" });
  for (const [place, image] of members.entries()) {
    const frame = pictureOf(image, described(image, new Set()));
    if (!place) frame.append(make("span", { className: "kept", textContent: "Keep" }));
    const open = make("button", { type: "button", className: "away", textContent: `Details of ${clean(image.path)}` });
    const card = make("div", { className: place ? "card" : "card keeper" }, frame, wordsOf(image), open);
    card.onclick = () => details(members, place);
    list.append(card);
    images.set(image.id, image);
  }
  const copy = make("button", { type: "button", textContent: group.members.length === 1 ? "Copy path of the other" : "Copy paths of the others" });
  copy.onclick = () => copied(copy, group.members.map((image) => image.file).join("\n"));
  const ignore = make("button", { type: "button", textContent: "Not duplicates" });
  const box = make("section", { className: "group" },
    make("header", {}, make("h2", {}, `Keep ${clean(group.keeper.path)}`, make("small", { textContent: group.reason })), copy, ignore), list);
  ignore.onclick = async () => {
    try {
      await ask("/api/ignore", { method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ ids: members.map((image) => image.id) }) });
      const next = box.nextElementSibling ?? box.previousElementSibling;
      box.remove();
      (next?.querySelector("button") ?? $("to-duplicates")).focus();
      $("status").textContent = `Noted: these ${members.length} are not duplicates`;
    } catch (error) {
      tell(error.message);
    }
  };
  return box;
}

async function copied(button, text) {
  const before = button.textContent;
  try {
    await navigator.clipboard.writeText(text);
    button.textContent = "Copied";
  } catch {
    button.textContent = "Select it and press Ctrl-C";
  }
  setTimeout(() => (button.textContent = before), 1600);
}

function chip(name, address, sign, removes, note) {
  const picture = make("img", { alt: "", src: address, width: 76, height: 76 });
  const drop = make("button", { type: "button", textContent: "×" });
  drop.setAttribute("aria-label", `Remove ${name}`);
  drop.onclick = removes;
  const cut = name.lastIndexOf("/");
  const soft = [name.slice(0, Math.max(0, cut)), note].filter(Boolean).join(" · ");
  const words = make("p", { title: name }, name.slice(cut + 1), make("small", { textContent: soft }));
  return make("li", { className: sign === "−" ? "minus" : "" }, picture, words, drop);
}

const single = () => state.item.length + (state.upload ? 1 : 0) === 1 && !state.not.length;

function controls() {
  const grouped = state.view === "duplicates";
  document.body.classList.toggle("grouped", grouped);
  document.body.classList.toggle("has-query", queries() > 0);
  $("grid").hidden = grouped;
  $("groups").hidden = !grouped;
  $("to-search").toggleAttribute("aria-current", !grouped);
  $("to-duplicates").toggleAttribute("aria-current", grouped);
  for (const name of FIELDS) if (name !== "max") $(name).value = state[name];
  $("max-of").hidden = !grouped && !single();
  for (const name of ["in", "label", "newer", "older"]) $(name).parentElement.hidden = grouped || (name === "label" && !info?.labels.length);
  if (info?.bits) limit(Math.ceil(info.bits / (grouped ? 4 : 2)), null);
  $("clear").hidden = !NARROWING.some((name) => state[name] !== "" && (name === "max" || !grouped));
  $("clear").textContent = grouped ? "Automatic distance" : "Clear filters";
  chips();
}

// The slider: its end, and where it is as long as no distance is chosen (null: at the end).
function limit(top, automatic) {
  $("max").max = top;
  $("max").step = info?.bits ? 1 : top / 200;
  $("max").value = state.max === "" ? (automatic ?? top) : state.max;
  const open = state.view === "duplicates" ? (automatic === null ? "…" : `${number(automatic)} ${unit()} (automatic)`) : "any";
  $("max-text").textContent = state.max === "" ? open : `${number(Number(state.max))} ${unit()}`;
}

async function chips() {
  const mine = latest;
  await know([...state.item, ...state.not], undefined).catch(() => {});
  if (mine !== latest) return;
  const made = [];
  const sent = uploads.get(state.upload);
  if (sent) made.push(chip(clean(sent.name), sent.address, "+", () => go({ upload: "", not: state.item.length ? state.not : [] }), "your picture"));
  for (const [ids, sign] of [[state.item, "+"], [state.not, "−"]])
    for (const image of ids.map((id) => images.get(id)).filter(Boolean))
      made.push(chip(clean(image.path), image.thumb, sign, () => remove(image.id), sign === "+" ? "more like this" : "less like this"));
  $("chips").replaceChildren(...made);
}

// Details.

let listed = [];

function details(list, place) {
  listed = list;
  inDetails = place;
  const image = list[place];
  $("preview").alt = clean(image.path);
  $("preview").src = `/image/${image.id}`;
  $("details-name").textContent = clean(image.path);
  $("path").textContent = clean(image.file);
  $("original").href = `/original/${image.id}`;
  const facts = [["Distance", image.distance === undefined ? "" : `${number(image.distance)} ${unit()}`], ["Class", clean(image.label ?? "")],
    ["Size", `${image.width} × ${image.height}, ${bytes(image.bytes)}`], ["Taken", image.taken?.replace("T", " ")], ["Changed", image.modified.replace("T", " ")],
    ["State", image.state === "ok" ? "" : `${image.state} since indexing`]];
  $("facts").replaceChildren(...facts.filter(([, value]) => value).flatMap(([name, value]) => [make("dt", { textContent: name }), make("dd", { textContent: value })]));
  $("previous").disabled = place === 0;
  $("next").disabled = place === list.length - 1;
  if (!$("details").open) $("details").showModal();
}

function step(by) {
  if (listed[inDetails + by]) details(listed, inDetails + by);
}

// What the user does.

function cellOf(event) {
  return event.target.closest?.("#grid .card");
}

function activate(cell) {
  for (const other of $("grid").querySelectorAll('.card[tabindex="0"]')) other.tabIndex = -1;
  cell.tabIndex = 0;
}

$("grid").addEventListener("click", (event) => {
  const cell = cellOf(event);
  if (!cell) return;
  const id = Number(cell.dataset.id);
  const sign = event.target.dataset?.sign;
  activate(cell);
  if (sign === "i") return details(shown, shown.findIndex((image) => image.id === id));
  if (sign === "−" || event.shiftKey) return add(id, "−");
  if (sign === "+" || event.ctrlKey || event.metaKey) return add(id, "+");
  searchFrom(id);
});

$("grid").addEventListener("focusin", (event) => cellOf(event) && activate(cellOf(event)));

$("grid").addEventListener("keydown", (event) => {
  const cell = cellOf(event);
  if (!cell || event.ctrlKey || event.metaKey || event.altKey) return;
  const all = cells();
  const place = all.indexOf(cell);
  const width = columns();
  const page = width * Math.max(1, Math.floor(innerHeight / cell.offsetHeight));
  const moves = { ArrowLeft: -1, ArrowRight: 1, ArrowUp: -width, ArrowDown: width, PageUp: -page, PageDown: page, Home: -place, End: all.length - 1 - place };
  const id = Number(cell.dataset.id);
  if (event.key in moves) {
    const far = Math.abs(moves[event.key]) > width;
    const target = all[place + moves[event.key]] ?? (far ? all.at(moves[event.key] < 0 ? 0 : -1) : null);
    target?.focus();
  } else if (event.key === "Enter") searchFrom(id);
  else if (event.key === "+" || event.key === "=") add(id, "+");
  else if (event.key === "-" || event.key === "−") add(id, "−");
  else if (event.key === "i") details(shown, place);
  else return;
  event.preventDefault();
});

addEventListener("keydown", (event) => {
  if (event.ctrlKey || event.metaKey || event.altKey) return;
  if ($("details").open && (event.key === "ArrowLeft" || event.key === "ArrowRight")) return step(event.key === "ArrowLeft" ? -1 : 1);
  if (event.target.closest("input, select, dialog")) return;
  if (event.key === "/") {
    if ($("to-filters").offsetParent) document.body.classList.add("filtering");
    document.querySelector("#filters label:not([hidden]) :is(select, input)").focus();
  } else if (event.key === "?") $("help").showModal();
  else if (event.key === "Escape") tell(null);
  else return;
  event.preventDefault();
});

for (const name of FIELDS.filter((name) => name !== "max")) $(name).addEventListener("change", () => go({ [name]: $(name).value }));
let waiting;
$("max").addEventListener("input", () => {
  $("max-text").textContent = `${number(Number($("max").value))} ${unit()}`;
  clearTimeout(waiting);
  waiting = setTimeout(() => go({ max: $("max").value === $("max").max && !state.view ? "" : $("max").value }, { replace: state.max !== "" }), 120);
});
$("filters").addEventListener("submit", (event) => event.preventDefault());
$("to-filters").onclick = () => {
  const open = document.body.classList.toggle("filtering");
  $("to-filters").setAttribute("aria-expanded", open);
};
$("clear").onclick = () => go(Object.fromEntries(NARROWING.map((name) => [name, ""])));
$("home").onclick = (event) => {
  event.preventDefault();
  go({ ...PLAIN, view: "", upload: "", item: [], not: [] });
};
$("to-search").onclick = () => go({ view: "", max: "" });
$("to-duplicates").onclick = () => go({ view: "duplicates", max: "" });
$("to-help").onclick = () => $("help").showModal();
$("dismiss").onclick = () => tell(null);
$("more").onclick = () => following?.().catch((error) => (error.code === "revision_gone" ? load() : tell(error.message, () => $("more").click())));
$("copy").onclick = () => copied($("copy"), listed[inDetails].file);
$("previous").onclick = () => step(-1);
$("next").onclick = () => step(1);
$("close").onclick = () => $("details").close();
$("from-here").onclick = () => {
  $("details").close();
  searchFrom(listed[inDetails].id);
};
$("details").addEventListener("close", () => {
  $("preview").removeAttribute("src");
  const cell = cells().find((one) => Number(one.dataset.id) === listed[inDetails]?.id);
  cell?.focus();
});
$("file").addEventListener("change", () => {
  const [file] = $("file").files;
  if (file) upload(file);
  $("file").value = "";
});

function take(transfer) {
  const entries = [...(transfer.items ?? [])].map((item) => item.webkitGetAsEntry?.());
  if (entries.some((entry) => entry?.isDirectory)) return tell("That is a folder. `jaxret index FOLDER` makes an index of one; here, drop one picture.");
  if (transfer.files.length > 1) return tell(`Those are ${transfer.files.length} files. Drop one picture at a time.`);
  if (transfer.files.length === 1) return upload(transfer.files[0]);
  if ([...transfer.types].includes("text/uri-list")) return tell("jaxret opens no address. Copy the picture itself and paste it here.");
  if (transfer.types.length) tell("That is text. jaxret searches by picture: drop, paste or choose one.");
}

let depth = 0;
addEventListener("dragenter", (event) => {
  event.preventDefault();
  $("over").hidden = !++depth;
});
addEventListener("dragleave", () => ($("over").hidden = !(depth = Math.max(0, depth - 1))));
addEventListener("dragover", (event) => event.preventDefault());
addEventListener("drop", (event) => {
  event.preventDefault();
  depth = 0;
  $("over").hidden = true;
  take(event.dataTransfer);
});
addEventListener("paste", (event) => {
  if (event.target.closest?.("input") && !event.clipboardData.files.length) return;
  event.preventDefault();
  take(event.clipboardData);
});

addEventListener("popstate", () => {
  state = read();
  load();
});
new ResizeObserver(() => {
  if (shown.length && Number($("grid").dataset.width) !== columns()) {
    const active = document.activeElement;
    rows(cells());
    if (cellOf({ target: active })) active.focus({ preventScroll: true });
  }
}).observe($("grid"));

// Colours.

function paint(theme) {
  if (theme) document.documentElement.dataset.theme = theme;
  else delete document.documentElement.dataset.theme;
  $("theme").value = theme;
}
$("theme").addEventListener("change", () => {
  localStorage.setItem("theme", $("theme").value);
  paint($("theme").value);
});
paint(localStorage.getItem("theme") ?? "");

// Start.

async function introduce() {
  try {
    info = await ask("/api/info");
  } catch {
    return; // what is loaded beside it says why
  }
  const note = info.model === "look" ? " · similar in look, not in meaning" : "";
  $("about").textContent = `${clean(info.root)} · ${count(info.images, "image")}${note}`;
  $("about").title = $("about").textContent;
  for (const [id, names] of [["in", info.folders], ["label", info.labels]])
    $(id).append(...names.map(({ name, images: n }) => make("option", { value: name, textContent: `${clean(name)} (${n.toLocaleString("en")})` })));
  controls();
}

state = read();
introduce();
load();
