// The sizes of the tree as a treemap. A click opens a module or selects a tensor.

const BOXES = 400; // in one view; more would be too small to see and slow to draw
const READABLE = 10; // pixels; smaller labels are hidden
const TRUNK = 0.7; // of all bytes

function mapped(element, root, page) {
  let inside = root.children[0].kind === "root" && root.children[0].bytes ? root.children[0] : root; // the module that is shown
  let shown = []; // its boxes
  const chart = make("div", { class: "chart tall" });
  const path = make("nav", { class: "path", "aria-label": "Path to the module that is shown", hidden: true });
  const hint = page.compared ? "Coloured by relative change. " : "";
  element.append(heading("map-title", "Where the bytes are", make("span", { class: "aside" }, `${hint}Click to open a module.`)), path, chart);
  element.hidden = false;
  const lead = () => {
    path.replaceChildren(...pathTo(inside).map((step) =>
      make("button", { type: "button", class: "link", click: () => go(step), "aria-current": step === inside ? "true" : null }, clipped(called(step), 40))));
    path.hidden = inside === root;
  };
  const go = (node) => {
    inside = node;
    lead();
    redrawn.get(chart)();
  };
  lead();
  const tints = page.compared ? changedTints(page) : partTints(root);
  const figure = () => {
    shown = boxes(inside);
    return [[{
      type: "treemap",
      ids: shown.map((box) => String(box.key)),
      labels: shown.map((box) => plain(clipped(box.name, 60))),
      parents: shown.map((box) => (box.up ? String(box.up.key) : "")),
      values: shown.map((box) => box.bytes),
      text: shown.map((box) => size(box.bytes)),
      customdata: shown.map((box) => hover(box, page, root.bytes)),
      hovertemplate: "%{customdata}<extra></extra>",
      texttemplate: "%{label}<br>%{text}",
      branchvalues: "total",
      level: String(shown.find((box) => box.of === inside).key),
      sort: true,
      tiling: { pad: 1.5 },
      pathbar: { visible: false },
      marker: { colors: shown.map(tints), line: { width: 1, color: colour("surface") }, pad: { t: 20, l: 3, r: 3, b: 3 } },
      root: { color: colour("raised") },
    }], { margin: { l: 0, r: 0, t: 0, b: 0 }, uniformtext: { minsize: READABLE, mode: "hide" } }];
  };
  const parts = root.children.slice(0, 8).map((node) => `${clipped(node.label, 40)} ${size(node.bytes)}`);
  return draw(chart, `Treemap of ${size(root.bytes)}: ${parts.join(", ")}`, figure).then(() => {
    chart.on("plotly_treemapclick", ({ points: [{ id }] }) => {
      const node = shown[Number(id)].of;
      if (node.children.length) go(node === inside && node.parent ? around(node) : node);
      else page.take(node, true);
      return false;
    });
  });
}

// The boxes for a module, each {key, up, of, name, bytes}: its ancestors, itself, and those below it, largest first.
function boxes(inside) {
  const all = [];
  const add = (up, of, name, bytes) => all[all.push({ key: all.length, up, of, name, bytes }) - 1];
  const open = [pathTo(inside).reduce((up, node) => add(up, node, called(node), node.bytes), null)];
  while (open.length && all.length < BOXES) {
    const box = open.shift();
    const heavy = drawnIn(box.of).filter((node) => node.bytes > 0).sort((a, b) => b.bytes - a.bytes);
    const made = heavy.map((node) => add(box, node, called(node), node.bytes));
    open.push(...made.filter(({ of }) => of.kind !== "group")); // its label is more readable than its boxes
  }
  return all;
}

// A node and those around it, the root first.
function pathTo(node) {
  const path = [];
  for (let at = node; at; at = around(at)) path.unshift(at);
  return path;
}

const called = (node) => (node.parent ? (node.times > 1 ? `${node.label} ×${node.times}` : node.label) : "all");

function hover(box, page, total) {
  const lines = [`<b>${plain(clipped((box.of.parent && full(box.of)) || box.name))}</b>`, `${size(box.bytes)}, ${percent(box.bytes / total)}`];
  if (box.of.which.length) {
    const { shape, dtype } = page.newest(box.of.which[0]);
    lines.push(`${box.of.times > 1 ? `${box.of.times}× ` : ""}${shape} ${dtype}`);
  }
  if (page.compared) lines.push(plain(page.change(box.of).words));
  return lines.join("<br>");
}

// A colour for each part of the model, paler with depth. The children of a module with nearly all bytes are separate parts.
function partTints(root) {
  const parts = new Map();
  const heaviest = (node) => [...drawnIn(node)].sort((a, b) => b.bytes - a.bytes);
  for (let trunk = root; trunk; ) {
    const [first, ...others] = heaviest(trunk);
    const next = first && first.children.length && first.bytes > TRUNK * root.bytes ? first : null;
    for (const node of next ? others : heaviest(trunk)) parts.set(node, "");
    trunk = next;
  }
  [...parts.keys()].sort((a, b) => b.bytes - a.bytes).forEach((node, i) => parts.set(node, PALETTE[i % PALETTE.length]));
  return (box) => {
    let deeper = 0;
    for (let at = box.of; at; at = around(at), deeper++) {
      if (parts.has(at)) return mixed(parts.get(at), colour("surface"), Math.min(0.1 + deeper * 0.14, 0.5));
    }
    return colour("raised");
  };
}

// From pale (a relative change of at most 1e-4) to strong (at least 1), on a logarithmic scale.
function changedTints(page) {
  return (box) => {
    const { word, relative } = page.change(box.of);
    if (word === "equal") return colour("raised");
    if (word !== "changed") return mixed(colour(word), colour("surface"), box.of.children.length ? 0.6 : 0.15);
    const strength = Math.min(Math.max((Math.log10(relative || 1e-9) + 4) / 4, 0), 1);
    return mixed(colour("surface"), colour("changed"), (box.of.children.length ? 0.5 : 1) * (0.15 + 0.8 * strength));
  };
}
