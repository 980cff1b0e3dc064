// One entry in full.
const outlineTable = (rows) =>
  el("table", { class: "metrics text" }, el("tbody", {}, rows.map(([label, text, depth]) => el("tr", {}, el("th", { scope: "row", class: `depth-${Math.min(depth, 4)}` }, label), el("td", {}, text)))));

const entryDialog = (at) => {
  const entry = entries[at];
  const detail = data.details[at];
  if (!detail) {
    return dialogOf("entry", entry.name, el("p", { class: "note" }, `${entry.key}. This page holds the first ${data.limits.details} entries in full; this one's numbers are in board.json, and all of it in records/.`));
  }
  const sections = [
    ["Numbers", numbers(detail)],
    ["Examples", gallery(detail)],
    ["Between tasks", between(detail)],
    ["Learning curves", curves(detail)],
    ...detail.more.map(([title, rows]) => [title, outlineTable(rows)]),
    ["Cost", outlineTable(detail.cost)],
    ["Reproduce", reproduce(entry, detail)],
    ["Provenance", outlineTable([["trust", entry.trust, 0], ...detail.provenance, ["records", detail.records.join(", "), 0]])],
  ].filter(([, content]) => content);
  return dialogOf(
    "entry",
    entry.name,
    el("p", { class: "note" }, [...entry.about, entry.fingerprint, `seed${detail.seeds.length > 1 ? "s" : ""} ${detail.seeds.join(", ")}`].filter(Boolean).join(" \u00b7 ")),
    detail.problems.length ? el("div", { class: "alert" }, el("b", {}, "Not ranked: "), detail.problems.join("; ")) : null,
    detail.warnings.length ? el("div", { class: "alert" }, el("b", {}, "Know before you quote:"), el("ul", {}, detail.warnings.map((text) => el("li", {}, text)))) : null,
    sections.map(([title, content]) => el("section", {}, el("h3", {}, title), content)),
  );
};

const numbers = (detail) => {
  const missing = detail.baselines.missing;
  return [
    el("div", { class: "numbers" }, detail.tasks.map((task) => el(
      "div",
      { class: "task-card" },
      el("h4", {}, task.card, el("small", {}, `${data.taskNames[task.task]} \u00b7 ${count(task.images, "image")}`)),
      el("p", { class: "big" }, percent(task.value), el("small", {}, ` ${task.main}${task.interval ? `, ${percent(task.interval[0])} to ${percent(task.interval[1])}` : ""}`)),
      task.seeds.length > 1 ? el("p", { class: "note" }, `by seed: ${task.seeds.map((value) => percent(value)).join(", ")}${task.spread === null ? "" : ` (standard deviation ${percent(task.spread)})`}`) : null,
      el("table", { class: "metrics" }, el("tbody", {}, task.metrics.map(([name, value]) => el("tr", {}, el("th", { scope: "row" }, name), el("td", {}, percent(value)))))),
      task.classes.length ? fold(`By class (${task.classes.length})`, classTable(task)) : null,
      task.more.length ? fold("More", outlineTable(task.more)) : null,
      fold("Protocol", outlineTable(task.protocol)),
    ))),
    missing.length ? el("p", { class: "note" }, `No \u0394m: single-task baselines of this recipe are missing for ${missing.join(", ")} (harness submit --with-baselines trains them).`) : null,
  ];
};
const fold = (title, content) => el("details", { class: "more" }, el("summary", {}, title), el("div", { class: "tall" }, content));
const classTable = (task) => {
  const known = [...task.classes].sort((a, b) => (b[1] ?? -1) - (a[1] ?? -1));
  return el("table", { class: "metrics classes" }, el("tbody", {}, known.map(([name, value]) => el(
    "tr",
    {},
    el("th", { scope: "row" }, name),
    el("td", { class: "share" }, value === null ? null : svg("svg", { class: "share", viewBox: "0 0 100 8", preserveAspectRatio: "none", "aria-hidden": "true" }, svg("rect", { class: "track", width: 100, height: 8, rx: 2 }), svg("rect", { class: "fill", width: Math.max(0, Math.min(100, 100 * value)).toFixed(1), height: 8, rx: 2 }))),
    el("td", {}, percent(value)),
  ))));
};

