// The tree of tensors. Rows are created when they become visible, so the cost depends on the screen, not on the number of names.
//
// An ARIA tree: Tab reaches one row, ↑ and ↓ move between rows, → and ← open and close, Enter or Space selects a tensor. A
// search shows only the matching rows, and opens as many as fit on the screen.

const AT_ONCE = 200; // rows of one parent that are shown at a time
const AT_FIRST = 22; // rows shown at first
const OPENED_BY_SEARCH = 150; // rows that a search opens

// `facts(node)` returns the elements next to a row's label; `take(node)` is called when a tensor is selected.
function planted(element, root, names, { facts, take }) {
  const opened = new Set(); // while browsing
  let query = null; // {terms, hits: node → how many of its tensors match, match: index → bool, opened}
  let taken = null;
  let bySize = false;

  const isOpen = (node) => (query ? query.opened : opened).has(node);
  // A name that is also a prefix of others has its own tensors and those below it.
  const below = (node) => (node.kind === "tensor" ? [...members(node, names), ...node.children] : node.children);
  const ordered = (nodes) => (bySize && nodes[0]?.kind !== "root" ? [...nodes].sort((a, b) => b.bytes - a.bytes) : nodes);
  const seen = (node) => {
    const nodes = ordered(below(node));
    if (!query) return nodes;
    return nodes.filter((child) => (child.kind === "one" ? query.match(child.which[0]) : query.hits.get(child)));
  };

  function grow(list, nodes, from, until) {
    const last = Math.max(from + AT_ONCE, until + 1);
    list.append(...nodes.slice(from, last).map(row));
    if (last >= nodes.length) return;
    const more = make("li", { role: "treeitem", class: "more", tabindex: -1, "aria-level": level(nodes[0]) },
      make("div", { class: "row" }, `${count(nodes.length - last, "more row")}…`));
    more.grow = () => {
      more.remove();
      grow(list, nodes, last, last);
      focus(list.children[last]);
    };
    list.append(more);
  }

  const level = (node) => node.depth + 1;

  function row(node) {
    const leads = seen(node).length > 0;
    const item = make("li", { role: "treeitem", tabindex: -1, "aria-level": level(node), "aria-selected": String(node === taken) });
    const beside = facts(node);
    item.setAttribute("aria-label", [clipped(node.label), ...beside.map((part) => part.textContent)].filter(Boolean).join(", "));
    item.node = node;
    if (leads) item.setAttribute("aria-expanded", "false");
    item.append(make("div", { class: `row ${node.kind}` },
      make("span", { class: "twist", "aria-hidden": "true" }),
      make("span", { class: "label", title: clipped(node.label, 300) }, ...highlighted(clipped(node.label))),
      ...beside));
    item.firstChild.style.paddingInlineStart = `${Math.min(node.depth, 24) * 14}px`;
    if (leads && isOpen(node)) open(item);
    return item;
  }

  function highlighted(label) {
    if (!query) return [label];
    const lower = label.toLowerCase();
    const places = query.terms.map((term) => [lower.indexOf(term), term.length]).filter(([at]) => at >= 0);
    const parts = [];
    let end = 0;
    for (const [at, length] of places.sort(([a], [b]) => a - b)) {
      if (at < end) continue;
      parts.push(label.slice(end, at), make("mark", {}, label.slice(at, at + length)));
      end = at + length;
    }
    return [...parts, label.slice(end)];
  }

  function open(item, until = -1) {
    if (item.getAttribute("aria-expanded") !== "false") return;
    item.setAttribute("aria-expanded", "true");
    (query ? query.opened : opened).add(item.node);
    const list = make("ul", { role: "group" });
    grow(list, seen(item.node), 0, until);
    item.append(list);
  }

  function close(item) {
    if (item.getAttribute("aria-expanded") !== "true") return;
    item.setAttribute("aria-expanded", "false");
    (query ? query.opened : opened).delete(item.node);
    item.lastChild.remove();
  }

  const toggle = (item) => (item.getAttribute("aria-expanded") === "true" ? close(item) : open(item));

  function focus(item, move = true) {
    element.querySelector('[tabindex="0"]')?.setAttribute("tabindex", "-1");
    item?.setAttribute("tabindex", "0");
    if (move) item?.focus();
  }

  function act(item) {
    if (item.grow) return item.grow();
    if (!item.node.which.length) return toggle(item);
    mark(item.node);
    take(item.node);
  }

  function mark(node) {
    taken = node;
    for (const item of element.querySelectorAll('[aria-selected="true"]')) item.setAttribute("aria-selected", "false");
    const found = [...element.querySelectorAll('[role="treeitem"]')].find((item) => item.node === node);
    found?.setAttribute("aria-selected", "true");
    return found;
  }

  function render() {
    element.replaceChildren();
    grow(element, seen(root), 0, -1);
    focus(element.firstElementChild, false);
  }

  element.addEventListener("click", (event) => {
    const item = event.target.closest('[role="treeitem"]');
    if (!item) return;
    focus(item);
    if (event.target.closest(".twist") && !item.grow) toggle(item);
    else act(item);
  });

  element.addEventListener("keydown", (event) => {
    const item = event.target.closest('[role="treeitem"]');
    if (!item || event.ctrlKey || event.metaKey || event.altKey || !KEYS[event.key]) return;
    event.preventDefault();
    event.stopPropagation();
    const items = [...element.querySelectorAll('[role="treeitem"]')];
    KEYS[event.key](item, items, items.indexOf(item));
  });

  const parentOf = (item) => item.parentElement.closest('[role="treeitem"]');
  const KEYS = {
    ArrowDown: (item, items, at) => focus(items[Math.min(at + 1, items.length - 1)]),
    ArrowUp: (item, items, at) => focus(items[Math.max(at - 1, 0)]),
    ArrowRight: (item, items, at) =>
      item.getAttribute("aria-expanded") === "false" ? open(item)
      : item.getAttribute("aria-expanded") === "true" ? focus(items[at + 1]) : undefined,
    ArrowLeft: (item) =>
      item.getAttribute("aria-expanded") === "true" ? close(item) : parentOf(item) && focus(parentOf(item)),
    Home: (item, items) => focus(items[0]),
    End: (item, items) => focus(items.at(-1)),
    Enter: (item) => act(item),
    " ": (item) => act(item),
  };

  // Show only the tensors whose names contain every term; null shows all again. Returns the number of matches.
  function search(terms) {
    if (!terms) {
      query = null;
      render();
      return names.length;
    }
    const lower = (names.lower ??= names.map((name) => name.toLowerCase()));
    const match = (i) => terms.every((term) => lower[i].includes(term));
    const hits = new Map();
    let found = 0;
    for (const node of everyNode(root)) {
      const matched = node.which.filter(match).length;
      found += matched;
      for (let at = node; matched && at; at = at.parent) hits.set(at, (hits.get(at) ?? 0) + matched);
    }
    query = { terms, match, hits, opened: new Set() };
    let rows = 0;
    for (const node of everyNode(root)) {
      const matched = hits.get(node);
      if (!matched || rows > OPENED_BY_SEARCH) continue;
      const shown = seen(node).length;
      if (node.children.length || matched < node.which.length) {
        query.opened.add(node);
        rows += Math.min(shown, AT_ONCE);
      }
    }
    render();
    return found;
  }

  // Open the unfiltered tree down to a node, and select it.
  function reveal(node) {
    const path = [];
    for (let at = node; at.parent; at = at.parent) path.unshift(at);
    let list = element;
    for (const step of path) {
      let item;
      while (!(item = [...list.children].find((child) => child.node === step)) && list.lastChild?.grow) list.lastChild.grow();
      if (!item) return;
      if (step === node) {
        focus(item, false);
        item.firstChild.scrollIntoView({ block: "nearest" });
        break;
      }
      open(item);
      list = item.lastChild;
    }
    mark(node);
  }

  // The row that Enter in the search selects: the first with tensors, all of which match.
  const firstFound = () => [...element.querySelectorAll('[role="treeitem"]')]
    .find((item) => item.node?.which.length && item.node.which.every(query.match));

  // Initially the largest modules are open, as many as fit on a screen; of several state dicts, only the first is open.
  const shown = root.children[0]?.kind === "root" ? [root.children[0]] : root.children;
  const heaviest = [...everyNode({ children: shown })].filter((node) => node.children.length).sort((a, b) => b.bytes - a.bytes || a.depth - b.depth);
  let rows = root.children.length;
  for (const node of heaviest) {
    if (node.parent !== root && !opened.has(node.parent)) continue;
    rows += node.children.length;
    if (rows > AT_FIRST) break;
    opened.add(node);
  }
  render();
  return {
    search,
    reveal,
    focusFirst: () => focus((query && firstFound()) ?? element.querySelector('[role="treeitem"]')),
    takeFirst: () => {
      const item = query && firstFound();
      if (!item) return;
      focus(item, false);
      act(item);
    },
    sort: (wanted) => {
      bySize = wanted;
      render();
    },
  };
}
