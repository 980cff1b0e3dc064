// Small charts as SVG. Colours come from the style sheet through classes, so they follow its theme.
const scaled = ([low, high], start, end) => (value) =>
  (start + (end - start) * (high > low ? Math.min(1, Math.max(0, (value - low) / (high - low))) : 0.5)).toFixed(1);

const intervalBar = ([value, low, high], scale, width = 116) => {
  const x = scaled(scale, 5, width - 5);
  return svg(
    "svg",
    { class: "bar", viewBox: `0 0 ${width} 14`, width, height: 14, "aria-hidden": "true" },
    svg("line", { class: "axis", x1: 0, x2: width, y1: 7, y2: 7 }),
    low === null ? null : svg("line", { class: "range", x1: x(low), x2: x(high), y1: 7, y2: 7 }),
    svg("circle", { class: "dot", cx: x(value), cy: 7, r: 4 }),
  );
};

// A difference with its interval around a zero line; `extent` is the scale's end on both sides.
const forestBar = ([value, low, high], extent, kind, label, width = 130) => {
  const x = scaled([-extent, extent], 6, width - 6);
  return svg(
    "svg",
    { class: `forest ${kind}`, viewBox: `0 0 ${width} 18`, width, height: 18, role: "img", "aria-label": label },
    svg("line", { class: "zero", x1: x(0), x2: x(0), y1: 0, y2: 18 }),
    svg("line", { class: "range", x1: x(low), x2: x(high), y1: 9, y2: 9 }),
    svg("rect", { class: "dot", x: (Number(x(value)) - 4).toFixed(1), y: 5, width: 8, height: 8, rx: 2 }),
  );
};

const changeBar = (change, extent) => {
  const [value, low, high] = change;
  const kind = low > 0 ? "better" : high < 0 ? "worse" : "open";
  return forestBar(change, extent, kind, `${signed(value)} percent, 95% interval ${signed(low)} to ${signed(high)}`);
};

const differenceBar = (pair, extent, clear) => {
  const kind = !clear ? "open" : pair.difference > 0 ? "better" : "worse";
  const label = `${points(pair.difference)} points, 95% interval ${points(pair.low)} to ${points(pair.high)}`;
  return forestBar([pair.difference, pair.low, pair.high], extent, kind, label);
};

const extentOf = (intervals) => Math.max(1e-9, ...intervals.map(([, low, high]) => Math.max(Math.abs(low), Math.abs(high))));
const rangeOf = (intervals) => {
  let [low, high] = [Infinity, -Infinity];
  for (const [value, from, to] of intervals) {
    low = Math.min(low, from ?? value);
    high = Math.max(high, to ?? value);
  }
  return [low, high];
};
