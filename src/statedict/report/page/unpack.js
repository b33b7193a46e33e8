// Decode the data that is embedded in the page as gzip in base64.

function decoded(id) {
  const text = document.getElementById(id).textContent;
  if (Uint8Array.fromBase64) return Uint8Array.fromBase64(text);
  const packed = atob(text);
  const bytes = new Uint8Array(packed.length);
  for (let i = 0; i < packed.length; i++) bytes[i] = packed.charCodeAt(i);
  return bytes;
}

function inflated(id) {
  return new Response(new Blob([decoded(id)]).stream().pipeThrough(new DecompressionStream("gzip")));
}

const unpackedText = (id) => inflated(id).text();
const unpackedBytes = async (id) => new Uint8Array(await inflated(id).arrayBuffer());

// A function that creates a value at the first call, and returns it at every call.
function later(make) {
  let made;
  return () => (made ??= make());
}
