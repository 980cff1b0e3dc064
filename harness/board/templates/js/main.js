// The page: tabs, tools, and which dialog the address asks for.
const MISSING = "Plots, sorting and search need the folder assets/ beside this page; harness leaderboard writes it.";
const host = document.getElementById("board");
let drawn = null;

const hashOf = (tab) => (tab === data.tabs[0] ? "#" : `#tab/${tab.id}`);

const segmented = (legend, options, chosen, onChange) =>
  el("fieldset", { class: "segmented" }, el("legend", {}, legend), options.map(([value, text]) =>
    el("label", {}, el("input", { type: "radio", name: legend, value, checked: value === chosen, on: { change: () => onChange(value) } }), el("span", {}, text))));

const selection = (label, values, key) => {
  const known = [...new Set(values)].filter(Boolean).sort();
  if (known.length < 2) return null;
  return el("label", { class: "filter" }, el("span", {}, label), el("select", { on: { change: (event) => { state[key] = event.target.value; drawn.filter(); } } }, el("option", { value: "" }, "all"), known.map((value) => {
    const option = el("option", { value }, value);
    option.selected = state[key] === value;
    return option;
  })));
};

const tools = (tab, rows) => {
  if (!library) return el("p", { class: "note" }, MISSING);
  const search = el("input", { type: "search", placeholder: "name, backbone, method\u2026", autocomplete: "off", spellcheck: "false", on: { input: (event) => { state.search = event.target.value; drawn.filter(); } } });
  search.value = state.search;
  return [
    rows.some((row) => row.change) ? segmented("Rank by", [["rank", "mean rank"], ["change", "\u0394m"]], state.criterion, (value) => { state.criterion = value; draw(); }) : null,
    el("label", { class: "filter" }, el("span", {}, "Search"), search),
    selection("Backbone", rows.map((row) => row.backbone), "backbone"),
    selection("Trust", rows.map((row) => row.trust), "trust"),
  ];
};

const protocol = (tab) => {
  const tasks = isOverall(tab) ? tableOf(tab).tasks : [tableOf(tab).tasks[tab.task]];
  const fields = ["card_version", "split", "metric", "metric_version", "images", "annotations"];
  return el("details", { class: "inner" }, el("summary", {}, "Protocol"), el("p", { class: "note" }, "What all entries of this table have in common; the last two columns are hashes of the image list and of the ground truth."), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Protocol" }, el(
    "table",
    { class: "plain" },
    el("thead", {}, el("tr", {}, ["card", "images", "version", "split", "metric", "its version", "image list", "ground truth"].map((text) => el("th", { scope: "col" }, text)))),
    el("tbody", {}, tasks.map((task) => el("tr", {}, el("th", { scope: "row" }, task.card), el("td", {}, task.images.toLocaleString("en")), fields.map((field) => el("td", {}, String(task.protocol[field]).slice(0, 16)))))),
  )));
};

const tradeOff = (tab, rows) => {
  const place = el("div", { class: "plot" });
  const show = () => (plotting ? costPlot(place, tab, rows) : place.replaceChildren(el("p", { class: "note" }, MISSING)));
  const section = el(
    "section",
    { class: "card" },
    el("div", { class: "bar-head" },
      el("div", {}, el("h2", {}, "Quality against cost"), el("p", { class: "note" }, "Up and to the left is better. The dashed line joins what no other entry beats in both.", isOverall(tab) && state.quality === "mean" ? " A mean over tasks mixes units: use it to find candidates, and paired differences to decide." : "")),
      el("div", { class: "tools" },
        isOverall(tab) && rows.some((row) => row.change) ? segmented("Quality", [["mean", "mean"], ["change", "\u0394m"]], state.quality, (value) => { state.quality = value; show(); }) : null,
        segmented("Cost", Object.entries(COSTS).map(([key, cost]) => [key, cost.name]), state.cost, (value) => { state.cost = value; show(); }))),
    place,
  );
  requestAnimationFrame(show);
  return section;
};

