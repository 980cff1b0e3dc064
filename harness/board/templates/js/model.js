// The data of the page, what is chosen on it, and what follows from both.
const data = JSON.parse(document.getElementById("data").textContent);
const entries = data.entries;
const byKey = new Map(entries.map((entry, number) => [entry.key, number]));

const pairs = new Map();
for (const [a, b, card, difference, low, high, p, images, needed] of data.pairs) {
  pairs.set(`${a}|${b}|${card}`, { difference, low, high, p, images, needed });
  pairs.set(`${b}|${a}|${card}`, { difference: 0 - difference, low: 0 - high, high: 0 - low, p, images, needed });
}
const pairOf = (a, b, card) => pairs.get(`${a}|${b}|${card}`) || null;

// Holm's correction (1979): the k-th smallest of n p-values times n - k + 1, never falling.
const holm = (values) => {
  const order = values.map((_, n) => n).sort((a, b) => values[a] - values[b]);
  const corrected = [];
  let highest = 0;
  order.forEach((n, k) => {
    highest = Math.max(highest, Math.min(1, values[n] * (values.length - k)));
    corrected[n] = highest;
  });
  return corrected;
};

const state = { tab: data.tabs[0] || null, criterion: "rank", cost: "parameters", quality: "mean", search: "", trust: "", backbone: "", chosen: [] };

const tableOf = (tab) => data.tables[tab.table];
const cardOf = (tab) => tableOf(tab).tasks[tab.task].card;
const isOverall = (tab) => tab.task === null;
// Δm is of all tasks that an entry has, so it belongs into the table of exactly these.
const changeIn = (tab, entry) =>
  isOverall(tab) && entry.change && entry.changeOf.length === tableOf(tab).tasks.length ? entry.change : null;

// The rows of a tab, each with all that its columns show.
const rowsOf = (tab) => {
  const table = tableOf(tab);
  const rows = table.rows.map((row) => {
    const entry = entries[row.entry];
    return { ...row, ...entry, at: row.entry, change: changeIn(tab, entry) };
  });
  if (isOverall(tab)) {
    const known = rows.filter((row) => row.change).sort((a, b) => b.change[0] - a.change[0]);
    known.forEach((row, n) => (row.changeRank = n && row.change[0] === known[n - 1].change[0] ? known[n - 1].changeRank : n + 1));
    return rows;
  }
  const card = cardOf(tab);
  for (const row of rows) {
    row.taskRank = row.ranks[tab.task];
    row.leader = row.leaders[tab.task];
    row.cost = { ...row.cost, macs: row.macs[card] ?? null };
  }
  rows.sort((a, b) => a.taskRank - b.taskRank || b.tasks[card][0] - a.tasks[card][0]);
  const sizes = new Map();
  for (const row of rows) sizes.set(row.taskRank, (sizes.get(row.taskRank) || 0) + 1);
  const best = rows[0].at;
  for (const row of rows) {
    row.group = sizes.get(row.taskRank);
    row.toBest = row.at === best ? null : pairOf(row.at, best, card);
  }
  return rows;
};

const COSTS = {
  parameters: { name: "Parameters", title: "parameters", lower: true, text: (v) => quantity(v), axis: "~s", scale: 1 },
  macs: { name: "MACs per image", title: "multiply-accumulates per image", lower: true, text: (v) => quantity(v), axis: "~s", scale: 1 },
  train_seconds: { name: "Training time", title: "training time in minutes", lower: true, text: (v) => duration(v), axis: "~r", scale: 1 / 60 },
  images_per_second: { name: "Throughput", title: "training images per second", lower: false, text: (v) => quantity(v), axis: "~s", scale: 1 },
};

// What no other entry beats in both cost and quality, cheapest first.
const frontier = (marks, lower) => {
  const order = [...marks].sort((a, b) => (lower ? a.cost - b.cost : b.cost - a.cost) || b.quality - a.quality);
  let best = -Infinity;
  return order.filter((mark) => mark.quality > best && ((best = mark.quality), true));
};
