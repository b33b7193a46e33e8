// Groups of siblings for the treemap: thousands of names without dots would be thousands of boxes, too small to read or to click.

const MOST = 80; // children of one box
const GROUPED = 40; // groups made of more

// The children of a node that are drawn in its box: its own, or groups of them, which can be opened like modules.
function drawnIn(node) {
  return (node.drawn ??= node.children.length > MOST ? groups(node) : node.children);
}

// Groups of names with the same beginning if there are several but not too many of these; otherwise of neighbours.
function groups(node) {
  const words = (label) => label.split(/(?<=[_\-/:])|(?<=\D)(?=\d)|(?<=\d)(?=\D)/);
  const begun = (length) => Map.groupBy(node.children, ({ label }) => words(label).slice(0, length).join(""));
  const longest = node.children.reduce((most, { label }) => Math.max(most, words(label).length), 1);
  let [length, found] = [1, begun(1)];
  while (found.size === 1 && length < longest) found = begun(++length);
  const runs = found.size > 1 ? [...found].map(([start, children]) => ({ words: words(start), children }))
    : node.children.map((child) => ({ words: [child.label], children: [child] }));
  const joined = runs.length > MOST ? neighbours(runs) : runs;
  return joined.map((run) => (run.children.length > 1 ? grouped(node, span(run), run.children) : run.children[0]));
}

function neighbours(runs) {
  const each = Math.ceil(runs.length / GROUPED);
  return Array.from({ length: Math.ceil(runs.length / each) }, (_, at) => {
    const some = runs.slice(at * each, (at + 1) * each);
    return { words: some[0].words, last: some.at(-1).words, children: some.flatMap((run) => run.children) };
  });
}

// The label of a group: `layer_…`, or `layer25 – 49` from the words of its first and last name.
function span({ words, last }) {
  if (!last) return `${words.join("")}…`;
  const shared = words.findIndex((word, at) => word !== last[at]);
  return `${words.join("")} – ${last.slice(Math.max(shared, 0)).join("")}`;
}

function grouped(parent, label, children) {
  const sum = (key) => children.reduce((total, child) => total + child[key], 0);
  const group = { kind: "group", label, depth: parent.depth, times: 1, bytes: sum("bytes"), elements: sum("elements"), which: [], children, parent };
  for (const child of children) child.group = group;
  return group;
}

// The node whose box a node's box is in.
const around = (node) => node.group ?? node.parent;