const draw = () => {
  const tab = state.tab;
  const rows = rowsOf(tab);
  const ranking = el("div");
  const table = tableOf(tab);
  const tabs = data.tabs.map((one) => el("button", { type: "button", role: "tab", id: `tab-${one.id}`, "aria-selected": String(one === tab), tabindex: one === tab ? "0" : "-1", "aria-controls": "panel", on: { click: () => (location.hash = hashOf(one)) } }, one.label, el("small", {}, one.note)));
  const move = (event) => {
    const step = { ArrowRight: 1, ArrowLeft: -1, Home: -data.tabs.indexOf(tab), End: data.tabs.length - 1 - data.tabs.indexOf(tab) }[event.key];
    if (step === undefined) return;
    event.preventDefault();
    location.hash = hashOf(data.tabs[(data.tabs.indexOf(tab) + step + data.tabs.length) % data.tabs.length]);
  };
  const note = isOverall(tab)
    ? `${count(rows.length, "entry", "entries")} with all ${table.tasks.length} tasks, under equal protocols.`
    : `${count(rows.length, "entry", "entries")} on the same ${count(table.tasks[tab.task].images, "image")}. Entries in one bracket cannot be told apart from the best of them by a paired test.`;
  // What had the keyboard's attention keeps it, although it is drawn anew.
  const active = host.contains(document.activeElement) ? document.activeElement : null;
  const again = !active ? null : active.getAttribute("role") === "tab" ? "[role=tab][aria-selected=true]" : active.type === "radio" ? `input[name="${active.name}"]:checked` : null;
  host.replaceChildren(
    el("div", { class: "tabs", role: "tablist", "aria-label": "Rankings", on: { keydown: move } }, tabs),
    el("div", { id: "panel", role: "tabpanel", "aria-labelledby": `tab-${tab.id}` },
      el("section", { class: "card ranking" },
        el("div", { class: "bar-head" }, el("div", {}, el("h2", {}, isOverall(tab) ? "Ranking over all tasks" : `Ranking on ${cardOf(tab)}`), el("p", { class: "note" }, note)), el("div", { class: "tools" }, tools(tab, rows))),
        ranking,
        protocol(tab)),
      tradeOff(tab, rows)),
    tray,
  );
  drawn = drawTable(ranking, tab, rows);
  if (library) drawn.filter();
  drawTray();
  if (again) host.querySelector(again).focus();
};

// #tab/<id>, #entry/<key>, #compare/<key>/<key>…: each address shows the same to everybody who has the page.
const route = () => {
  const [kind, ...parts] = location.hash.slice(1).split("/");
  const keys = parts.map((part) => { try { return decodeURIComponent(part); } catch { return ""; } });
  const found = keys.map((key) => byKey.get(key)).filter((at) => at !== undefined);
  for (const open of document.querySelectorAll("dialog[open]")) {
    open.dataset.replaced = "yes";
    open.close();
  }
  let dialog = null;
  if (kind === "entry" && found.length) dialog = entryDialog(found[0]);
  else if (kind === "compare" && new Set(found).size > 1) dialog = compareDialog([...new Set(found)].slice(0, MOST));
  else {
    const tab = (kind === "tab" && data.tabs.find((one) => one.id === keys[0])) || data.tabs[0];
    if (tab && tab !== state.tab) {
      state.tab = tab;
      draw();
    }
  }
  if (!dialog) return;
  dialog.addEventListener("close", () => {
    if (!dialog.dataset.replaced && state.tab) history.replaceState(null, "", hashOf(state.tab));
    else if (!dialog.dataset.replaced) history.replaceState(null, "", "#");
  });
  document.body.append(dialog);
  dialog.showModal();
  dialog.querySelector("h2").focus();
};

// The two libraries. Their addresses are fixed, and the policy below lets no other script in.
const FILES = { table: "assets/table.js", plots: "assets/plots.js" };
const policy = window.trustedTypes
  ? window.trustedTypes.createPolicy("board", { createScriptURL: (address) => (Object.values(FILES).includes(address) ? address : "") })
  : { createScriptURL: (address) => address };
const load = (address) =>
  new Promise((resolve) => {
    const script = document.createElement("script");
    script.src = policy.createScriptURL(address);
    script.addEventListener("load", () => resolve(true));
    script.addEventListener("error", () => resolve(false));
    document.head.append(script);
  });

const start = async () => {
  if (data.tabs.length) {
    library = (await load(FILES.table)) ? window.TableCore : null;
    document.getElementById("plain").remove();
    host.hidden = false;
    draw();
  }
  if (location.hash.length > 1) route();
  addEventListener("hashchange", route);
  if (!entries.length) return;
  plotting = await load(FILES.plots);
  if (!plotting) return;
  if (state.tab) draw();
  if (document.querySelector("dialog.entry[open]")) route(); // its curves
};
start();
