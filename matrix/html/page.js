"use strict";
// Shows tables that were compiled from the rules, and looks configs up in them. There is no rule in here.
const RULES = "https://github.com/omni-config/omni-config/blob/main/docs/rules/";
const $ = (id) => document.getElementById(id);
const make = (tag, properties = {}, ...children) => {
  const element = Object.assign(document.createElement(tag), properties);
  element.append(...children);
  return element;
};
let data;

async function unpack() {
  const bytes = Uint8Array.from(atob($("data").textContent.trim()), (c) => c.charCodeAt(0));
  const stream = new Blob([bytes]).stream().pipeThrough(new DecompressionStream("deflate"));
  return JSON.parse(await new Response(stream).text());
}

// ---- The matrix ----

function options(select, values, chosen) {
  select.replaceChildren(...values.map(([value, text]) => make("option", { value, textContent: text })));
  if (values.some(([value]) => value === chosen)) select.value = chosen;
}

const filters = () => ({
  engine: $("filter-engine").value, other: $("filter-other").value, task: $("filter-task").value,
  search: $("filter-search").value.trim(), model: $("filter-model").value,
  differing: $("filter-differing").checked,
});

// The models of an engine that are of the task and have every word of the search in their name, family or task.
function fitting(engine) {
  const { task, search } = filters();
  const words = search.toLowerCase().split(/\s+/);
  return Object.keys(data.engines[engine].models).filter((name) => {
    const about = data.models[name];
    const text = `${name} ${about.family} ${about.task.replaceAll("_", " ")}`.toLowerCase();
    return (!task || about.task === task) && words.every((word) => text.includes(word));
  });
}

function showFilters() {
  const { engine, other, task, model } = filters();
  const others = Object.keys(data.engines).filter((name) => name !== engine);
  options($("filter-other"), [["", "nothing"], ...others.map((name) => [name, name])], other);
  const tasks = [...new Set(Object.keys(data.engines[engine].models).map((name) => data.models[name].task))].sort();
  options($("filter-task"), [["", "all"], ...tasks.map((name) => [name, name.replaceAll("_", " ")])], task);
  options($("filter-model"), [["", "all"], ...fitting(engine).map((name) => [name, name])], model);
}

const REFUSED_ALONE = ["no", [], "one of the two is refused by itself"];
const cellAt = (number) => (number === undefined ? undefined : number < 0 ? REFUSED_ALONE : data.cells[number]);
const pairOf = (first, second) => [first, second].sort().join("+");

// The pairs of an engine for the chosen task or model, by the names of both features.
function pairsOf(engine) {
  const { task, model } = filters();
  const table = data.engines[engine];
  const numbers = (model ? table.model_pairs[model] : table.pairs[task]) ?? [];
  const found = new Map();
  let index = 0;
  table.features.forEach((first, at) => table.features.slice(at + 1).forEach(
    (second) => found.set(pairOf(first, second), cellAt(numbers[index++]))));
  return found;
}

const modelCell = (engine, name, feature) => {
  const table = data.engines[engine];
  return cellAt(table.models[name]?.[table.features.indexOf(feature)]);
};
const titleOf = (feature) => data.features[feature][0];

function showMatrix() {
  showFilters();
  const { engine, other, task, search, model, differing } = filters();
  const names = data.engines[engine].features;
  const [pairs, before] = [pairsOf(engine), other ? pairsOf(other) : undefined];
  grid($("pairs"), names.slice(0, -1).map(titleOf), names.slice(1).map((second, row) => [
    titleOf(second), names.slice(0, row + 1).map((first) => ({
      what: `${titleOf(first)} with ${titleOf(second)}`, key: pairOf(first, second), features: [first, second],
      cell: pairs.get(pairOf(first, second)), before: before?.get(pairOf(first, second)),
    })),
  ]));
  const shown = fitting(engine).filter((name) => !model || name === model);
  const rows = shown.map((name) => [name, names.map((feature) => ({
    what: `${titleOf(feature)} on ${name}`, key: `${feature}@${name}`, features: [feature], model: name,
    cell: modelCell(engine, name, feature), before: other ? modelCell(other, name, feature) : undefined,
  }))]).filter(([, cells]) => !other || !differing || cells.some(changed));
  grid($("models"), names.map(titleOf), rows);
  $("found").textContent = `${rows.length} of ${Object.keys(data.engines[engine].models).length} models`;
  showVersions(shown, model);
  showChanges(rows, pairs, before);
  $("shown").textContent = [engine, other && `compared with ${other}`, task.replaceAll("_", " "), search && `“${search}”`,
    model || "all models"].filter(Boolean).join(", ");
  keep();
}

