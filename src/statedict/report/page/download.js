// Downloads: the table of all tensors as CSV.

function download(name, type, text) {
  const address = URL.createObjectURL(new Blob([text], { type }));
  make("a", { href: address, download: name }).click();
  URL.revokeObjectURL(address);
}

// All tensors, one in each line: facts and statistics of each file, and the change between two files.
function tensorTable(page) {
  const { names, values } = page;
  const columns = [
    ...(page.roots.length > 1 ? [["root", (i) => page.roots[values.root[i]]]] : []),
    ["name", page.stored],
    ...(Object.keys(values.stored).length ? [["parameter", (i) => names[i]]] : []),
    ...page.columns.flatMap((column, file) => {
      const suffix = page.compared ? ` ${SIDES[file]}` : "";
      return [
        ...["shape", "dtype", "elements", "bytes"].map((key) => [`${key}${suffix}`, (i) => column[key][i]]),
        ...(page.read ? MOMENTS.map((key, at) => [`${key}${suffix}`, (i) => column.stats[i]?.[at]]) : []),
      ];
    }),
    ...(page.compared ? [["status", (i) => values.status[i]], ["relative change", (i) => values.changes[i]?.[4]]] : []),
  ];
  const lines = [columns.map(([title]) => title), ...names.map((_, i) => columns.map(([, value]) => value(i)))];
  return lines.map((line) => `${line.map(cell).join(",")}\r\n`).join("");
}

// A cell of a CSV file. Spreadsheets run text that begins with one of these characters as a formula, so it gets an apostrophe.
function cell(value) {
  const text = typeof value === "string" && /^[=+\-@]/.test(value) ? `'${value}` : String(value ?? "");
  return /[",\r\n]/.test(text) ? `"${text.replace(/"/g, '""')}"` : text;
}
