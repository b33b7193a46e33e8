// One tensor, or equal tensors of several layers: statistics and charts of the elements, those of two files side by side.

const MOMENTS = ["min", "max", "mean", "std", "zeros", "nan", "inf"];
const MOMENT_WORDS = { nan: "NaN", inf: "Inf" };

function showTensor(element, node, page) {
  const [i] = node.which;
  const several = node.which.length > 1;
  const name = several ? full(node) : page.names[i];
  const title = make("span", { class: "named" }, make("h2", { id: "tensor-title" }, ...breakable(clipped(name, 300))), copier(name));
  const facts = make("p", { class: "chips" });
  const back = make("button", { type: "button", class: "quiet back", click: () => page.backToTree() }, "↑ tree");
  element.replaceChildren(make("div", { class: "heading" }, title, back), facts);
  element.hidden = false;
  const add = (text, kind = "") => facts.append(make("span", { class: `chip ${kind}` }, text));
  if (several) add(count(node.which.length, "tensor"));
  if (several) add(count(node.which.reduce((sum, at) => sum + page.elements(at), 0), page.noun(i)));
  if (page.roots.length > 1) add(`root ${page.roots[page.values.root[i]]}`);
  if (page.compared) add(page.change(node).words, page.change(node).word);
  if (several) drawLayers(element, node, page);
  else drawOne(element, i, page);
}

function drawOne(element, i, page) {
  element.append(numbers(i, page));
  if (page.stored(i) !== page.names[i]) element.append(make("p", { class: "note named" }, make("span", {}, `In the file: ${page.stored(i)}`), copier(page.stored(i))));
  const before = page.before.get(page.stored(i));
  if (before) element.append(make("p", { class: "note" }, `Before: ${before}`));
  const sides = page.columns.map((column, file) => ({ column, file })).filter(({ column }) => column.shape[i] !== null);
  const measured = sides.filter(({ column }) => column.stats[i]);
  if (!measured.length) {
    element.append(make("p", { class: "note" }, page.read ? "This tensor is not strided, so there are no statistics." : "Only the headers were read (--headers): no statistics, histogram or heat map."));
    return;
  }
  const counted = measured.filter(({ column }) => column.histogram[i].length > 2);
  if (counted.length) drawHistogram(element, i, counted, page);
  else element.append(make("p", { class: "note" }, "It does not have any finite elements."));
  drawHeat(element, i, measured, page);
}

// The facts and statistics of a tensor: tiles for one file, a table with one column per file for two.
function numbers(i, page) {
  const lines = known(i, page);
  if (!page.compared) {
    return make("dl", { class: "facts" }, ...lines.map(({ word, values, odd }) =>
      make("div", { class: odd ? "odd" : null }, make("dt", {}, word), make("dd", {}, values[0]))));
  }
  const head = page.columns.map((_, file) => make("th", { scope: "col" }, side(file, page)));
  const rows = lines.map(({ word, values, odd }) =>
    make("tr", { class: odd ? "odd" : null }, make("th", { scope: "row" }, word), ...values.map((value) => make("td", {}, value))));
  const table = make("table", { class: "numbers" }, make("thead", {}, make("tr", {}, make("td", {}), ...head)), make("tbody", {}, ...rows));
  const changed = page.values.changes[i];
  return changed ? make("div", { class: "beside" }, table, difference(changed)) : table;
}

// [{word, values: one for each file, odd}…]
function known(i, page) {
  const line = (word, value, odd = false) => ({
    word, odd, values: page.columns.map((column) => (column.shape[i] === null ? "–" : value(column))),
  });
  const lines = [
    line("shape", (column) => column.shape[i]),
    line("dtype", (column) => column.dtype[i]),
    line("size", (column) => size(column.bytes[i])),
  ];
  if (page.columns.some((column) => column.remark[i])) lines.push(line("note", (column) => clipped(column.remark[i] ?? "–", 200)));
  if (!page.columns.some((column) => column.stats[i])) return lines;
  return [...lines, ...MOMENTS.map((key, at) =>
    line(MOMENT_WORDS[key] ?? key, (column) => short(column.stats[i]?.[at]), at > 4 && page.columns.some((column) => column.stats[i]?.[at])))];
}

function difference([elements, changed, largest, distance, relative, cosine, odd]) {
  const line = (word, value) => make("tr", {}, make("th", { scope: "row" }, word), make("td", {}, value));
  return make("table", { class: "numbers" },
    make("thead", {}, make("tr", {}, make("th", { colspan: 2, scope: "colgroup" }, "the difference"))),
    make("tbody", {},
      line("elements changed", `${whole(changed)} of ${whole(elements)}`),
      line("relative change", percent(relative)),
      line("largest", short(largest)),
      line("norm", short(distance)),
      line("cosine", short(cosine, 7)),
      ...(odd ? [line("newly NaN or Inf", whole(odd))] : [])));
}

