// Elements from text: nothing that a record says ever becomes markup, an attribute with a meaning, or code.
const make = (node, attributes, children) => {
  for (const [name, value] of Object.entries(attributes || {})) {
    if (value === null || value === undefined || value === false) continue;
    if (name === "on") for (const [event, handler] of Object.entries(value)) node.addEventListener(event, handler);
    else if (name === "hidden" || name === "checked" || name === "disabled" || name === "open") node[name] = true;
    else node.setAttribute(name, value);
  }
  node.append(...children.flat(9).filter((child) => child !== null && child !== undefined && child !== ""));
  return node;
};
const el = (tag, attributes, ...children) => make(document.createElement(tag), attributes, children);
const svg = (tag, attributes, ...children) =>
  make(document.createElementNS("http://www.w3.org/2000/svg", tag), attributes, children);

const DASH = "\u2013";
const MINUS = "\u2212";
const percent = (value, digits = 2) => (value === null || value === undefined ? DASH : (100 * value).toFixed(digits));
const signed = (value, digits = 2) => {
  const text = value.toFixed(digits);
  return (Number(text) < 0 ? "" : "+") + text.replace("-", MINUS);
};
const points = (value, digits = 2) => signed(100 * value, digits);
const quantity = (value, unit = "") => {
  if (value === null || value === undefined) return DASH;
  const [size, prefix] = [[1e12, "T"], [1e9, "G"], [1e6, "M"], [1e3, "k"]].find(([s]) => Math.abs(value) >= s) || [1, ""];
  return `${Number((value / size).toPrecision(3))}\u202f${prefix}${unit}`.trimEnd();
};
const duration = (seconds) => {
  if (seconds === null || seconds === undefined) return DASH;
  const [size, unit] = [[86400, "d"], [3600, "h"], [60, "min"]].find(([s]) => seconds >= 2 * s) || [1, "s"];
  return `${(seconds / size).toFixed(1)}\u202f${unit}`;
};
const count = (number, word, several = `${word}s`) => `${number.toLocaleString("en")} ${number === 1 ? word : several}`;

// A button that copies a text; where a browser does not let it, it selects the text instead.
const copyButton = (text, source) => {
  const button = el("button", { type: "button", class: "copy" }, "Copy");
  button.addEventListener("click", async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "Copied";
    } catch {
      getSelection().selectAllChildren(source());
      button.textContent = "Selected";
    }
    setTimeout(() => (button.textContent = "Copy"), 1500);
  });
  return button;
};
const copyable = (tag, text) => {
  const source = el(tag, tag === "pre" ? { tabindex: "0" } : {}, text);
  return el("div", { class: "copyable" }, source, copyButton(text, () => source));
};

// A dialog of its own title; closing it gives the address back to the tab.
const dialogOf = (kind, title, ...content) => {
  const close = el("button", { type: "button", class: "close", "aria-label": "Close", on: { click: () => dialog.close() } }, "\u00d7");
  const dialog = el(
    "dialog",
    { class: `sheet ${kind}`, "aria-labelledby": `${kind}-title` },
    el("div", { class: "sheet-head" }, el("h2", { id: `${kind}-title`, tabindex: "-1" }, title), close),
    content,
  );
  dialog.addEventListener("close", () => dialog.remove());
  dialog.addEventListener("click", (event) => {
    if (event.target === dialog) dialog.close(); // the backdrop
  });
  return dialog;
};
