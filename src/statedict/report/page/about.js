// The summary of each file at the top of the page, and its other contents at the end.

function showAbout(element, page) {
  page.values.files.forEach((file, which) => {
    const made = file.producer === "unknown" ? [] : [`written by ${file.producer}`];
    const summary = [file.format, size(file.bytes), ...made, count(file.tensors, "tensor"), counted(file)];
    const dtypes = file.dtypes.slice(0, 6).map(([name, , bytes]) => make("span", { class: "chip" }, `${name} ${size(bytes)}`));
    element.append(make("div", { class: "file" },
      make("h1", {}, page.compared ? side(which, page) : null, ...breakable(clipped(file.name, 200))),
      make("p", { class: "summary" }, summary.join(" · ")),
      make("p", { class: "chips" }, ...dtypes),
      ...file.warnings.map(([level, line]) => make("p", { class: `warning ${level}` }, line))));
  });
}

function counted({ counted: [number, noun, root] }) {
  return `${about(number)} ${noun}${number === 1 ? "" : "s"}${root ? ` in ${clipped(root, 40)}` : ""}`;
}

function showOther(element, page) {
  const held = page.values.files.filter((file) => file.other.length);
  if (!held.length) return;
  element.hidden = false;
  element.append(heading("other-title", "Also in the file"));
  for (const file of held) {
    const lines = file.other.map(([path, type, value]) =>
      make("tr", {}, make("th", { scope: "row" }, path || "(the file)"), make("td", {}, type), make("td", {}, value)));
    if (page.compared) element.append(make("h3", {}, side(page.values.files.indexOf(file), page)));
    element.append(make("div", { class: "scroll" }, make("table", { class: "list" },
      make("thead", {}, make("tr", {}, ...["where", "type", "value"].map((word) => make("th", { scope: "col" }, word)))),
      make("tbody", {}, ...lines))));
    if (file.others > lines.length) element.append(make("p", { class: "note" }, `and ${count(file.others - lines.length, "more value")}`));
  }
}