function drawHistogram(element, i, sides, page) {
  const chart = make("div", { class: "chart" });
  let logarithmic = false;
  const widest = Math.max(...sides.map(({ column }) => column.histogram[i][1]));
  const figure = () => [sides.map(({ column, file }) => bars(coarser(column.histogram[i], widest), file, page)), {
    barmode: "overlay",
    bargap: 0,
    margin: { l: 48, r: 8, t: 8, b: 28 },
    yaxis: { type: logarithmic ? "log" : "linear", nticks: 5, exponentformat: "SI" },
    xaxis: { nticks: 7, zeroline: true },
  }];
  const pick = (key) => {
    logarithmic = key === "log";
    redrawn.get(chart)();
  };
  element.append(make("div", { class: "heading" }, make("h3", {}, "Histogram"),
    choice("Scale of the counts", [["linear", "linear"], ["log", "log"]], "linear", pick)), chart);
  const [stats] = sides.map(({ column }) => column.stats[i]);
  draw(chart, `Histogram of the elements, from ${short(stats[0])} to ${short(stats[1])}`, figure);
}

// Join bins until they are as wide as those of the other file, so that the counts can be compared, unless too few would be
// left. Widths are powers of two and edges are multiples of the width, so no bin is split.
function coarser([start, width, ...counts], wanted) {
  if (counts.length < 2 || wanted > 16 * width) return [start, width, ...counts];
  const [times, first] = [wanted / width, Math.floor(start / wanted)];
  const joined = new Array(Math.floor((start / width + counts.length - 1) / times) - first + 1).fill(0);
  counts.forEach((number, at) => (joined[Math.floor((start / width + at) / times) - first] += number));
  return [first * wanted, wanted, ...joined];
}

function bars([start, width, ...counts], file, page) {
  // If all elements are equal, the only bin is too narrow to be visible.
  const shown = counts.length === 1 ? Math.max(width, Math.abs(start) / 50, 1e-3) : width;
  const centre = (at) => (counts.length === 1 ? start : start + (at + 0.5) * width);
  const said = {
    customdata: counts.map((number, at) => `${count(number, "element")} ${counts.length === 1 ? `at ${short(start)}` : `from ${short(start + at * width)} to ${short(start + (at + 1) * width)}`}`),
    hovertemplate: `%{customdata}<extra>${page.compared ? SIDES[file] : ""}</extra>`,
  };
  // The second histogram is an outline, so that the first stays visible.
  if (file && counts.length > 1) {
    const x = [centre(-1), ...counts.map((_, at) => centre(at)), centre(counts.length)];
    return { ...said, customdata: ["", ...said.customdata, ""], type: "scatter", mode: "lines", x, y: [0, ...counts, 0], line: { shape: "hvh", color: FILES[file], width: 1.6 } };
  }
  return {
    ...said,
    type: "bar",
    x: counts.map((_, at) => centre(at)),
    y: counts,
    width: shown,
    marker: { color: FILES[file], line: { width: 0 } },
    opacity: page.compared ? 0.6 : 0.9,
  };
}

async function drawHeat(element, i, sides, page) {
  const drawn = sides.filter(({ column }) => column.heat[i]);
  if (!drawn.length) return;
  const row = make("div", { class: "beside" });
  element.append(make("div", { class: "heading" }, make("h3", {}, "Heat map"), make("span", { class: "aside" }, drawnAs(drawn[0].column.heat[i], drawn[0].column.shape[i]))), row);
  const cells = await page.cells();
  const reach = Math.max(...drawn.map(({ column }) => Math.max(...column.heat[i].slice(5).map(Math.abs))));
  for (const { column, file } of drawn) {
    const chart = make("div", { class: "chart square" });
    const about = page.compared ? [make("figcaption", {}, side(file, page))] : [];
    row.append(make("figure", {}, ...about, chart));
    draw(chart, `Heat map, ${column.shape[i]}`, () => heat(column.heat[i], cells, reach));
  }
}

function drawnAs([, down, across, rows, columns], shape) {
  const flat = shape.split("×").length > 2 ? `${shape} as ${rows}×${columns}. ` : "";
  if (down === rows && across === columns) return `${flat}Each cell is one element.`;
  return `${flat}Each cell is the root mean square of about ${whole(Math.round(rows / down))}×${whole(Math.round(columns / across))} elements.`;
}

