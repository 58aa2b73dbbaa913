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

function showFilters() {
  const { engine, task, model } = filters();
  const known = Object.keys(data.engines[engine].models);
  const tasks = [...new Set(known.map((name) => data.models[name].task))].sort();
  options($("filter-task"), [["", "all"], ...tasks.map((name) => [name, name.replaceAll("_", " ")])], task);
  const fitting = known.filter((name) => !$("filter-task").value || data.models[name].task === $("filter-task").value);
  options($("filter-model"), [["", "all"], ...fitting.map((name) => [name, name])], model);
}

const filters = () => ({
  engine: $("filter-engine").value, task: $("filter-task").value, model: $("filter-model").value,
});

function showMatrix() {
  showFilters();
  const { engine, task, model } = filters();
  const table = data.engines[engine];
  const names = table.features;
  const titles = names.map((name) => data.features[name][0]);
  const numbers = model ? table.model_pairs[model] : table.pairs[task];
  const cellOf = new Map();
  let index = 0;
  for (let first = 0; first < names.length; first++)
    for (let second = first + 1; second < names.length; second++) cellOf.set(`${first} ${second}`, numbers[index++]);
  const rows = names.slice(1).map((_, row) => [titles[row + 1], titles.slice(0, row + 1).map((title, column) => {
    const number = cellOf.get(`${column} ${row + 1}`);
    const cell = number < 0 ? ["no", [], "one of the two is refused by itself"] : data.cells[number];
    return [`${title} with ${titles[row + 1]}`, cell, [names[column], names[row + 1]]];
  })]);
  grid($("pairs"), titles.slice(0, -1), rows);
  const shown = Object.keys(table.models).filter(
    (name) => (!model || name === model) && (!task || data.models[name].task === task));
  grid($("models"), titles, shown.map((name) => [name, table.models[name].map(
    (number, column) => [`${titles[column]} on ${name}`, data.cells[number], [names[column]]])]));
}

function grid(table, columns, rows) {
  const head = make("tr", {}, make("td"), ...columns.map(
    (title) => make("th", { scope: "col" }, make("span", { textContent: title }))));
  const body = rows.map(([title, cells]) => make("tr", {}, make("th", { scope: "row", textContent: title, title }),
    ...cells.map(([what, cell, features]) => {
      const [verdict, , words] = cell;
      const td = make("td", { className: verdict, textContent: verdict, tabIndex: -1 });
      td.setAttribute("aria-label", `${what}: ${verdict}${words ? `, ${words}` : ""}`);
      td.onmouseenter = td.onfocus = () => showDetail(what, cell, evidence(features));
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
function evidence(features) {
  const runs = data.evidence[filters().engine];
  return runs ? runs[[...features].sort().join("+")] ?? ["claimed: no run has shown it"] : [];
}

function showDetail(what, [verdict, codes, words], shown) {
  $("detail").replaceChildren(
    make("p", {}, make("strong", { textContent: `${what}: ${verdict}` }), ` (${data.verdicts[verdict]})`),
    ...[...(words ? [words] : []), ...shown].map((textContent) => make("p", { textContent })),
    ...codes.map((code) => make("p", {}, ruleLink(code), ` ${data.rules[code][0]}: ${data.rules[code][2]}`)));
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

function chosen() {
  options($("model"), Object.keys(data.engines[$("engine").value].models).map((name) => [name, name]), $("model").value);
  const settings = {};
  for (const name of Object.keys(data.settings))
    settings[name] = isSwitch(name) ? Number($(`set-${name}`).checked) : Number($(`set-${name}`).value);
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
  $("filters").addEventListener("change", showMatrix);
  buildConfig();
  showMatrix();
  showConfig();
  document.body.dataset.ready = "yes";
});
