// Decode the content of the page, show its parts, and connect them.

const values = JSON.parse(await unpackedText("content-data"));
const elements = (i) => values.columns.findLast((column) => column.elements[i] !== null).elements[i];
const root = grown(values.rows, values.roots.length, elements);
const owners = []; // index of a tensor → the node of its row
for (const node of everyNode(root)) for (const i of node.which) owners[i] = node;

const page = {
  values,
  names: values.names,
  columns: values.columns,
  roots: values.roots,
  compared: values.files.length > 1,
  read: values.columns.some((column) => column.stats.some(Boolean)),
  stored: (i) => values.stored[i] ?? values.names[i], // the name in the file
  elements,
  noun: (i) => values.nouns[values.root[i]],
  taken: null,
  before: new Map(Object.entries(values.renamed ?? {})), // name → the name in the first file
  cells: later(() => unpackedBytes("cells-data")),
  newest: (i) => {
    const column = page.columns.findLast((column) => column.shape[i] !== null);
    return { shape: column.shape[i], dtype: column.dtype[i] };
  },
  relative: (i) => Number(values.changes?.[i]?.[4] ?? 0), // Infinity if the first tensor is zero
  change: (node) => (node.change ??= changeOf(node)),
  // Called when a tensor is selected: in the tree, or elsewhere (`far`); then the tree opens down to it.
  take: (node, far) => {
    page.taken = node;
    showTensor(byId("tensor"), node, page);
    location.hash = addressOf(node, page);
    if (far) {
      if (search.value) find((search.value = ""));
      tree.reveal(node);
    }
    if (far || narrow()) byId("tensor").scrollIntoView({ block: "start", behavior: calm() ? "auto" : "smooth" });
  },
  nodeOf: (i) => (owners[i].which.length > 1 ? members(owners[i], page.names)[owners[i].which.indexOf(i)] : owners[i]),
  takeTensor: (i) => page.take(page.nodeOf(i), true),
  takeLayer: (name) => {
    const layer = (own) => own.slice(0, Math.max(own.lastIndexOf("."), 0));
    const changed = page.names.flatMap((_, i) => (layer(page.stored(i)) === name ? [i] : []));
    changed.sort((a, b) => finite(page.relative(b)) - finite(page.relative(a)));
    if (changed.length) page.takeTensor(changed[0]);
  },
  backToTree: () => {
    byId("tree").scrollIntoView({ block: "nearest" });
    byId("tree").querySelector('[aria-selected="true"]')?.focus();
  },
};

const narrow = () => matchMedia("(max-width: 899px)").matches;
const calm = () => matchMedia("(prefers-reduced-motion: reduce)").matches;

// The change of the tensors below a node: a word that selects the colour, a text, and the largest relative change, which is
// infinite only if there is no finite one.
function changeOf(node) {
  const counts = {};
  const changes = [];
  const open = [node];
  while (open.length) {
    const at = open.pop();
    open.push(...at.children);
    for (const i of at.which) {
      counts[values.status[i]] = (counts[values.status[i]] ?? 0) + 1;
      if (page.relative(i)) changes.push(page.relative(i));
    }
  }
  const relative = changes.reduce((most, one) => (finite(one) > finite(most) ? one : most), changes[0] ?? 0);
  const word = Object.keys(counts).length === 1 ? Object.keys(counts)[0] : "changed";
  const only = node.which.length === 1 && !node.children.length;
  const told = { equal: "equal", added: "added", removed: "removed", shape: "other shape", dtype: "other dtype" };
  const size = relative ? `${only ? "changed" : "up to"} ${percent(relative)}` : "changed";
  const words = only ? (told[word] ?? size)
    : KINDS.filter(([kind]) => counts[kind]).map(([kind, say]) => `${whole(counts[kind])} ${say}`).join(", ") + (relative ? `, ${size}` : "");
  return { word, words, relative };
}

// The elements next to the label of a row.
function rowFacts(node) {
  const [i] = node.which;
  const share = root.bytes ? node.bytes / root.bytes : 0;
  const bar = make("span", { class: "share", "aria-hidden": "true" });
  bar.style.setProperty("--share", share.toFixed(4));
  bar.hidden = share < 0.005;
  const told = i === undefined ? null : page.newest(i);
  const remark = i === undefined ? null : page.columns.at(-1).remark[i];
  const change = page.compared ? page.change(node) : null;
  const badge = change && change.word !== "equal" ? make("span", { class: `badge ${change.word}`, title: change.words }, BADGES[change.word] ?? percent(change.relative)) : null;
  return [
    node.times > 1 ? make("span", { class: "times" }, `×${whole(node.times)}`) : null,
    told ? make("span", { class: "kind" }, `${told.shape} ${told.dtype}${remark ? ` ${clipped(remark, 60)}` : ""}`) : total(node),
    badge,
    make("span", { class: "size" }, size(node.bytes)),
    bar,
  ].filter(Boolean);
}

// The number of parameters below a module.
function total(node) {
  const noun = page.noun(firstBelow(node));
  return make("span", { class: "kind", title: count(node.elements, noun) }, `${brief(node.elements)} ${noun}${node.elements === 1 ? "" : "s"}`);
}

function firstBelow(node) {
  let at = node;
  while (!at.which.length) at = at.children[0];
  return at.which[0];
}

const BADGES = { added: "added", removed: "removed", shape: "shape", dtype: "dtype" };

const tree = planted(byId("tree"), root, page.names, { facts: rowFacts, take: (node) => page.take(node) });

const search = byId("search");
function find(text) {
  const terms = text.toLowerCase().split(/\s+/).filter(Boolean);
  const found = tree.search(terms.length ? terms : null);
  byId("found").textContent = terms.length ? `${whole(found)} of ${count(page.names.length, "tensor")}` : "";
}
search.addEventListener("input", () => find(search.value));
search.addEventListener("keydown", (event) => {
  if (event.key !== "ArrowDown" && event.key !== "Enter") return;
  event.preventDefault();
  if (event.key === "Enter") tree.takeFirst();
  else tree.focusFirst();
});
byId("order").append(choice("Order of the rows", [["file", "file order"], ["size", "largest first"]], "file", (key) => tree.sort(key === "size")));
addEventListener("keydown", (event) => {
  if (event.key !== "/" || event.target.matches("input")) return;
  event.preventDefault();
  search.focus();
});

const dark = matchMedia("(prefers-color-scheme: dark)");
const theme = byId("theme");
function dress(chosen) {
  if (chosen) document.documentElement.dataset.theme = chosen;
  const now = document.documentElement.dataset.theme ?? (dark.matches ? "dark" : "light");
  theme.textContent = now === "dark" ? "Light" : "Dark";
  theme.onclick = () => dress(now === "dark" ? "light" : "dark");
  redrawAll();
}
dark.addEventListener("change", () => dress());
dress();

// Select the tensor that the page's address names, at first and when the address changes.
function follow() {
  const node = addressed(location.hash, root, page);
  if (node === null) byId("found").textContent = "The tensor in the address is not in this page.";
  else if (node && node !== page.taken) page.take(node, true);
}
addEventListener("hashchange", follow);

byId("csv").addEventListener("click", () => download(`${named(values.files.map((file) => file.name.split("/").at(-1)).join("-"))}.csv`, "text/csv", tensorTable(page)));

showAbout(byId("about"), page);
showOther(byId("other"), page);
if (page.compared) showChanges(byId("changes"), page);
follow();
if (root.bytes) await mapped(byId("map"), root, page);
document.documentElement.dataset.ready = "yes";
