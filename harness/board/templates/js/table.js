// The ranking of a tab: TanStack Table sorts, filters and pages; without it the rows stay in the order of the ranks.
const PAGE = 50;
let library = null; // TanStack's table core, once it has loaded
let grid = null;

const columnsOf = (tab, rows) => {
  const table = tableOf(tab);
  const numeric = (id, header, value, cell, first = "ascending", note = null) => ({ id, header, value, cell, first, note, kind: "number" });
  const cost = [
    numeric("parameters", "Parameters", (row) => row.cost.parameters, (row) => quantity(row.cost.parameters)),
    numeric("macs", "MACs", (row) => row.cost.macs, (row) => quantity(row.cost.macs), "ascending", ["per image"]),
    numeric("train_seconds", "Training", (row) => row.cost.train_seconds, (row) => duration(row.cost.train_seconds)),
  ].filter((column) => rows.some((row) => column.value(row) !== null));
  const name = { id: "name", header: "Entry", value: (row) => row.name.toLowerCase(), cell: entryCell, first: "ascending", kind: "entry" };
  if (!isOverall(tab)) {
    const task = table.tasks[tab.task];
    const scale = rangeOf(rows.map((row) => row.tasks[task.card]));
    const differences = rows.filter((row) => row.toBest).map((row) => [row.toBest.difference, row.toBest.low, row.toBest.high]);
    const extent = extentOf(differences);
    return [
      { id: "rank", header: "#", value: (row) => row.taskRank, cell: taskRankCell, first: "ascending", kind: "rank" },
      name,
      { id: "value", header: data.taskNames[task.task], note: [task.card, task.main], value: (row) => row.tasks[task.card][0], cell: (row) => valueCell(row.tasks[task.card], scale, null, 240), first: "descending", kind: "task" },
      ...(differences.length ? [{ id: "toBest", header: "To the first", note: ["paired, points"], value: (row) => (row.toBest ? row.toBest.difference : row.at === rows[0].at ? 0 : null), cell: (row) => toBestCell(row, rows[0], extent), first: "descending", kind: "task" }] : []),
      ...cost,
    ];
  }
  const changes = rows.filter((row) => row.change).map((row) => row.change);
  const extent = extentOf(changes);
  const byChange = state.criterion === "change";
  return [
    { id: "rank", header: "#", value: (row) => (byChange ? row.changeRank ?? null : row.rank), cell: (row) => (byChange ? row.changeRank ?? DASH : row.rank), first: "ascending", kind: "rank" },
    name,
    ...table.tasks.map((task, n) => {
      const scale = rangeOf(rows.map((row) => row.tasks[task.card]));
      const shared = sharedRanks(rows, n);
      return { id: `task-${n}`, header: data.taskNames[task.task], note: [task.card, task.main], value: (row) => row.tasks[task.card][0], cell: (row) => valueCell(row.tasks[task.card], scale, place(row.ranks[n], shared.has(row.ranks[n]), row.leaders[n] === row.at ? null : entries[row.leaders[n]].name)), first: "descending", kind: "task" };
    }),
    ...(changes.length ? [{ id: "change", header: "\u0394m", note: ["against single tasks, %"], value: (row) => (row.change ? row.change[0] : null), cell: (row) => changeCell(row, extent), first: "descending", kind: "task" }] : []),
    numeric("meanRank", "Mean rank", (row) => row.meanRank, (row) => row.meanRank.toFixed(2)),
    ...cost,
  ];
};

