// Create elements. Text from a file is always inserted as text, never as markup.

// make("td", {class: "n"}, "text", otherElement): functions become event listeners, null attributes are left out.
function make(kind, attributes = {}, ...children) {
  const made = document.createElement(kind);
  for (const [name, value] of Object.entries(attributes)) {
    if (typeof value === "function") made.addEventListener(name, value);
    else if (value !== null && value !== undefined && value !== false) made.setAttribute(name, value === true ? "" : value);
  }
  made.append(...children.filter((child) => child !== null && child !== undefined));
  return made;
}

const byId = (id) => document.getElementById(id);

// The heading of a card, with further elements next to it.
function heading(id, text, ...beside) {
  return make("div", { class: "heading" }, make("h2", { id }, text), ...beside);
}

// Text that is broken after punctuation rather than inside a word.
function breakable(text) {
  return text.split(/(?<=[-_./])/).flatMap((part, at) => (at ? [make("wbr"), part] : [part]));
}

// A button that copies the text. Without access to the clipboard, it selects the text of the element in front of it.
function copier(text) {
  const copy = async () => {
    try {
      await navigator.clipboard.writeText(text);
      button.textContent = "copied";
    } catch {
      getSelection().selectAllChildren(button.previousElementSibling);
    }
  };
  const button = make("button", { type: "button", class: "quiet copy", title: "Copy the name", click: copy }, "copy");
  return button;
}

// The letter of one of two files, with its name as a tooltip.
const SIDES = ["A", "B"];
const side = (file, page) => make("abbr", { class: `side-of file${file}`, title: page.values.files[file].name }, SIDES[file]);

// A row of buttons, one of which is pressed; `words` is [[key, label]…].
function choice(label, words, chosen, pick) {
  const group = make("div", { class: "choice", role: "group", "aria-label": label });
  for (const [key, word] of words) {
    const press = () => {
      for (const button of group.children) button.setAttribute("aria-pressed", String(button === pressed));
      pick(key);
    };
    const pressed = make("button", { type: "button", "aria-pressed": String(key === chosen), click: press }, word);
    group.append(pressed);
  }
  return group;
}
