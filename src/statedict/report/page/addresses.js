// The address of a selected row is in the fragment of the page's URL: `#tensor=NAME`, with `root=` if there are several state dicts.

function addressOf(node, page) {
  const [i] = node.which;
  const fields = new URLSearchParams(page.roots.length > 1 ? { root: page.roots[page.values.root[i]] } : {});
  fields.set("tensor", node.which.length > 1 ? full(node) : page.names[i]);
  return `#${fields}`;
}

// The node of an address; null if the page does not have it, undefined if the address does not name a tensor.
function addressed(fragment, root, page) {
  const fields = new URLSearchParams(fragment.slice(1));
  const [name, wanted] = [fields.get("tensor"), fields.get("root")];
  if (name === null) return undefined;
  const fits = (i) => wanted === null || page.roots[page.values.root[i]] === wanted;
  const found = page.names.findIndex((own, i) => own === name && fits(i));
  if (found >= 0) return page.nodeOf(found);
  return [...everyNode(root)].find((node) => node.which.length > 1 && fits(node.which[0]) && full(node) === name) ?? null;
}
