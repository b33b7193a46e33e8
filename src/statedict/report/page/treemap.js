// Where the bytes are: the folded tree as a treemap. A click goes into a module, and takes a tensor.

const BOXES = 3000; // more are too small to see, and slow to draw
const OTHERS = "the rest";
const TRUNK = 0.7; // of all bytes

function mapped(element, root, page) {
  const nodes = boxes(root);
  const total = root.bytes || 1;
  const chart = make("div", { class: "chart tall" });
  const hint = page.compared ? "Coloured by relative change. " : "";
  element.append(heading("map-title", "Where the bytes are", make("span", { class: "aside" }, `${hint}Click to go into a module.`)), chart);
  element.hidden = false;
  const tints = page.compared ? changedTints(page) : partTints(root);
  const figure = () => [[{
    type: "treemap",
    ids: nodes.map((node) => String(node.key)),
    labels: nodes.map((node) => plain(clipped(node.name, 60))),
    parents: nodes.map((node) => (node.up ? String(node.up.key) : "")),
    values: nodes.map((node) => node.bytes),
    text: nodes.map((node) => size(node.bytes)),
    customdata: nodes.map((node) => hover(node, page, total)),
    hovertemplate: "%{customdata}<extra></extra>",
    texttemplate: "%{label}<br>%{text}",
    branchvalues: "total",
    maxdepth: nodes.length < 500 ? -1 : 4,
    sort: true,
    tiling: { pad: 1.5 },
    pathbar: { thickness: 24, textfont: { color: colour("ink") } },
    marker: {
      colors: nodes.map((node) => tints(node)),
      line: { width: 1, color: colour("surface") },
      pad: { t: 20, l: 3, r: 3, b: 3 },
      cornerradius: 3,
    },
    root: { color: colour("raised") },
  }], { margin: { l: 0, r: 0, t: 0, b: 0 } }];
  const label = `Treemap of ${size(root.bytes)}: ${root.children.slice(0, 8).map((node) => `${clipped(node.label, 40)} ${size(node.bytes)}`).join(", ")}`;
  return draw(chart, label, figure).then(() => {
    chart.on("plotly_treemapclick", (event) => {
      const node = nodes[Number(event.points[0].id)];
      if (node?.of?.which.length && !node.of.children.length) {
        page.take(node.of, true);
        return false;
      }
    });
  });
}

// The nodes to draw, each {key, up, of, name, bytes}: the largest of each parent, and one for the rest of them.
function boxes(root) {
  const top = { key: 0, up: null, of: root, name: "all", bytes: root.bytes };
  const made = [top];
  const open = [top];
  while (open.length) {
    const box = open.shift();
    const large = box.of.children.filter((node) => node.bytes > 0).sort((a, b) => b.bytes - a.bytes);
    const room = Math.min(300, BOXES - made.length);
    const shown = large.length > room ? large.slice(0, Math.max(room - 1, 0)) : large;
    for (const node of shown) {
      const name = node.times > 1 ? `${node.label} ×${node.times}` : node.label;
      const child = { key: made.length, up: box, of: node, name, bytes: node.bytes };
      made.push(child);
      open.push(child);
    }
    const rest = large.slice(shown.length);
    if (rest.length && room > 0) {
      made.push({ key: made.length, up: box, of: null, name: `${OTHERS} (${rest.length})`, bytes: rest.reduce((sum, node) => sum + node.bytes, 0) });
    }
  }
  return made;
}

function hover(node, page, total) {
  const lines = [`<b>${plain(clipped((node.of?.parent && full(node.of)) || node.name))}</b>`, `${size(node.bytes)}, ${percent(node.bytes / total)}`];
  if (node.of?.which.length) {
    const column = page.newest(node.of.which[0]);
    lines.push(`${node.of.times > 1 ? `${node.of.times}× ` : ""}${column.shape} ${column.dtype}`);
  }
  if (page.compared && node.of) lines.push(plain(page.change(node.of).words));
  return lines.join("<br>");
}

// A colour for each part of the model, paler the deeper. A module that is nearly everything is no part, but its parts are.
function partTints(root) {
  const parts = new Map();
  const heaviest = (node) => [...node.children].sort((a, b) => b.bytes - a.bytes);
  for (let trunk = root; trunk; ) {
    const [first, ...others] = heaviest(trunk);
    const next = first && first.children.length && first.bytes > TRUNK * root.bytes ? first : null;
    for (const node of next ? others : heaviest(trunk)) parts.set(node, "");
    trunk = next;
  }
  [...parts.keys()].sort((a, b) => b.bytes - a.bytes).forEach((node, i) => parts.set(node, PALETTE[i % PALETTE.length]));
  return (box) => {
    let deeper = 0;
    for (let at = box.of ?? box.up.of; at; at = at.parent, deeper++) {
      if (parts.has(at)) return mixed(parts.get(at), colour("surface"), Math.min(0.1 + deeper * 0.14, 0.5));
    }
    return colour("raised");
  };
}

// From pale to strong by the logarithm of the relative change: 1e-4 and less, to 1 and more.
function changedTints(page) {
  return (box) => {
    if (!box.of) return colour("raised");
    const { word, relative } = page.change(box.of);
    if (word === "equal") return colour("raised");
    if (word !== "changed") return mixed(colour(word), colour("surface"), box.of.children.length ? 0.6 : 0.15);
    const strength = Math.min(Math.max((Math.log10(relative || 1e-9) + 4) / 4, 0), 1);
    return mixed(colour("surface"), colour("changed"), (box.of.children.length ? 0.5 : 1) * (0.15 + 0.8 * strength));
  };
}