const sharedRanks = (rows, n) => {
  const sizes = new Map();
  for (const row of rows) sizes.set(row.ranks[n], (sizes.get(row.ranks[n]) || 0) + 1);
  return new Set([...sizes].filter(([, size]) => size > 1).map(([rank]) => rank));
};
const place = (rank, shared, leader) => {
  const text = shared ? (leader ? `rank ${rank}, cannot be told apart from ${leader}` : `rank ${rank}, leads a group that a paired test cannot tell apart`) : `rank ${rank}`;
  return el("span", { class: rank === 1 ? "place first" : "place", title: shared ? text : null }, el("span", { "aria-hidden": "true" }, `${rank}${shared ? "=" : ""}`), el("span", { class: "hidden" }, text));
};
const valueCell = (interval, scale, chip, width) => [
  el("span", { class: "headline" }, el("b", {}, percent(interval[0])), chip),
  intervalBar(interval, scale, width),
  el("small", {}, `${percent(interval[1])} to ${percent(interval[2])}`),
];
const changeCell = (row, extent) =>
  row.change
    ? [el("span", { class: "headline" }, el("b", {}, signed(row.change[0]))), changeBar(row.change, extent), el("small", {}, `${signed(row.change[1])} to ${signed(row.change[2])}`), row.changeSeeds ? el("small", {}, row.changeSeeds) : null]
    : el("small", {}, "no baselines");
const toBestCell = (row, best, extent) => {
  if (row.at === best.at) return el("small", {}, "first");
  if (!row.toBest) return el("small", {}, "not computed");
  const clear = row.taskRank !== best.taskRank;
  return [el("span", { class: "headline" }, el("b", {}, points(row.toBest.difference))), differenceBar(row.toBest, extent, clear), el("small", {}, clear ? "told apart" : "cannot be told apart")];
};
const taskRankCell = (row) => {
  const tied = row.group > 1;
  return [
    `${row.taskRank} `,
    tied ? el("span", { class: "tie", title: `${row.group} entries that a paired test cannot tell apart from ${entries[row.leader].name}` }, "tied") : null,
    tied ? el("span", { class: "hidden" }, `, shared by ${row.group} entries`) : null,
  ];
};
const entryLink = (at) => el("a", { href: `#entry/${encodeURIComponent(entries[at].key)}` }, entries[at].name);
const entryCell = (row) => [
  entryLink(row.at),
  row.about.length ? el("small", {}, row.about.join(" \u00b7 ")) : null,
  el("small", {}, `${row.fingerprint} \u00b7 ${count(row.seeds, "seed")} \u00b7 ${row.trust}`, row.warnings ? [" \u00b7 ", el("span", { class: "warn" }, count(row.warnings, "warning"))] : null),
];

const searched = (row) => `${row.name} ${row.key} ${row.about.join(" ")} ${row.trust}`.toLowerCase();
const passes = (row) =>
  (!state.trust || row.trust === state.trust) &&
  (!state.backbone || row.backbone === state.backbone) &&
  state.search.toLowerCase().split(/\s+/).every((word) => searched(row).includes(word));

// A grid: `rows()` are those on the current page, in order, and `sort(id)`, `page(n)` change that.
const gridOf = (columns, rows) => {
  if (!library) {
    return { rows: () => rows.slice(0, PAGE), total: () => rows.length, sorting: () => ({ id: "rank", desc: false }), index: () => 0, pages: () => 1 };
  }
  const ranked = (row) => columns[0].value(row) ?? Infinity;
  const collator = new Intl.Collator("en", { numeric: true });
  const order = (a, b, id) => {
    const [one, other] = [a.getValue(id), b.getValue(id)];
    return (typeof one === "string" ? collator.compare(one, other) : one - other) || 0;
  };
  let current;
  const table = library.createTable({
    data: [...rows].sort((a, b) => ranked(a) - ranked(b)),
    columns: columns.map((column) => ({ id: column.id, accessorFn: (row) => column.value(row) ?? undefined, sortingFn: order, sortUndefined: "last" })),
    state: {},
    onStateChange: (change) => {
      current = typeof change === "function" ? change(current) : change;
      table.setOptions((options) => ({ ...options, state: current }));
    },
    globalFilterFn: (row) => passes(row.original),
    getColumnCanGlobalFilter: () => true,
    enableSortingRemoval: false,
    autoResetPageIndex: false,
    renderFallbackValue: null,
    getCoreRowModel: library.getCoreRowModel(),
    getFilteredRowModel: library.getFilteredRowModel(),
    getSortedRowModel: library.getSortedRowModel(),
    getPaginationRowModel: library.getPaginationRowModel(),
  });
  current = { ...table.initialState, sorting: [{ id: "rank", desc: false }], pagination: { pageIndex: 0, pageSize: PAGE }, globalFilter: "all" };
  table.setOptions((options) => ({ ...options, state: current }));
  return {
    rows: () => table.getRowModel().rows.map((row) => row.original),
    total: () => table.getFilteredRowModel().rows.length,
    sorting: () => current.sorting[0],
    sort: (id, first) => {
      const now = current.sorting[0];
      table.setSorting([{ id, desc: now.id === id ? !now.desc : first === "descending" }]);
      table.setPageIndex(0);
    },
    filter: () => {
      table.setGlobalFilter(`${state.search}|${state.trust}|${state.backbone}`);
      table.setPageIndex(0);
    },
    index: () => current.pagination.pageIndex,
    pages: () => table.getPageCount(),
    page: (index) => table.setPageIndex(index),
  };
};

