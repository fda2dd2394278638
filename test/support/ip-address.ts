const IPV4 = /^(?:(?:25[0-5]|2[0-4]\d|1\d\d|[1-9]?\d)(?:\.(?!$)|$)){4}$/;

/** Whether a text is an IPv6 address, in hexadecimal throughout. Browsers have no `node:net`, but know addresses in URLs. */
function isIPv6(text: string): boolean {
  return /^[0-9a-f:]+$/i.test(text) && URL.canParse(`http://[${text}]/`);
}

/** An IP address as four 32-bit words; of IPv4 the first, the others are 0. */
export class IpAddress {
  private constructor(
    readonly version: 4 | 6,
    readonly words: Uint32Array,
  ) {}

  /** @throws TypeError for what is no address */
  static parse(text: string): IpAddress {
    const words = new Uint32Array(4);
    if (IPV4.test(text)) {
      words[0] = text.split(".").reduce((sum, part) => sum * 256 + Number(part), 0);
      return new IpAddress(4, words);
    }
    if (!isIPv6(text)) {
      throw new TypeError(`${text} is no IP address; give 10.0.0.1 or fd00::1`);
    }
    const [left = "", right = ""] = text.split("::");
    const head = left === "" ? [] : left.split(":");
    const tail = right === "" ? [] : right.split(":");
    const gap = Array.from({ length: 8 - head.length - tail.length }, () => "0");
    for (const [i, part] of [...head, ...gap, ...tail].entries()) {
      words[i >> 1] = words[i >> 1]! * 65536 + parseInt(part, 16);
    }
    return new IpAddress(6, words);
  }

  /** The address that a MAC address makes its owner listen at on its own link (RFC 4291 2.5.6). */
  static linkLocal(mac: number): IpAddress {
    const high = Math.floor(mac / 2 ** 24);
    const words = [0xfe800000, 0, ((high ^ 0x20000) << 8) | 0xff, 0xfe000000 + (mac % 2 ** 24)];
    return new IpAddress(6, Uint32Array.from(words));
  }

  /** Copies words that will change. */
  static of(version: 4 | 6, words: Uint32Array): IpAddress {
    return new IpAddress(version, words.slice());
  }

  /** The group that an address's owner listens to for neighbour solicitations (RFC 4291 2.7.1). */
  solicitedNode(): IpAddress {
    const words = [0xff020000, 0, 1, 0xff000000 + (this.words[3]! & 0xffffff)];
    return new IpAddress(6, Uint32Array.from(words));
  }

  /** MAC address of an IPv6 group (RFC 2464 7). */
  groupMac(): number {
    return 0x333300000000 + this.words[3]!;
  }

  is(version: number, words: Uint32Array): boolean {
    const own = this.words;
    return (
      version === this.version &&
      words[0] === own[0] &&
      words[1] === own[1] &&
      words[2] === own[2] &&
      words[3] === own[3]
    );
  }

  /** Writes 4 or 16 bytes in network order. */
  write(data: DataView, at: number): void {
    const n = this.version === 4 ? 1 : 4;
    for (let i = 0; i < n; i++) data.setUint32(at + 4 * i, this.words[i]!);
  }

  /** Number of bytes. */
  get length(): number {
    return this.version === 4 ? 4 : 16;
  }

  toString(): string {
    const halves = [...this.words].flatMap((word) => [word >>> 16, word & 0xffff]);
    if (this.version === 6) return halves.map((half) => half.toString(16)).join(":");
    return halves
      .slice(0, 2)
      .flatMap((half) => [half >>> 8, half & 255])
      .join(".");
  }
}

/** Sum of the 16-bit words of an address. */
export function wordSum(words: Uint32Array): number {
  let sum = 0;
  for (let i = 0; i < 4; i++) sum += (words[i]! >>> 16) + (words[i]! & 0xffff);
  return sum;
}

/** Folds a sum of 16-bit words in network order. */
export function fold(sum: number): number {
  while (sum > 0xffff) sum = (sum & 0xffff) + Math.floor(sum / 65536);
  return sum;
}