const gallery = (detail) => {
  const shown = detail.gallery;
  if (!shown) return null;
  if (shown.problem) return el("p", { class: "alert" }, shown.problem);
  return shown.sheets.map((sheet) => el(
    "div",
    { class: "gallery" },
    el("h4", {}, sheet.card, el("small", {}, `seed ${shown.seed} \u00b7 ${sheet.panels.join(" | ")} \u00b7 ${sheet.note}`)),
    el("div", { class: "tiles" }, sheet.examples.map((example) => {
      const words = example.lines.map(([label, text]) => `${label}: ${text}`).join("; ");
      return el(
        "figure",
        {},
        // The viewBox cuts the example out of the task's one picture.
        svg("svg", { class: "picture", viewBox: `0 ${example.y} ${example.width} ${example.height}`, width: example.width, height: example.height, role: "img", "aria-label": `${sheet.panels.join(", ")} of image ${example.id}. ${words}` },
          svg("image", { href: sheet.file, width: sheet.width, height: sheet.height })),
        el("figcaption", {}, el("span", { class: `side ${example.side}` }, example.side), " ", el("b", {}, percent(example.value, 1)), " ", el("span", { class: "id" }, example.id), example.lines.map(([label, text]) => el("span", { class: "line" }, el("i", {}, label), " ", text))),
      );
    })),
  ));
};

const curves = (detail) => {
  if (!detail.curves.length) return null;
  if (!plotting) return el("p", { class: "note" }, MISSING);
  const hosts = detail.curves.map((group) => [group, el("div", { class: "plot" })]);
  requestAnimationFrame(() => hosts.forEach(([group, host]) => curvePlot(host, group))); // once they are on the page
  return [
    detail.seeds.length > 1 ? el("p", { class: "note" }, "One line per seed.") : null,
    el("div", { class: "plots" }, hosts.map(([group, host]) => el("figure", {}, el("figcaption", {}, group.group), host))),
  ];
};

const between = (detail) => {
  const { matrices, sentences } = detail.between;
  if (!matrices.length && !sentences.length) return null;
  return [
    matrices.length ? el("p", { class: "note" }, "Rows act on columns where a matrix is not symmetric. Bold: the interval excludes 0, or the information exceeds chance. Transfer and leave-one-out are percentage points with intervals over images and seeds; other intervals are over seeds.") : null,
    el("div", { class: "matrices" }, matrices.map((matrix) => el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": matrix.title }, el(
      "table",
      { class: "heat" },
      el("caption", {}, matrix.title),
      el("thead", {}, el("tr", {}, el("td", {}), matrix.tasks.map((task) => el("th", { scope: "col" }, task)))),
      el("tbody", {}, matrix.rows.map((row, n) => el("tr", {}, el("th", { scope: "row" }, matrix.tasks[n]), row.map((cell) =>
        cell ? el("td", { class: `${cell[0]}${cell[3] ? " clear" : ""}` }, cell[1], cell[2] ? el("small", {}, cell[2]) : null) : el("td", { class: "undefined" }, DASH))))),
    )))),
    sentences.length ? el("ul", { class: "note" }, sentences.map((text) => el("li", {}, text))) : null,
  ];
};

const reproduce = (entry, detail) => {
  if (!detail.config) return el("p", { class: "note" }, "Predictions that were handed in: the record holds no submission.");
  return [
    el("p", { class: "note" }, `Save the submission as ${detail.rerun.split(" ")[2]}, then run`),
    copyable("code", detail.rerun),
    el("p", { class: "note" }, "The whole submission, with all defaults written out:"),
    copyable("pre", detail.config),
  ];
};
