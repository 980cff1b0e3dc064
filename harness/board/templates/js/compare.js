// Two entries or more side by side; differences are those that the board computed, corrected for how many are shown.
const MOST = 6;

const choose = (at, on) => {
  state.chosen = on ? [...state.chosen.filter((one) => one !== at), at].slice(-MOST) : state.chosen.filter((one) => one !== at);
  for (const box of document.querySelectorAll(".pick input")) {
    const name = box.getAttribute("aria-label");
    if (!state.chosen.some((one) => `Compare ${entries[one].name}` === name)) box.checked = false;
  }
  drawTray();
};
const compareAddress = (chosen) => `#compare/${chosen.map((at) => encodeURIComponent(entries[at].key)).join("/")}`;

const tray = el("div", { class: "tray", role: "region", "aria-label": "Chosen for comparison", hidden: true });
const drawTray = () => {
  tray.hidden = !state.chosen.length;
  tray.replaceChildren(
    el("span", { role: "status", class: "tray-names" }, state.chosen.map((at, n) => [n ? ", " : "", el("b", {}, entries[at].name)])),
    state.chosen.length > 1
      ? el("a", { class: "button primary", href: compareAddress(state.chosen) }, `Compare ${state.chosen.length}`)
      : el("span", { class: "note" }, "choose another one to compare"),
    el("button", { type: "button", on: { click: () => { for (const at of [...state.chosen]) choose(at, false); } } }, "Clear"),
  );
};

const compareDialog = (chosen) => {
  let reference = chosen[chosen.length - 1];
  const body = el("div");
  const dialog = dialogOf("compare", `Compare ${chosen.length} entries`, body);
  const draw = () => {
    const others = chosen.filter((at) => at !== reference);
    const radios = chosen.map((at) =>
      el("label", { class: "choice" }, el("input", { type: "radio", name: "reference", checked: at === reference, on: { change: () => { reference = at; draw(); dialog.querySelector("input[name=reference]:checked").focus(); } } }), " ", entries[at].name),
    );
    body.replaceChildren(
      el("fieldset", { class: "choices" }, el("legend", {}, "Differences against"), radios),
      differences(others, reference),
      costTable(chosen, reference),
      settingsTable(chosen),
      el("section", {}, el("h3", {}, "On the command line"), el("p", { class: "note" }, "With \u0394m, breakdowns by class, size or question type, and as JSON with --json:"), others.map((at) => copyable("code", `harness compare ${quoted(at)} ${quoted(reference)}`))),
    );
  };
  draw();
  return dialog;
};
const quoted = (at) => (/^[\w.@-]+$/.test(entries[at].key) ? entries[at].key : `'${entries[at].key.replaceAll("'", "'\\''")}'`);