const changed = ({ cell, before }) => cell !== undefined && before !== undefined && cell[0] !== before[0];

// Every engine that tells models apart, a column each: its verdicts on the chosen model, or of how many it has a feature.
function showVersions(shown, model) {
  const engines = Object.keys(data.engines);
  const features = Object.keys(data.features).filter((name) => engines.some((id) => data.engines[id].features.includes(name)));
  $("counted").textContent = model ? `What each version does with ${model}.`
    : "On how many of the models above each version runs a feature, of those that it names.";
  grid($("versions"), engines, features.map((feature) => [titleOf(feature), engines.map((id) => {
    const what = `${titleOf(feature)} in ${id}`;
    if (model) return { what, key: `${feature}@${model}@${id}`, features: [feature], model, engine: id,
      cell: modelCell(id, model, feature) };
    const known = shown.filter((name) => modelCell(id, name, feature));
    if (!known.length) return { what, key: `${feature}@@${id}`, features: [], cell: undefined };
    const runs = known.filter((name) => modelCell(id, name, feature)[0] !== "no");
    const verdict = runs.length === known.length ? "yes" : runs.length ? "only" : "no";
    const words = `on ${runs.length} of ${known.length} models${runs.length && runs.length < 12 ? `: ${runs.join(", ")}` : ""}`;
    return { what, key: `${feature}@@${id}`, features: [], cell: [verdict, [], words], text: `${runs.length}/${known.length}` };
  })]));
}

// What is otherwise in the engine that is shown than in the one that it is compared with: models by feature, and pairs.
function showChanges(rows, pairs, before) {
  const { engine, other } = filters();
  $("changes").hidden = !other;
  if (!other) return;
  const by = new Map();
  const note = (what, from, to, name) => {
    const key = `${what}: ${from} → ${to}`;
    by.set(key, [...(by.get(key) ?? []), name]);
  };
  for (const [name, cells] of rows)
    for (const one of cells.filter(changed)) note(titleOf(one.features[0]), one.before[0], one.cell[0], name);
  const models = [...by].map(([what, names]) => `${what} on ${names.length > 6 ? `${names.length} models` : names.join(", ")}`);
  const differing = [...pairs].filter(([key, cell]) => changed({ cell, before: before.get(key) }));
  const together = differing.map(([key, cell]) =>
    `${key.split("+").map(titleOf).join(" with ")}: ${before.get(key)[0]} → ${cell[0]}`);
  const gained = data.engines[engine].features.filter((name) => !data.engines[other].features.includes(name));
  const lines = [...models, ...together, ...gained.map((name) => `${titleOf(name)}: new`)];
  const count = [...by.values()].flat().length;
  $("counted-changes").textContent =
    `From ${other} to ${engine}: ${count} verdicts on models and ${differing.length} pairs differ.`;
  $("changes").querySelector("ul").replaceChildren(...lines.map((textContent) => make("li", { textContent })));
}

function grid(table, columns, rows) {
  const head = make("tr", {}, make("td"), ...columns.map(
    (title) => make("th", { scope: "col" }, make("span", { textContent: title }))));
  const body = rows.map(([title, cells]) => make("tr", {}, make("th", { scope: "row", textContent: title, title }),
    ...cells.map((one) => {
      const [verdict, , words] = one.cell ?? ["unknown", [], "nothing is said of it"];
      const text = one.text ?? (one.cell ? verdict : "–");
      const td = make("td", { className: verdict, textContent: changed(one) ? `${one.before[0]}→${verdict}` : text, tabIndex: -1 });
      td.classList.toggle("changed", changed(one));
      const was = changed(one) ? `, was ${one.before[0]}` : "";
      td.setAttribute("aria-label", `${one.what}: ${verdict}${was}${words ? `, ${words}` : ""}`);
      td.dataset.key = one.key;
      td.onmouseenter = () => showDetail(one);
      td.onfocus = () => { showDetail(one); keep(one.key); };
      return td;
    })));
  table.replaceChildren(make("thead", {}, head), make("tbody", {}, ...body));
  const first = table.querySelector("tbody td");
  if (first) first.tabIndex = 0;
  table.onkeydown = move;
}

