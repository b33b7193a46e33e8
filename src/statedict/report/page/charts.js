// Charts. plotly.js is decoded when the first one is drawn; all are redrawn when the page's colours change.

const plotly = later(async () => {
  const script = document.createElement("script");
  script.textContent = await unpackedText("charting-data"); // its hash is in the page's policy
  document.head.append(script);
  return window.Plotly;
});

const redrawn = new Map(); // element → the function that draws it
const PALETTE = ["#4c8df5", "#f2a33a", "#35b58a", "#9b7bf0", "#ea6a9a", "#22b3c4", "#e8743b", "#8fb73e", "#7480e6", "#c98f4e"];
const FILES = ["#4c8df5", "#f2a33a"];

const colour = (name) => getComputedStyle(document.documentElement).getPropertyValue(`--${name}`).trim();

// Escape text for Plotly, which interprets some tags.
const plain = (text) => String(text).replace(/&/g, "&amp;").replace(/</g, "&lt;").replace(/>/g, "&gt;");

// Two colours of six hexadecimal digits mixed.
function mixed(one, other, share) {
  const part = (colour, at) => parseInt(colour.slice(at, at + 2), 16);
  const mix = (at) => Math.round(part(one, at) * (1 - share) + part(other, at) * share);
  return `#${[1, 3, 5].map((at) => mix(at).toString(16).padStart(2, "0")).join("")}`;
}

// The only tool of a chart: a button that saves it as PNG.
const MODES = { displayModeBar: true, displaylogo: false, modeBarButtons: [["toImage"]] };
const named = (label) => label.replace(/[^\w.]+/g, "-").slice(0, 60);

// Draw what `figure()` returns ([traces, layout]) in the element, now and whenever the colours change; `label` describes it
// for screen readers. Resolves to the element, which then has Plotly's events.
async function draw(element, label, figure) {
  element.setAttribute("role", "figure");
  element.setAttribute("aria-label", label);
  const redraw = async () => {
    const library = await plotly();
    if (!element.isConnected) return void redrawn.delete(element);
    const [traces, layout] = figure();
    await library.react(element, traces, dressed(layout), { ...MODES, responsive: true, toImageButtonOptions: { filename: named(label), scale: 2 } });
  };
  redrawn.set(element, redraw);
  await redraw();
  return element;
}

function redrawAll() {
  for (const redraw of redrawn.values()) redraw();
}

function dressed(layout) {
  const axis = { gridcolor: colour("line"), linecolor: colour("line"), zerolinecolor: colour("line"), automargin: true };
  return {
    margin: { l: 8, r: 8, t: 8, b: 8, pad: 0 },
    showlegend: false,
    dragmode: false,
    paper_bgcolor: colour("surface"),
    plot_bgcolor: colour("surface"),
    modebar: { bgcolor: "rgba(0,0,0,0)", color: colour("quiet"), activecolor: colour("accent") },
    ...layout,
    font: { family: getComputedStyle(document.body).fontFamily, size: 12, color: colour("quiet") },
    hoverlabel: { bgcolor: colour("raised"), bordercolor: colour("line"), font: { color: colour("ink") }, align: "left" },
    xaxis: { ...axis, ...layout.xaxis },
    yaxis: { ...axis, ...layout.yaxis },
  };
}
