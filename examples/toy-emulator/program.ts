/** Reads guest/program.hex: bytes in hexadecimal digits, lines beginning with # are comments. @throws Error naming the line */
export function parseProgram(text: string): Uint8Array {
  const bytes: number[] = [];
  for (const [i, line] of text.split("\n").entries()) {
    const digits = line.trim();
    if (digits.startsWith("#")) continue;
    if (!/^([0-9a-f]{2})*$/.test(digits))
      throw new Error(`line ${i + 1} of the program is not hexadecimal: ${line}`);
    for (let at = 0; at < digits.length; at += 2) bytes.push(parseInt(digits.slice(at, at + 2), 16));
  }
  if (bytes.length === 0) throw new Error("the program is empty");
  return Uint8Array.from(bytes);
}
