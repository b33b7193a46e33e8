// Format numbers.

const UNITS = ["B", "kB", "MB", "GB", "TB", "PB"];

// Bytes in decimal units with three digits, as `statedict inspect` prints them.
function size(bytes) {
  let power = 0;
  while (power < UNITS.length - 1 && bytes >= 999.5 * 1000 ** power) power++;
  const value = bytes / 1000 ** power;
  const digits = !power || value >= 99.95 ? 0 : value >= 9.995 ? 1 : 2;
  return `${value.toFixed(digits)} ${UNITS[power]}`;
}

const whole = (number) => number.toLocaleString("en");

const count = (number, noun) => `${whole(number)} ${noun}${number === 1 ? "" : "s"}`;

// 6,738,415,616 → 6.74 billion.
function about(number) {
  for (const [unit, word] of [[1e12, "trillion"], [1e9, "billion"], [1e6, "million"]]) {
    if (number >= unit) return `${(number / unit).toPrecision(3)} ${word}`;
  }
  return whole(number);
}

// 397,632 → 398k.
function brief(number) {
  for (const [unit, letter] of [[1e12, "T"], [1e9, "B"], [1e6, "M"], [1e3, "k"]]) {
    if (number >= 0.9995 * unit) return `${Number((number / unit).toPrecision(3))}${letter}`;
  }
  return whole(number);
}

// A number with at most `digits` significant digits.
function short(number, digits = 5) {
  if (number === null || number === undefined) return "–";
  if (number === "Infinity") return "∞";
  if (Number.isInteger(number) && Math.abs(number) < 1e15) return whole(number);
  const size = Math.abs(number);
  if (size >= 1e-4 && size < 1e6) return String(Number(number.toPrecision(digits)));
  return number.toExponential(digits - 1).replace(/\.?0+e/, "e").replace("e+", "e");
}

// A share as a percentage: 0.012 → 1.2%.
function percent(share) {
  if (Number(share) === Infinity) return "∞";
  if (!share) return "0%";
  const value = share * 100;
  return value < 0.001 ? `${value.toExponential(1)}%` : `${Number(value.toPrecision(value < 10 ? 2 : 3))}%`;
}

const clipped = (text, length = 120) => (text.length <= length ? text : `${text.slice(0, length - 1)}…`);
