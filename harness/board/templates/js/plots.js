// Plots with Vega-Lite. Names are data of a plot, never part of its specification, so they cannot become expressions;
// expressions of the specification itself are interpreted, not compiled, which the page's policy asks for.
let plotting = false; // whether Vega has loaded
const views = new Map(); // what is drawn where, to draw it again in another theme or width

const token = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();
const themed = () => {
  const [ink, soft, line] = [token("ink"), token("soft"), token("line")];
  return {
    background: "transparent",
    font: getComputedStyle(document.body).fontFamily,
    view: { stroke: null },
    axis: { labelColor: soft, titleColor: soft, titleFontWeight: 500, titleFontSize: 12, labelFontSize: 11, gridColor: line, gridDash: [2, 4], domainColor: line, tickColor: line, titlePadding: 10, labelLimit: 120 },
    legend: { labelColor: ink, titleColor: soft, labelFontSize: 12, symbolStrokeWidth: 2.5, orient: "bottom", title: null, labelLimit: 220, columns: 4 },
    text: { color: ink },
    range: { category: [0, 1, 2, 3, 4, 5].map((n) => token(`c${n}`)) },
  };
};

const tip = el("div", { class: "tip", hidden: true, role: "presentation" });
document.body.append(tip);
const showTip = (_, event, item, value) => {
  tip.hidden = !value || !item.datum || !item.datum.tip;
  if (tip.hidden) return;
  (document.querySelector("dialog[open]") || document.body).append(tip); // a dialog lies above all else
  tip.replaceChildren(...item.datum.tip.map((line, n) => el(n ? "span" : "b", {}, line)));
  const [width, height] = [tip.offsetWidth, tip.offsetHeight];
  tip.style.left = `${Math.max(8, Math.min(event.clientX + 14, innerWidth - width - 12))}px`;
  tip.style.top = `${Math.max(8, event.clientY - height - 12)}px`;
};

// Draws `spec(width)` into a host and keeps it current; `label` says in words what is to be seen.
const plot = (host, label, spec, onClick = null) => {
  const draw = () => {
    if (!plotting || !host.isConnected || !host.clientWidth) return;
    const before = views.get(host);
    if (before && before.view) before.view.finalize();
    host.replaceChildren();
    const compiled = vegaLite.compile({ ...spec(host.clientWidth), config: themed() }).spec;
    const view = new vega.View(vega.parse(compiled, null, { ast: true }), { expr: vega.expressionInterpreter, renderer: "svg", container: host, hover: true, logLevel: vega.Error });
    view.tooltip(showTip).description(label);
    if (onClick) view.addEventListener("click", (_, item) => item && item.datum && item.datum.at !== undefined && onClick(item.datum.at));
    views.set(host, { draw, view });
    view.runAsync();
  };
  views.set(host, { draw });
  draw();
};
const redraw = () => {
  for (const [host, { draw, view }] of [...views]) {
    if (host.isConnected) draw();
    else {
      if (view) view.finalize();
      views.delete(host);
    }
  }
};
let waiting = 0;
addEventListener("resize", () => {
  clearTimeout(waiting);
  waiting = setTimeout(redraw, 150);
});
for (const change of ["(prefers-color-scheme: dark)", "print"]) matchMedia(change).addEventListener("change", redraw);

const LABELLED = 14; // entries that are named in the plot; beyond, only those on the frontier are
const LINE = 0.045; // the height of a name, as a share of the plot's
const MARKED = 400; // entries that are drawn: those on the frontier and the first of the ranking

