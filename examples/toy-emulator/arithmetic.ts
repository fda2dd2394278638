/** Upper 32 bits of the product of two unsigned numbers, of which nothing is lost in a double: by halves. */
export function multiplyHighUnsigned(a: number, b: number): number {
  const aHigh = a >>> 16;
  const aLow = a & 0xffff;
  const bHigh = b >>> 16;
  const bLow = b & 0xffff;
  const middle = aHigh * bLow + ((aLow * bLow) >>> 16); // less than 2^32, and so is the next
  const carried = (middle & 0xffff) + aLow * bHigh;
  return (aHigh * bHigh + (middle >>> 16) + (carried >>> 16)) | 0;
}

/** The same of two signed numbers. */
export function multiplyHigh(a: number, b: number): number {
  return (multiplyHighUnsigned(a, b) - (a < 0 ? b : 0) - (b < 0 ? a : 0)) | 0;
}

/** The same of a signed and an unsigned number. */
export function multiplyHighMixed(a: number, b: number): number {
  return (multiplyHighUnsigned(a, b) - (a < 0 ? b : 0)) | 0;
}

/** The M extension's instructions by funct3. Nothing of it traps: a division by zero has a result. */
export function multiplyDivide(funct3: number, a: number, b: number): number {
  switch (funct3) {
    case 0:
      return Math.imul(a, b);
    case 1:
      return multiplyHigh(a, b);
    case 2:
      return multiplyHighMixed(a, b);
    case 3:
      return multiplyHighUnsigned(a, b);
    case 4:
      return b === 0 ? -1 : (a / b) | 0; // -2^31 / -1 is 2^31, which wraps as it should
    case 5:
      return b === 0 ? -1 : ((a >>> 0) / (b >>> 0)) >>> 0;
    case 6:
      return b === 0 ? a : (a % b) | 0;
    default:
      return b === 0 ? a : (a >>> 0) % (b >>> 0);
  }
}

/** What an atomic memory operation stores, by funct5: of the value in memory and that of the register. Undefined: there is none. */
export function atomicResult(funct5: number, old: number, operand: number): number | undefined {
  switch (funct5) {
    case 0x01:
      return operand;
    case 0x00:
      return (old + operand) | 0;
    case 0x04:
      return old ^ operand;
    case 0x0c:
      return old & operand;
    case 0x08:
      return old | operand;
    case 0x10:
      return Math.min(old, operand);
    case 0x14:
      return Math.max(old, operand);
    case 0x18:
      return Math.min(old >>> 0, operand >>> 0) | 0;
    case 0x1c:
      return Math.max(old >>> 0, operand >>> 0) | 0;
    default:
      return undefined;
  }
}
