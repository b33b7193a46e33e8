// What the page carries, unpacked: blocks of gzip in base64 go in, bytes and text come out.

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

// A promise of something that is made when it is first asked for.
function later(make) {
  let made;
  return () => (made ??= make());
}