function heat([at, down, across, rows, columns, low, high], cells, reach) {
  const exact = down === rows && across === columns;
  const value = (code) => (code === 255 ? null : low + (code / 254) * (high - low));
  const z = Array.from({ length: down }, (_, row) => Array.from(cells.subarray(at + row * across, at + (row + 1) * across), value));
  const span = (cell, parts, length) => {
    const [from, to] = [Math.ceil((cell * length) / parts), Math.ceil(((cell + 1) * length) / parts) - 1];
    return from === to ? whole(from) : `${whole(from)}–${whole(to)}`;
  };
  const said = (number) => (number === null ? "not finite" : `${exact ? "" : "rms "}${short(number, 3)}`);
  const text = z.map((line, row) => line.map((number, column) => `${said(number)}<br>row ${span(row, down, rows)}<br>column ${span(column, across, columns)}`));
  const [cold, mild, hot] = [colour("cold"), colour("surface"), colour("hot")];
  return [[{
    type: "heatmap",
    z,
    x0: columns / across / 2 - 0.5,
    dx: columns / across,
    y0: rows / down / 2 - 0.5,
    dy: rows / down,
    text,
    hovertemplate: "%{text}<extra></extra>",
    zmin: exact ? -reach : 0,
    zmax: reach || 1,
    colorscale: exact ? [[0, cold], [0.5, mild], [1, hot]] : RISING,
    colorbar: { thickness: 10, outlinewidth: 0, len: 1, tickfont: { size: 11 }, nticks: 5 },
    hoverongaps: true,
  }], {
    margin: { l: 40, r: 4, t: 8, b: 28 },
    plot_bgcolor: colour("removed"),
    xaxis: { nticks: 5, showgrid: false, zeroline: false },
    yaxis: { nticks: 5, showgrid: false, zeroline: false, autorange: "reversed" },
  }];
}

const RISING = [[0, "#141432"], [0.25, "#3b2f7f"], [0.5, "#8b3a8e"], [0.75, "#e0636b"], [0.9, "#f7a86c"], [1, "#fdf0b5"]];

// Charts of equal tensors, from the first layer to the last.
function drawLayers(element, node, page) {
  element.append(make("p", { class: "note" }, `${page.newest(node.which[0]).shape} ${page.newest(node.which[0]).dtype}, ${size(node.bytes)} in total. To see one of them, open the row in the tree or click a point.`));
  const plots = [];
  if (page.compared && page.read) plots.push(["Relative change, layer by layer", () => relativeBars(node, page)]);
  if (page.columns.at(-1).stats[node.which[0]]) plots.push(["Mean ± std, min and max, layer by layer", () => bands(node, page)]);
  for (const [title, figure] of plots) {
    const chart = make("div", { class: "chart" });
    element.append(make("h3", {}, title), chart);
    draw(chart, title, figure).then(() => {
      chart.on("plotly_click", (event) => page.take(members(node, page.names)[event.points[0].pointIndex], true));
    });
  }
}

// Where the tensors of a row are on the axis, and the axis: their layer numbers, if the names differ in one number only;
// otherwise their places in the file.
function layerAxis(node, page) {
  const parts = node.which.map((i) => page.names[i].split(/(\d+)/));
  const differing = parts[0].flatMap((part, at) => (parts.some((own) => own[at] !== part) ? [at] : []));
  const at = node.which.map((_, place) => (differing.length === 1 ? Number(parts[place][differing[0]]) : place));
  const width = Math.max(...at) - Math.min(...at);
  const dtick = [1, 2, 5, 10].map((step) => step * 10 ** Math.floor(Math.log10(Math.max(width / 10, 1)))).find((step) => width / step <= 12);
  return [at, { tickmode: "linear", tick0: 0, dtick, title: { text: differing.length === 1 ? "layer" : "place in the file", standoff: 4 } }];
}

function bands(node, page) {
  const column = page.columns.at(-1);
  const stats = node.which.map((i) => column.stats[i] ?? []);
  const [at, axis] = layerAxis(node, page);
  const names = node.which.map((i) => plain(clipped(page.names[i], 80)));
  const tint = FILES[page.columns.length - 1];
  const line = (name, values, style) => ({
    type: "scatter", mode: at.length < 60 ? "lines+markers" : "lines", x: at, y: values, text: names, marker: { size: 5 },
    hovertemplate: `%{text}<br>${name} %{y:.4g}<extra></extra>`, line: { color: tint, width: 1.5, ...style }, name,
  });
  const [low, high] = [[2, -1], [2, 1]].map(([, sign]) => stats.map((own) => own[2] + sign * own[3]));
  return [[
    { ...line("mean − std", low, { width: 0 }), mode: "lines", hoverinfo: "skip", hovertemplate: null },
    { ...line("mean + std", high, { width: 0 }), mode: "lines", fill: "tonexty", fillcolor: `${tint}40`, hoverinfo: "skip", hovertemplate: null },
    line("min", stats.map((own) => own[0]), { dash: "dot", width: 1 }),
    line("max", stats.map((own) => own[1]), { dash: "dot", width: 1 }),
    line("mean", stats.map((own) => own[2]), {}),
  ], { margin: { l: 48, r: 8, t: 8, b: 40 }, xaxis: axis, hovermode: "closest" }];
}

function relativeBars(node, page) {
  const relative = node.which.map((i) => page.relative(i));
  const [at, axis] = layerAxis(node, page);
  return [[{
    type: "bar",
    x: at,
    y: relative,
    text: node.which.map((i) => plain(clipped(page.names[i], 80))),
    textposition: "none",
    customdata: relative.map(percent),
    hovertemplate: "%{text}<br>%{customdata}<extra></extra>",
    marker: { color: colour("changed") },
  }], { margin: { l: 48, r: 8, t: 8, b: 40 }, yaxis: { tickformat: "~%", rangemode: "tozero", nticks: 5 }, xaxis: axis }];
}
