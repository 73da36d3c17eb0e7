"use strict";
// The gallery: filters, sorts and shows the photos of the page's data, a page at a time.
// What is shown is in the address behind the #, so that a view can be linked and gone back to:
// q (words), sort (index, id or a number's name), run, minus, desc, page, hide (runs), refs.

const report = JSON.parse(document.getElementById("data").textContent);
const PER_PAGE = 30;
const form = document.getElementById("controls");
const rows = document.getElementById("rows");
const pagers = [...document.querySelectorAll(".pager")];
let pictures = null;
let state = read();

/** Make an element; texts become text, never HTML. */
function make(tag, attributes = {}, ...children) {
  const found = document.createElement(tag);
  for (const [name, value] of Object.entries(attributes)) found.setAttribute(name, value);
  found.append(...children);
  return found;
}

/** The view that the address asks for; what it does not say is as usual. */
function read() {
  const given = new URLSearchParams(location.hash.slice(1));
  const runs = report.runs.length;
  const place = (name, least) => {
    const value = Number.parseInt(given.get(name), 10);
    return value >= least && value < runs ? value : least;
  };
  const sort = given.get("sort");
  return {
    q: given.get("q") || "",
    sort: sort === "id" || report.metrics.some((one) => one.key === sort) ? sort : "index",
    run: place("run", 0),
    minus: place("minus", -1),
    desc: given.get("desc") === "1",
    page: Math.max(0, (Number.parseInt(given.get("page"), 10) || 1) - 1),
    hide: new Set((given.get("hide") || "").split(",").filter(Boolean).map(Number)),
    refs: given.get("refs") !== "0",
  };
}

/** Put the view into the address, without what is as usual. */
function write() {
  const given = new URLSearchParams();
  if (state.q) given.set("q", state.q);
  if (state.sort !== "index") given.set("sort", state.sort);
  if (isMetric()) {
    given.set("run", state.run);
    if (state.minus >= 0) given.set("minus", state.minus);
  }
  if (state.desc) given.set("desc", "1");
  if (state.page) given.set("page", state.page + 1);
  if (state.hide.size) given.set("hide", [...state.hide].join(","));
  if (!state.refs) given.set("refs", "0");
  const text = given.toString();
  history.replaceState(null, "", text ? `#${text}` : "#gallery");
}

function isMetric() {
  return state.sort !== "index" && state.sort !== "id";
}

/** A caption's number; null where it has none. */
function number(photo, run, metric) {
  const [text, given] = photo[2][run];
  return text === null ? null : given[metric];
}

/** What a photo is sorted by; null comes last. */
function keyOf(photo, metric) {
  const own = number(photo, state.run, metric);
  if (state.minus < 0 || own === null) return own;
  const other = number(photo, state.minus, metric);
  return other === null ? null : own - other;
}

/** The numbers of the photos that are shown, in order. */
function chosen() {
  const words = state.q.toLowerCase().split(/\s+/).filter(Boolean);
  const places = report.photos.map((_, place) => place).filter((place) => {
    if (!words.length) return true;
    const [id, references, captions] = report.photos[place];
    const texts = captions.filter((_, run) => !state.hide.has(run)).map(([text, why]) => text ?? why);
    const all = [id, ...references, ...texts].join("\n").toLowerCase();
    return words.every((word) => all.includes(word));
  });
  const sign = state.desc ? -1 : 1;
  if (state.sort === "id") {
    const order = new Intl.Collator("en", { numeric: true }).compare;
    places.sort((a, b) => sign * order(report.photos[a][0], report.photos[b][0]));
  } else if (isMetric()) {
    const metric = report.metrics.findIndex((one) => one.key === state.sort);
    const keys = new Map(places.map((place) => [place, keyOf(report.photos[place], metric)]));
    places.sort((a, b) => {
      const [x, y] = [keys.get(a), keys.get(b)];
      if (x === null || y === null) return (x === null) - (y === null) || a - b;
      return sign * (x - y) || a - b;
    });
  } else if (state.desc) {
    places.reverse();
  }
  return places;
}

/** A number with the digits of its metric and a true minus sign. */
function told(value, metric, signed = false) {
  const text = Math.abs(value).toFixed(metric.digits);
  return (value < 0 ? "−" : signed ? "+" : "") + text;
}

/** The run with the best number of a photo, if it is better than another's. */
function bestOf(photo, place) {
  const better = report.metrics[place].better;
  if (better === "neither") return -1;
  const found = photo[2]
    .map((_, run) => [number(photo, run, place), run])
    .filter(([value, run]) => value !== null && !state.hide.has(run));
  if (found.length < 2) return -1;
  const sign = better === "higher" ? 1 : -1;
  found.sort((a, b) => sign * (b[0] - a[0]));
  return found[0][0] === found[1][0] ? -1 : found[0][1];
}

/** A text with the words of the filter marked. */
function marked(text) {
  const words = state.q.split(/\s+/).filter(Boolean).sort((a, b) => b.length - a.length);
  if (!words.length) return [text];
  const pattern = words.map((word) => word.replace(/[.*+?^${}()|[\]\\]/g, "\\$&")).join("|");
  return text.split(new RegExp(`(${pattern})`, "gi")).map((part, place) => (place % 2 ? make("mark", {}, part) : part));
}

function caption(photo, run, places, best) {
  const { name, colour } = report.runs[run];
  const [text, given] = photo[2][run];
  const dot = make("i", { class: "dot", style: `background:${colour}` });
  const head = make("div", { class: "whose" }, dot, name);
  if (text === null) return make("div", { class: "caption lost" }, head, make("p", {}, ...marked(given)));
  const numbers = places.filter((place) => given[place] !== null).map((place) => {
    const metric = report.metrics[place];
    const value = make(best.get(place) === run ? "b" : "span", {}, told(given[place], metric));
    return make("span", {}, `${metric.short} `, value);
  });
  return make(
    "div", { class: "caption" }, head,
    make("p", {}, ...(text ? marked(text) : [make("em", {}, "empty caption")])),
    make("div", { class: "values" }, ...numbers),
  );
}