function move(event) {
  const step = { ArrowLeft: [0, -1], ArrowRight: [0, 1], ArrowUp: [-1, 0], ArrowDown: [1, 0] }[event.key];
  if (!step || event.target.tagName !== "TD") return;
  const rows = event.target.closest("tbody").rows;
  const next = rows[event.target.parentElement.sectionRowIndex + step[0]]?.cells[event.target.cellIndex + step[1]];
  event.preventDefault();
  if (next?.tagName !== "TD") return;
  event.target.tabIndex = -1;
  next.tabIndex = 0;
  next.focus();
}

// What has not been run is a claim; an engine of which nothing has been run has no word about it.
function evidence(engine, { features, model }) {
  const runs = data.evidence[engine];
  if (!runs || !features.length) return [];
  const found = runs[[...features].sort().join("+")] ?? [];
  const named = model ? found.filter((line) => line.startsWith(model) || line.startsWith(data.models[model].pipeline)) : found;
  return named.length ? named : ["claimed: no run has shown it"];
}

// Where documentation, tables and source of an engine contradict each other about the features and the model.
const disputed = ({ features, model }) => data.disagreements.filter(
  ([, , , models, names]) => features.some((name) => names.includes(name)) && (!models.length || models.includes(model)));

function showDetail(one) {
  const { engine, other } = filters();
  const judge = one.engine ?? engine;
  const part = (title, lines) => (lines.length
    ? [make("h4", { textContent: title }), ...lines.map((line) => make("p", {}, ...[line].flat()))] : []);
  const said = ([verdict, codes, words], id) => [
    make("p", {}, make("strong", { textContent: verdict }), ` (${data.verdicts[verdict]}) in ${id}${words ? `: ${words}` : ""}`),
    ...codes.map((code) => make("p", {}, ruleLink(code), ` ${data.rules[code][0]}: ${data.rules[code][2]}`))];
  const codes = [...new Set([...(one.cell?.[1] ?? []), ...(one.before?.[1] ?? [])])];
  const link = make("a", { href: address(one.key), textContent: "Link to this cell" });
  $("detail").replaceChildren(
    make("p", {}, make("strong", { textContent: one.cell ? `${one.what}: ${one.cell[0]}` : `${one.what}: nothing is said of it` })),
    ...(one.cell ? said(one.cell, judge) : []),
    ...(one.before && changed(one) ? [make("h4", { textContent: "It was" }), ...said(one.before, other)] : []),
    ...(one.before && !changed(one) ? [make("p", { textContent: `The same in ${other}.` })] : []),
    ...part("Evidence", evidence(judge, one)),
    ...part("Where sources disagree", disputed(one).map(([topic, follows, why]) => `${topic}. Followed: ${follows} ${why}`)),
    ...part("Sources", [...codes.map((code) => [ruleLink(code), ` ${data.rules[code][3]}`]), `${judge}: ${data.engines[judge].source}`]),
    make("p", {}, link));
}

// ---- The address keeps what is chosen ----

const CONTROLS = { engine: "filter-engine", other: "filter-other", task: "filter-task", find: "filter-search", model: "filter-model" };
let cell = "";
let keeping;

function address(key) {
  const said = new URLSearchParams();
  for (const [name, id] of Object.entries(CONTROLS)) if ($(id).value.trim()) said.set(name, $(id).value.trim());
  if ($("filter-differing").checked) said.set("differing", "yes");
  if (key) said.set("cell", key);
  const settings = Object.keys(data.settings).filter((name) => chosenOf(name));
  if (settings.length || $("engine").value !== "native") {
    said.set("config", $("engine").value);
    said.set("of", $("model").value);
    for (const name of settings) said.set(name, JSON.stringify(data.settings[name][chosenOf(name)]));
  }
  return `#${said}`;
}

function keep(key = cell) {
  cell = key;
  clearTimeout(keeping);
  keeping = setTimeout(() => history.replaceState(null, "", address(cell)), 150);
}

