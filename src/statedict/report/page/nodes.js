// Build the nodes of the folded tree from rows of [depth, label, times, bytes, tensors]. Each node has its parent, its children,
// and the totals of all tensors below it.
//
// A node is a state dict of several in the file (`kind` "root"), a module ("module"), one or several equal tensors ("tensor",
// with their indices in `which`), or one of the tensors of such a row ("one", created when the row is opened).

function grown(rows, roots, elements) {
  const root = { kind: "module", label: "", depth: -1, times: 1, bytes: 0, elements: 0, which: [], children: [], parent: null };
  const path = [root];
  for (const [depth, label, times, bytes, which] of rows) {
    const parent = path[depth];
    const kind = which.length ? "tensor" : roots > 1 && !depth ? "root" : "module";
    const own = which.reduce((sum, i) => sum + elements(i), 0);
    const node = { kind, label, depth, times, bytes, elements: own, which, children: [], parent };
    parent.children.push(node);
    path[depth + 1] = node;
    path.length = depth + 2;
  }
  for (const child of root.children) root.bytes += child.bytes;
  for (const node of [...everyNode(root)].reverse()) node.parent.elements += node.elements;
  return root;
}

// The tensors of a row as separate nodes.
function members(node, names) {
  return node.which.length < 2
    ? []
    : (node.members ??= node.which.map((i) => ({
        kind: "one", label: names[i], depth: node.depth + 1, times: 1, bytes: node.bytes / node.times,
        which: [i], children: [], parent: node,
      })));
}

function full(node) {
  if (node.kind === "one") return node.label;
  const labels = [];
  for (let at = node; at.parent && at.kind !== "root"; at = at.parent) labels.unshift(at.label);
  return labels.join(".");
}

// All nodes, parents first; not recursive, because names may be deeply nested.
function* everyNode(root) {
  const open = [...root.children].reverse();
  while (open.length) {
    const node = open.pop();
    yield node;
    for (let i = node.children.length - 1; i >= 0; i--) open.push(node.children[i]);
  }
}
