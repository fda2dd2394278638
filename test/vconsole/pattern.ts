/** Bytes that depend on where they stand, all values among them. */
export function pattern(length: number, seed = 0): Uint8Array<ArrayBuffer> {
  const bytes = new Uint8Array(length);
  for (let i = 0; i < length; i++) bytes[i] = (i * 131 + (i >>> 8) * 7 + seed * 17) & 0xff;
  return bytes;
}