// Sets all controls as an address says; true where it says any.
function restore() {
  const said = new URLSearchParams(location.hash.slice(1));
  if (!location.hash.includes("=")) return;
  $("filter-engine").value = said.get("engine") in data.engines ? said.get("engine") : "native";
  $("filter-search").value = said.get("find") ?? "";
  $("filter-differing").checked = said.has("differing");
  for (const name of ["other", "task", "model"]) {
    showFilters();
    const select = $(CONTROLS[name]);
    if ([...select.options].some((option) => option.value === said.get(name))) select.value = said.get(name);
  }
  if (said.get("config") in data.engines) {
    $("engine").value = said.get("config");
    chosen();
    if ([...$("model").options].some((option) => option.value === said.get("of"))) $("model").value = said.get("of");
    for (const name of Object.keys(data.settings)) {
      const number = data.settings[name].findIndex((value) => JSON.stringify(value) === said.get(name));
      if (isSwitch(name)) $(`set-${name}`).checked = number > 0; else $(`set-${name}`).value = String(Math.max(number, 0));
    }
  }
  cell = said.get("cell") ?? "";
}

function showCell() {
  const td = cell && document.querySelector(`td[data-key="${CSS.escape(cell)}"]`);
  if (!td) return;
  td.closest("tbody").querySelectorAll("td[tabindex='0']").forEach((other) => { other.tabIndex = -1; });
  td.tabIndex = 0;
  td.focus();
}

const ruleLink = (code) => make("a", { href: `${RULES}${code}.md`, textContent: code });

// ---- Looking a config up ----

function walk(number, settings, read) {
  let node = data.nodes[number];
  while (typeof node[0] === "string") {
    read?.add(node[0]);
    node = data.nodes[node[1 + settings[node[0]]]];
  }
  return node;
}

// Settings are numbers of their values. What the adjusting trees find is laid over what was written; the other trees
// are then asked about the result.
function look(engine, model, settings, read) {
  const [adjusting, deciding] = data.roots[engine][model];
  const found = adjusting.flatMap((root) => walk(root, settings));
  const adjusted = { ...settings };
  for (const finding of found)
    for (const [name, value] of Object.entries(data.findings[finding][3]))
      adjusted[name] = data.settings[name].indexOf(value);
  for (const root of deciding) {
    const names = read && new Set();
    const here = walk(root, adjusted, names);
    found.push(...here);
    if (read && here.some(isError)) names.forEach((name) => read.add(name));
  }
  return found;
}

const isError = (finding) => data.rules[data.findings[finding][0]][1] === "error";

// ---- The configurator ----

const spoken = (value) => (value === null ? "not said" : Array.isArray(value) ? "one" : String(value));
const isSwitch = (name) => data.settings[name].length === 2;

function buildConfig() {
  const choice = (id, text) => make("label", {}, text, make("select", { id }));
  const selects = Object.keys(data.settings).filter((name) => !isSwitch(name)).map((name) => {
    const label = choice(`set-${name}`, name);
    options(label.lastChild, data.settings[name].map((value, number) => [String(number), spoken(value)]));
    return label;
  });
  const switches = Object.keys(data.settings).filter(isSwitch).map((name) => {
    const on = data.settings[name][1];
    const text = typeof on === "string" ? `${name}: ${on}` : name;
    return make("label", { className: "switch" }, make("input", { type: "checkbox", id: `set-${name}` }), text);
  });
  $("config").append(choice("engine", "Engine"), choice("model", "Model"),
    make("fieldset", {}, make("legend", { textContent: "GPUs and degrees" }), ...selects),
    make("fieldset", {}, make("legend", { textContent: "Features" }), ...switches));
  options($("engine"), Object.keys(data.engines).map((name) => [name, name]), "native");
  $("config").addEventListener("change", showConfig);
  $("copy").onclick = copy;
}

const chosenOf = (name) => (isSwitch(name) ? Number($(`set-${name}`).checked) : Number($(`set-${name}`).value));

function chosen() {
  options($("model"), Object.keys(data.engines[$("engine").value].models).map((name) => [name, name]), $("model").value);
  const settings = {};
  for (const name of Object.keys(data.settings)) settings[name] = chosenOf(name);
  return settings;
}

let waiting;

