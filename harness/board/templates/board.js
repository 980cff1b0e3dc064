"use strict";
// Sorting: a header button sorts its table by the cells' data-value; empty values always come last.
for (const button of document.querySelectorAll(".grid thead button")) {
  button.addEventListener("click", () => {
    const header = button.closest("th");
    const body = header.closest("table").tBodies[0];
    const column = [...header.parentNode.children].indexOf(header);
    const now = header.getAttribute("aria-sort");
    const order = now === "none" ? button.dataset.first : now === "ascending" ? "descending" : "ascending";
    const sign = order === "ascending" ? 1 : -1;
    for (const other of header.parentNode.children) other.setAttribute("aria-sort", other === header ? order : "none");
    const keyed = [...body.rows].map((row) => [row.children[column].dataset.value, row]);
    keyed.sort(([a], [b]) => {
      if (a === "" || b === "") return (a === "") - (b === "");
      const difference = Number(a) - Number(b);
      return sign * (Number.isNaN(difference) ? a.localeCompare(b, "en", { numeric: true }) : difference);
    });
    body.append(...keyed.map(([, row]) => row));
  });
}
// Filtering: every word must occur in the row's entry or trust cell.
for (const input of document.querySelectorAll("input[data-table]")) {
  const rows = [...document.getElementById(input.dataset.table).tBodies[0].rows];
  const text = new Map(rows.map((row) => [row, [".entry", ".trust"].map((cell) => row.querySelector(cell).textContent).join(" ").toLowerCase()]));
  const filter = () => {
    const words = input.value.toLowerCase().split(/\s+/).filter(Boolean);
    for (const row of rows) row.hidden = !words.every((word) => text.get(row).includes(word));
    const shown = rows.filter((row) => !row.hidden).length;
    input.parentNode.querySelector("output").textContent = words.length ? `${shown} of ${rows.length}` : "";
  };
  input.addEventListener("input", filter);
  filter();
}
// A link to an entry opens its details.
const open = () => {
  const target = location.hash.length > 1 ? document.getElementById(location.hash.slice(1)) : null;
  if (target && target.tagName === "DETAILS") {
    target.open = true;
    target.scrollIntoView();
  }
};
window.addEventListener("hashchange", open);
document.addEventListener("click", (event) => {
  const link = event.target.closest("a");
  const href = link && link.getAttribute("href");
  if (href && href === location.hash) open();
});
open();