function card(place, shownMetrics) {
  const photo = report.photos[place];
  const [id, references, captions] = photo;
  const data = pictures[place];
  const picture = data
    ? make("img", { src: `data:image/jpeg;base64,${data}`, alt: `photo ${id}`, decoding: "async" })
    : make("div", { class: "blank" }, pictures.length ? "no photo" : "");
  const best = new Map(shownMetrics.map((metric) => [metric, bestOf(photo, metric)]));
  const shown = captions.map((_, run) => run).filter((run) => !state.hide.has(run));
  const head = make("div", { class: "photo-id" }, id);
  if (isMetric() && state.minus >= 0) {
    const at = report.metrics.findIndex((one) => one.key === state.sort);
    const value = keyOf(photo, at);
    const metric = report.metrics[at];
    if (value !== null) head.append(make("span", { class: "badge" }, `${metric.title} ${told(value, metric, true)}`));
  }
  const body = make(
    "div", { class: "said" }, head,
    make("div", { class: "captions" }, ...shown.map((run) => caption(photo, run, shownMetrics, best))),
  );
  if (state.refs && references.length) {
    const items = references.map((text) => make("li", {}, ...marked(text)));
    body.append(make("ul", { class: "references", "aria-label": "references" }, ...items));
  }
  return make("article", { class: pictures.length ? "row" : "row bare" }, picture, body);
}

/** Show the view. */
function render() {
  pictures ??= JSON.parse(document.getElementById("photos").textContent);
  const places = chosen();
  const last = Math.max(0, Math.ceil(places.length / PER_PAGE) - 1);
  state.page = Math.min(state.page, last);
  const first = state.page * PER_PAGE;
  const now = places.slice(first, first + PER_PAGE);
  const sorted = report.metrics.findIndex((one) => one.key === state.sort);
  const metrics = report.metrics.map((_, place) => place)
    .filter((place) => report.metrics[place].shown || place === sorted);
  rows.replaceChildren(...now.map((place) => card(place, metrics)));
  if (!now.length) rows.append(make("p", { class: "soft" }, "No photo matches all of these words."));
  for (const pager of pagers) {
    pager.hidden = false;
    const range = now.length ? `${first + 1} to ${first + now.length} of ` : "";
    pager.querySelector("output").textContent = `${range}${places.length} photo${places.length === 1 ? "" : "s"}`;
    const [back, on] = pager.querySelectorAll("button");
    back.disabled = state.page === 0;
    on.disabled = state.page === last;
  }
  form.q.value === state.q || (form.q.value = state.q);
  form.sort.value = state.sort;
  form.run.value = state.run;
  form.minus.value = state.minus;
  for (const label of form.querySelectorAll("[data-metric]")) label.hidden = !isMetric();
  form.desc.setAttribute("aria-pressed", state.desc);
  form.desc.textContent = state.desc ? "↓ descending" : "↑ ascending";
  for (const box of form.querySelectorAll("[name=shown]")) box.checked = !state.hide.has(Number(box.value));
  form.refs.checked = state.refs;
}

/** Change the view; what is chosen anew begins at its first page. */
function change(changes) {
  state = { ...state, page: 0, ...changes };
  write();
  render();
}

function setUp() {
  const option = (value, text) => make("option", { value }, text);
  form.sort.append(option("index", "order of the data set"), option("id", "id"));
  form.sort.append(...report.metrics.map((one) => option(one.key, one.title)));
  form.run.append(...report.runs.map((one, run) => option(run, one.name)));
  form.minus.append(option(-1, "nothing"), ...report.runs.map((one, run) => option(run, one.name)));
  const chip = (attributes, ...inside) =>
    make("label", { class: "chip" }, make("input", { type: "checkbox", ...attributes }), ...inside);
  const chips = report.runs.length < 2 ? [] : report.runs.map((one, run) =>
    chip({ name: "shown", value: run }, make("i", { class: "dot", style: `background:${one.colour}` }), one.name));
  form.querySelector("fieldset").append(...chips, chip({ name: "refs" }, "references"));
  form.hidden = false;
  form.addEventListener("submit", (event) => event.preventDefault());
  form.q.addEventListener("input", () => change({ q: form.q.value }));
  form.addEventListener("change", (event) => {
    const { name, value } = event.target;
    if (name === "sort") change({ sort: value });
    if (name === "run" || name === "minus") change({ [name]: Number(value) });
    if (name === "refs") change({ refs: event.target.checked, page: state.page });
    if (name === "shown") {
      const hide = new Set(state.hide);
      if (event.target.checked) hide.delete(Number(value));
      else hide.add(Number(value));
      change({ hide, page: state.page });
    }
  });
  form.desc.addEventListener("click", () => change({ desc: !state.desc }));
  for (const pager of pagers) {
    pager.addEventListener("click", (event) => {
      const by = Number(event.target.dataset.by);
      if (!by) return;
      change({ page: state.page + by });
      if (pager === pagers[1]) pagers[0].scrollIntoView();
    });
  }
  // A link to a part of the page is no view.
  addEventListener("hashchange", () => {
    if (!location.hash.includes("=")) return;
    state = read();
    render();
  });
}

setUp();
render();
// A view that came by an address is shown, not the top of the page.
if (location.hash.includes("=")) document.getElementById("gallery").scrollIntoView();