function showConfig() {
  const settings = chosen();
  const [engine, model] = [$("engine").value, $("model").value];
  const read = new Set();
  const found = look(engine, model, settings, read);
  const errors = found.filter(isError).length;
  $("verdict").textContent = errors ? `Refused: ${errors} error${errors > 1 ? "s" : ""}.`
    : found.length ? "Runs, with remarks." : "Runs.";
  $("findings").replaceChildren(...found.map((number) => {
    const [code, message, fix] = data.findings[number];
    const [, severity, why] = data.rules[code];
    const item = make("li", { className: severity }, make("strong", { textContent: `${severity} ` }), ruleLink(code),
      make("span", { className: "message", textContent: ` ${message}` }), make("br"), `${why} Next: ${fix}.`);
    item.dataset.code = code;
    return item;
  }));
  $("yaml").textContent = yaml(engine, model, settings);
  $("copied").textContent = "";
  $("working").replaceChildren();
  clearTimeout(waiting);
  keep();
  if (errors) waiting = setTimeout(() => showWorking(engine, model, settings, [...read]), 200);
}

// The nearest configs without an error: other values of the settings that the errors read, fewest changes first.
function nearest(engine, model, settings, names) {
  const works = [];
  let looked = 0;
  const attempt = (changes, from, left) => {
    if (works.length >= 3 || looked > 20000) return;
    if (!left) {
      looked++;
      if (!look(engine, model, { ...settings, ...changes }).some(isError)) works.push(changes);
      return;
    }
    for (let index = from; index < names.length; index++)
      data.settings[names[index]].forEach((_, value) => {
        if (value !== settings[names[index]]) attempt({ ...changes, [names[index]]: value }, index + 1, left - 1);
      });
  };
  for (let count = 1; count <= names.length && !works.length; count++) attempt({}, 0, count);
  return works;
}

function showWorking(engine, model, settings, names) {
  const works = nearest(engine, model, settings, names.sort((a, b) => (a === "gpus") - (b === "gpus")));
  $("working").replaceChildren(make("h3", { textContent: works.length ? "What would work" : "Nothing near works" }),
    ...works.map((changes) => {
      const text = Object.entries(changes).map(([name, value]) => `${name}: ${spoken(data.settings[name][value])}`).join(", ");
      const button = make("button", { type: "button", textContent: text });
      button.onclick = () => {
        for (const [name, value] of Object.entries(changes))
          if (isSwitch(name)) $(`set-${name}`).checked = Boolean(value); else $(`set-${name}`).value = String(value);
        showConfig();
      };
      return button;
    }));
}

function yaml(engine, model, settings) {
  const lines = ["version: 1", `model: ${model}`, `engine: ${engine}`];
  const sections = new Map();
  for (const [name, number] of Object.entries(settings)) {
    if (!number) continue;
    const path = data.fields[name];
    const value = JSON.stringify(data.settings[name][number]);
    if (path.length === 1) lines.push(`${name}: ${value}`);
    else sections.set(path[0], [...(sections.get(path[0]) ?? []), `  ${path[1]}: ${value}`]);
  }
  for (const [section, inside] of sections) lines.push(`${section}:`, ...inside);
  return `${lines.join("\n")}\n`;
}

async function copy() {
  try {
    await navigator.clipboard.writeText($("yaml").textContent);
    $("copied").textContent = "Copied.";
  } catch {
    getSelection().selectAllChildren($("yaml"));
    $("copied").textContent = "Selected; copy with your keyboard.";
  }
}

unpack().then((unpacked) => {
  data = unpacked;
  options($("filter-engine"), Object.keys(data.engines).map((name) => [name, `${name}: ${data.engines[name].title}`]), "native");
  $("legend").append(...Object.entries(data.verdicts).map(
    ([name, words]) => make("li", { className: name, textContent: `${name}: ${words}` })));
  $("choose").open = $("changes").open = matchMedia("(min-width: 40rem)").matches;
  $("filters").addEventListener("change", showMatrix);
  $("filters").addEventListener("submit", (event) => event.preventDefault());
  $("filter-search").addEventListener("input", showMatrix);
  buildConfig();
  const show = () => {
    restore();
    showMatrix();
    showConfig();
    showCell();
  };
  addEventListener("hashchange", () => location.hash.includes("=") && show());
  show();
  document.body.dataset.ready = "yes";
});
