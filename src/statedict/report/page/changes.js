// The changes between two files: the change of each layer, and lists of added, removed, reshaped and changed tensors.

const LAYERS = 400; // bars of one chart
const LISTED = 100; // rows of a list that are shown at a time
const KINDS = [
  ["changed", "changed"], ["added", "added"], ["removed", "removed"], ["shape", "other shape"],
  ["dtype", "other dtype"], ["equal", "equal"],
];

function showChanges(element, page) {
  const { status, layers, loose } = page.values;
  const of = (kind) => status.flatMap((own, i) => (own === kind ? [i] : []));
  const kinds = KINDS.map(([kind, word]) => [kind, word, of(kind)]).filter(([, , which]) => which.length);
  element.append(heading("changes-title", "What changed"));
  element.hidden = false;
  const moved = layers.filter(([, relative]) => relative !== 0);
  if (moved.length) drawChange(element, layers, page);
  if (!kinds.some(([kind]) => kind !== "equal") && !moved.length) {
    element.append(make("p", { class: "note" }, "Every tensor is in both files, with equal elements."));
  }
  const list = make("div", { class: "listed" });
  const pick = (kind) => showKind(list, kind, kinds.find(([own]) => own === kind)[2], page);
  const words = kinds.map(([kind, word, which]) => [kind, `${whole(which.length)} ${word}`]);
  if (words.length) {
    element.append(choice("Which tensors to list", words, words[0][0], pick), list);
    pick(words[0][0]);
  }
  for (const line of others(page, loose)) element.append(make("p", { class: "note" }, line));
}

function others({ values, before }, loose) {
  const lines = [];
  const titles = { added: "Only in the second file (not tensors)", removed: "Only in the first file (not tensors)", values: "Other values that differ" };
  for (const [word, names] of Object.entries(loose)) {
    if (names.length) lines.push(`${titles[word]}: ${clipped(names.slice(0, 20).join(", "), 600)}`);
  }
  const [untied, tied] = values.ties;
  if (untied.length) lines.push(`No longer tied: ${clipped(untied.slice(0, 10).map((group) => group.join(" = ")).join("; "), 600)}`);
  if (tied.length) lines.push(`Newly tied: ${clipped(tied.slice(0, 10).map((group) => group.join(" = ")).join("; "), 600)}`);
  if (before.size) lines.push(`${count(before.size, "name")} differ in the prefixes of wrappers only, and were compared.`);
  return lines;
}

// A bar for each layer, in the order of the model; if there are too many, those that changed most.
function drawChange(element, layers, page) {
  const most = new Set(layers.length > LAYERS ? [...layers].sort((a, b) => finite(b[1]) - finite(a[1])).slice(0, LAYERS) : layers);
  const shown = layers.filter((layer) => most.has(layer));
  const finites = shown.map(([, relative]) => relative).filter((relative) => typeof relative === "number");
  const top = Math.max(...finites, 1e-12) * 1.1;
  const chart = make("div", { class: "chart" });
  let logarithmic = Math.max(...finites, 0) > 50 * (Math.min(...finites.filter(Boolean), 1) || 1);
  const figure = () => [[{
    type: "bar",
    x: shown.map((_, at) => at),
    y: shown.map(([, relative]) => (relative === "Infinity" ? top : relative)),
    text: shown.map(([name]) => plain(clipped(name || "(no module)", 90))),
    textposition: "none",
    customdata: shown.map(([, relative, changed, compared]) => `${percent(relative)} of its norm, ${whole(changed)} of ${count(compared, "tensor")}`),
    hovertemplate: "<b>%{text}</b><br>%{customdata}<extra></extra>",
    marker: { color: shown.map(([, relative]) => colour(relative === "Infinity" ? "added" : "changed")) },
  }], {
    margin: { l: 52, r: 8, t: 8, b: shown.length > 24 ? 30 : 90 },
    bargap: shown.length > 80 ? 0.1 : 0.3,
    yaxis: logarithmic ? { type: "log", nticks: 6, tickformat: "~%" } : { tickformat: "~%", rangemode: "tozero", nticks: 5 },
    xaxis: shown.length > 24 ? { showticklabels: false, showgrid: false, title: { text: "layers, in the order of the model", standoff: 4 } }
      : { showgrid: false, tickmode: "array", tickvals: shown.map((_, at) => at), ticktext: shown.map(([name]) => plain(ending(name || "(no module)"))), tickangle: -40 },
  }];
  const cut = layers.length > shown.length ? ` (the ${shown.length} that changed most of ${whole(layers.length)})` : "";
  const pick = (key) => {
    logarithmic = key === "log";
    redrawn.get(chart)();
  };
  element.append(make("div", { class: "heading" }, make("h3", {}, `Relative change per layer${cut}`),
    choice("Scale of the change", [["linear", "linear"], ["log", "log"]], logarithmic ? "log" : "linear", pick)), chart);
  draw(chart, `Relative change of ${count(shown.length, "layer")}`, figure).then(() => {
    chart.on("plotly_click", (event) => page.takeLayer(shown[event.points[0].pointIndex][0]));
  });
}

// A relative change to sort by: a tensor that was zero before comes after those with a finite change.
const finite = (relative) => (Number(relative) === Infinity ? 0 : relative);
const ending = (name) => (name.length > 22 ? `…${name.slice(-21)}` : name);

// A table of the tensors with one kind of change, those that changed most first.
function showKind(element, kind, which, page) {
  const ordered = kind === "changed" ? [...which].sort((a, b) => finite(page.relative(b)) - finite(page.relative(a))) : which;
  const body = make("tbody");
  const more = make("button", { type: "button", class: "quiet" });
  const grow = () => {
    const from = body.children.length;
    body.append(...ordered.slice(from, from + LISTED).map((i) => listed(kind, i, page)));
    more.textContent = `${count(ordered.length - body.children.length, "more row")}…`;
    more.hidden = body.children.length >= ordered.length;
  };
  more.addEventListener("click", grow);
  grow();
  const columns = ["name", ...(kind === "changed" ? ["relative", "largest", "elements"] : ["shape", "dtype"])];
  element.replaceChildren(make("div", { class: "scroll" }, make("table", { class: "list" },
    make("thead", {}, make("tr", {}, ...columns.map((word) => make("th", { scope: "col" }, word)))), body)), more);
}

function listed(kind, i, page) {
  const take = make("button", { type: "button", class: "link", click: () => page.takeTensor(i) }, clipped(page.names[i], 160));
  const change = page.values.changes[i];
  const cells = kind !== "changed" ? kinds(i, page)
    : change ? [percent(change[4]), short(change[2], 3), `${whole(change[1])} of ${whole(change[0])}`] : ["", "", ""];
  return make("tr", {}, make("th", { scope: "row" }, take), ...cells.map((text) => make("td", {}, text)));
}

// Shape and dtype, those of both files if they differ.
function kinds(i, page) {
  return ["shape", "dtype"].map((word) => {
    const found = [...new Set(page.columns.map((column) => column[word][i]).filter((value) => value !== null))];
    return found.join(" → ");
  });
}