const drawTable = (host, tab, all) => {
  const columns = columnsOf(tab, all);
  grid = gridOf(columns, all);
  const body = el("tbody");
  const heads = columns.map((column) => {
    const text = library
      ? el("button", { type: "button", on: { click: () => { grid.sort(column.id, column.first); fill(); } } }, column.header, el("span", { class: "arrow", "aria-hidden": "true" }))
      : column.header;
    return el("th", { scope: "col", class: column.kind }, text, (column.note || []).map((line) => el("small", {}, line)));
  });
  const pager = el("nav", { class: "pager", "aria-label": "Pages" });
  const fill = () => {
    const sorting = grid.sorting();
    columns.forEach((column, n) => heads[n].setAttribute("aria-sort", column.id !== sorting.id ? "none" : sorting.desc ? "descending" : "ascending"));
    const rows = grid.rows();
    const grouped = !isOverall(tab) && sorting.id === "rank" && !sorting.desc;
    body.replaceChildren(...rows.map((row, n) => {
      const opens = grouped && row.group > 1 && (n === 0 || rows[n - 1].taskRank !== row.taskRank);
      const closes = grouped && row.group > 1 && (n === rows.length - 1 || rows[n + 1].taskRank !== row.taskRank);
      const box = el("input", { type: "checkbox", "aria-label": `Compare ${row.name}`, checked: state.chosen.includes(row.at), on: { change: (event) => choose(row.at, event.target.checked) } });
      return el(
        "tr",
        { class: [grouped && row.group > 1 && "tied", opens && "opens", closes && "closes"].filter(Boolean).join(" ") || null },
        columns.map((column) =>
          column.kind === "entry" ? el("th", { scope: "row", class: "entry" }, column.cell(row)) : el("td", { class: column.kind }, column.kind === "rank" ? el("label", { class: "pick" }, box) : null, column.cell(row)),
        ),
      );
    }));
    if (!rows.length) body.replaceChildren(el("tr", {}, el("td", { class: "none", colspan: columns.length }, "No entry fits.")));
    const [first, total] = [grid.index() * PAGE, grid.total()];
    const turn = (text, by, off) => el("button", { type: "button", disabled: off, on: { click: () => { grid.page(grid.index() + by); fill(); } } }, text);
    pager.replaceChildren(
      el("span", { role: "status" }, total === all.length ? (total > PAGE ? `${first + 1} to ${Math.min(total, first + PAGE)} of ${total.toLocaleString("en")}` : count(total, "entry", "entries")) : `${total.toLocaleString("en")} of ${count(all.length, "entry", "entries")}`),
      ...(grid.pages() > 1 ? [turn("Previous", -1, grid.index() === 0), turn("Next", 1, grid.index() + 1 >= grid.pages())] : []),
    );
  };
  host.replaceChildren(
    el("div", { class: "scroll", tabindex: "0", role: "region", "aria-label": `Ranking: ${tab.label}, ${tab.note}` }, el("table", { class: "grid" }, el("thead", {}, el("tr", {}, heads)), body)),
    pager,
  );
  fill();
  return { refill: fill, filter: () => { if (library) grid.filter(); fill(); } };
};