const differences = (others, reference) => {
  const cards = [...new Set(Object.keys(entries[reference].tasks))].filter((card) => others.some((at) => entries[at].tasks[card]));
  if (!cards.length) return el("p", { class: "alert" }, "These entries have no task in common.");
  const lines = cards.flatMap((card) => others.filter((at) => entries[at].tasks[card]).map((at) => ({ card, at, pair: pairOf(at, reference, card) })));
  const known = lines.filter((line) => line.pair);
  holm(known.map((line) => line.pair.p)).forEach((p, n) => (known[n].p = p));
  const missing = lines.length - known.length;
  return el(
    "section",
    {},
    el("h3", {}, "Paired differences"),
    el("p", { class: "note" }, `Percentage points on the same images, with 95% intervals; right of the line, the entry is better than ${entries[reference].name}. p-values are Holm corrected over the ${count(known.length, "difference")} shown; filled: told apart.`),
    cards.map((card) => {
      const own = lines.filter((line) => line.card === card);
      const shown = [reference, ...own.map((line) => line.at)];
      const scale = rangeOf(shown.map((at) => entries[at].tasks[card]).filter(([value]) => value !== null));
      const extent = extentOf(own.filter((line) => line.pair).map(({ pair }) => [pair.difference, pair.low, pair.high]));
      const cell = (at) => el("td", { class: "task" }, entries[at].tasks[card][0] === null ? DASH : valueCell(entries[at].tasks[card], scale));
      return el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Differences on ${card}` }, el(
        "table",
        { class: "grid versus" },
        el("caption", {}, card),
        el("thead", {}, el("tr", {}, ["Entry", "Value", "Difference", "p (Holm)", "Outcome"].map((text) => el("th", { scope: "col" }, text)))),
        el(
          "tbody",
          {},
          el("tr", {}, el("th", { scope: "row", class: "entry" }, entryLink(reference)), cell(reference), el("td", { colspan: 3, class: "note" }, "reference")),
          own.map(({ at, pair, p }) => el(
            "tr",
            {},
            el("th", { scope: "row", class: "entry" }, entryLink(at)),
            cell(at),
            pair
              ? [
                  el("td", { class: "task" }, el("span", { class: "headline" }, el("b", {}, points(pair.difference))), differenceBar(pair, extent, p < data.limits.significance), el("small", {}, `${points(pair.low)} to ${points(pair.high)}`)),
                  el("td", { class: "number" }, p < 0.001 ? "< 0.001" : p.toFixed(3)),
                  el("td", {}, outcome(pair, p), el("small", {}, `${count(pair.images, "image")}${p >= data.limits.significance && pair.needed ? `; about ${pair.needed.toLocaleString("en")} would be needed` : ""}`)),
                ]
              : el("td", { colspan: 3, class: "note" }, "not on this page, see below"),
          )),
        ),
      ));
    }),
    missing ? el("p", { class: "alert" }, `${count(missing, "difference")} not on this page: differences are computed for the first ${data.limits.pairs} entries of each table, each with each, under equal protocols. The command below computes any.`) : null,
  );
};
const outcome = (pair, p) => {
  const [kind, text] = p >= data.limits.significance ? ["open", "cannot be told apart"] : pair.difference > 0 ? ["better", "better"] : ["worse", "worse"];
  return el("span", { class: `verdict ${kind}` }, text);
};

const costTable = (chosen, reference) => {
  const cards = Object.keys(entries[reference].macs).filter((card) => chosen.every((at) => card in entries[at].macs));
  const macs = (at) => (cards.length ? cards.reduce((sum, card) => sum + entries[at].macs[card], 0) / cards.length : null); // on equal tasks
  const valueOf = (at, key) => (key === "macs" ? macs(at) : entries[at].cost[key]);
  const rows = Object.entries(COSTS).filter(([key]) => chosen.some((at) => valueOf(at, key) !== null));
  if (!rows.length) return null;
  const cell = (at, key, cost) => {
    const [value, base] = [valueOf(at, key), valueOf(reference, key)];
    return el("td", { class: "number" }, cost.text(value), at !== reference && value && base ? el("small", {}, `${(value / base).toFixed(2)}\u00d7`) : null);
  };
  return el("section", {}, el("h3", {}, "Cost"), el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Cost" }, el(
    "table",
    { class: "grid" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Cost"), chosen.map((at) => el("th", { scope: "col", class: "number" }, entries[at].name)))),
    el("tbody", {}, rows.map(([key, cost]) => el("tr", {}, el("th", { scope: "row" }, cost.name), chosen.map((at) => cell(at, key, cost))))),
  )));
};

const settingsTable = (chosen) => {
  const known = chosen.filter((at) => data.details[at] && Object.keys(data.details[at].settings).length);
  if (known.length < 2) return null;
  const tables = known.map((at) => data.details[at].settings);
  const taskOf = (key) => (/^tasks\[[^\]]*\]/.exec(key) || [""])[0];
  const tasksOf = tables.map((settings) => new Set(Object.keys(settings).map(taskOf)));
  const everywhere = (task) => tasksOf.every((tasks) => tasks.has(task));
  // A task that only some of them have is one difference, not one for each of its settings.
  const value = (n, key) => (key === taskOf(key) ? (tasksOf[n].has(key) ? "trained" : DASH) : tables[n][key] ?? DASH);
  const all = new Set(tables.flatMap((settings) => Object.keys(settings).map((key) => (taskOf(key) && !everywhere(taskOf(key)) ? taskOf(key) : key))));
  const differing = [...all].filter((key) => !["name", "description", "seeds"].includes(key) && new Set(tables.map((_, n) => value(n, key))).size > 1);
  return el("section", {}, el("h3", {}, "Settings that differ"), !differing.length ? el("p", { class: "note" }, "None.") : el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": "Settings that differ" }, el(
    "table",
    { class: "grid settings" },
    el("thead", {}, el("tr", {}, el("th", { scope: "col" }, "Setting"), known.map((at) => el("th", { scope: "col" }, entries[at].name)))),
    el("tbody", {}, differing.map((key) => el("tr", {}, el("th", { scope: "row" }, el("code", {}, key)), known.map((_, n) => el("td", {}, value(n, key)))))),
  )));
};