const costPlot = (host, tab, rows) => {
  const cost = COSTS[state.cost];
  const overall = isOverall(tab);
  const byChange = overall && state.quality === "change";
  const value = (row) => (!overall ? row.tasks[cardOf(tab)][0] : byChange ? row.change && row.change[0] / 100 : row.mean);
  const interval = (row) => (!overall ? row.tasks[cardOf(tab)].slice(1) : byChange ? row.change.slice(1).map((v) => v / 100) : null);
  const known = rows.filter((row) => row.cost[state.cost] > 0 && value(row) !== null);
  const marks = known.map((row) => ({ at: row.at, name: row.name, cost: row.cost[state.cost] * cost.scale, quality: 100 * value(row), raw: row.cost[state.cost], interval: interval(row) }));
  const best = new Set(frontier(marks, cost.lower).map((mark) => mark.at));
  const quality = byChange ? "\u0394m, %" : overall && tableOf(tab).tasks.length > 1 ? "mean over tasks, %" : `${tableOf(tab).tasks[tab.task ?? 0].main}, %`;
  if (known.length < 2) {
    host.replaceChildren(el("p", { class: "note" }, "Fewer than two entries here have this cost on record."));
    return;
  }
  const drawn = marks.filter((mark, n) => n < MARKED || best.has(mark.at));
  const values = drawn.map((mark) => ({
    at: mark.at, name: mark.name.length > 26 ? `${mark.name.slice(0, 25)}\u2026` : mark.name, cost: mark.cost, quality: mark.quality,
    low: mark.interval ? 100 * mark.interval[0] : mark.quality, high: mark.interval ? 100 * mark.interval[1] : mark.quality,
    front: best.has(mark.at) ? 1 : 0, named: best.has(mark.at) || marks.length <= LABELLED ? 1 : 0,
    tip: [mark.name, `${byChange ? signed(mark.quality) : mark.quality.toFixed(2)} (${quality})`, `${cost.text(mark.raw)} (${cost.title.replace(" in minutes", "")})`, best.has(mark.at) ? "on the frontier" : "dominated"],
  }));
  const costs = values.map((one) => one.cost);
  const logarithmic = Math.max(...costs) > 3 * Math.min(...costs);
  // A name stands on the side of its mark that has room.
  const across = logarithmic ? Math.log : Number;
  const [first, last] = [Math.min(...costs.map(across)), Math.max(...costs.map(across))];
  for (const one of values) one.side = (last > first && (across(one.cost) - first) / (last - first) > 0.66) === cost.lower ? "left" : "right";
  // Names of marks that all but cover each other stand one above another, those of the frontier first. One that would have
  // to stand far from its mark is left to the pointer.
  const qualities = values.flatMap((one) => [one.low, one.high]);
  const height = Math.max(...qualities) - Math.min(...qualities) || 1;
  const placed = [];
  values.sort((a, b) => b.front - a.front);
  for (const one of values.filter((each) => each.named)) {
    const [x, y] = [(across(one.cost) - first) / (last - first || 1), (one.quality - Math.min(...qualities)) / height];
    const taken = (lift) => placed.some((other) => other.side === one.side && Math.abs(other.x - x) < 0.2 && Math.abs(other.y - y - LINE * lift) < 0.8 * LINE);
    one.lift = 0;
    while (one.lift < LABELLED && taken(one.lift)) one.lift += 1;
    if (one.lift > 2 && !one.front) one.named = 0;
    else placed.push({ side: one.side, x, y: y + LINE * one.lift });
  }
  values.reverse(); // the frontier is drawn last, over marks that it all but covers
  const named = ({ side, lift }) => ({
    transform: [{ filter: { field: "named", equal: 1 } }, { filter: { field: "side", equal: side } }, { filter: { field: "lift", equal: lift } }],
    mark: { type: "text", align: side === "left" ? "right" : "left", dx: side === "left" ? -9 : 9, dy: -8 - 13 * lift, fontSize: 11.5, cursor: "pointer", limit: 180 },
    encoding: { text: { field: "name", type: "nominal" } },
  });
  const spec = (width) => ({
    width: width - 10, height: width < 520 ? 280 : 340, autosize: { type: "fit", contains: "padding" },
    data: { values },
    encoding: {
      x: { field: "cost", type: "quantitative", title: cost.title + (logarithmic ? ", logarithmic" : ""), scale: { ...(logarithmic ? { type: "log" } : { zero: false }), nice: !logarithmic, padding: 28, reverse: !cost.lower }, axis: { format: cost.axis, grid: false, tickCount: width < 520 ? 4 : 7, labelOverlap: true } },
      y: { field: "quality", type: "quantitative", title: quality, scale: { zero: false, padding: 14 }, axis: { tickCount: 6 } },
    },
    layer: [
      { transform: [{ filter: { field: "front", equal: 1 } }], mark: { type: "line", interpolate: cost.lower ? "step-after" : "step-before", stroke: token("accent"), strokeWidth: 1.5, strokeDash: [5, 4], opacity: 0.75, tooltip: false } },
      { mark: { type: "rule", stroke: token("soft"), opacity: 0.35, strokeWidth: 1.5 }, encoding: { y: { field: "low", type: "quantitative" }, y2: { field: "high" } } },
      { mark: { type: "point", filled: true, size: 90, opacity: 1, stroke: token("card"), strokeWidth: 1.5, cursor: "pointer", tooltip: { content: "data" } }, encoding: { color: { field: "front", type: "nominal", scale: { domain: [0, 1], range: [token("soft"), token("accent")] }, legend: null } } },
      ...["left", "right"].flatMap((side) => [...new Set(values.map((one) => one.lift ?? 0))].map((lift) => named({ side, lift }))),
    ],
  });
  const names = marks.filter((mark) => best.has(mark.at)).map((mark) => mark.name).join(", ");
  plot(host, `${quality} against ${cost.title} of ${marks.length} entries. On the frontier: ${names}.`, spec, (at) => (location.hash = `#entry/${encodeURIComponent(entries[at].key)}`));
};

// One group of learning curves: a line per curve and seed, the curve told by its colour.
const curvePlot = (host, group) => {
  const several = group.curves.length > 1;
  const values = group.curves.flatMap((curve) =>
    curve.seeds.flatMap(({ seed, points: marks }) => marks.map(([step, value]) => ({ step, value, curve: curve.name, seed, tip: [curve.name, `step ${step.toLocaleString("en")}: ${value}`, `seed ${seed}`] }))),
  );
  // Losses of several tasks differ by orders of magnitude, and the last of them are what matters.
  const all = values.map((one) => one.value);
  const logarithmic = group.group === "loss" && Math.min(...all) > 0;
  const decades = [-6, -5, -4, -3, -2, -1, 0, 1, 2, 3, 4, 5, 6].map((power) => Number(`1e${power}`));
  const scale = logarithmic ? { type: "log", nice: false } : { zero: false };
  const spec = (width) => ({
    width: width - 6, height: 170, autosize: { type: "fit-x", contains: "padding" },
    data: { values },
    mark: { type: "line", strokeWidth: 1.6, opacity: 0.85, interpolate: "linear", strokeJoin: "round", tooltip: { content: "data" } },
    encoding: {
      x: { field: "step", type: "quantitative", title: "step", axis: { grid: false, tickCount: 5, format: "~s" } },
      y: { field: "value", type: "quantitative", title: logarithmic ? "logarithmic" : null, scale, axis: { format: "~g", ...(logarithmic ? { values: decades } : { tickCount: 5 }) } },
      color: { field: "curve", type: "nominal", legend: several ? { columns: width < 520 ? 1 : 3 } : null },
      detail: { field: "seed" },
    },
  });
  plot(host, `${group.group} over steps: ${group.curves.map((curve) => curve.name).join(", ")}`, spec);
};
