/*
 * The few frames that this example sends: ARP and ping, and the commands that the guest program obeys (guest/main.c).
 */

const TYPE_IP = 0x0800;
const TYPE_ARP = 0x0806;
const TYPE_RARP = 0x8035;
const TYPE_COMMAND = 0x88b5;
const HEADER = 14;

/** Command: send frames to whoever sent this. */
export const COMMAND_FLOOD = 1;
/** Command: one of those frames. */
export const COMMAND_FLOODED = 2;
/** Command: switch the machine off. */
export const COMMAND_OFF = 3;

/** Everybody. */
export const BROADCAST = new Uint8Array(6).fill(0xff);

/** Who sends, and from which IP address. */
export interface Station {
  readonly mac: Uint8Array;
  readonly ip: Uint8Array;
}

function frame(to: Uint8Array, from: Uint8Array, type: number, body: number): [Uint8Array, DataView] {
  const bytes = new Uint8Array(HEADER + body);
  bytes.set(to, 0);
  bytes.set(from, 6);
  const view = new DataView(bytes.buffer);
  view.setUint16(12, type);
  return [bytes, view];
}

const typeOf = (bytes: Uint8Array): number => ((bytes[12] ?? 0) << 8) | (bytes[13] ?? 0);

const same = (a: Uint8Array, b: Uint8Array): boolean =>
  a.length === b.length && a.every((byte, i) => byte === b[i]);

/** The Internet checksum of an even number of bytes, which these packets are. */
function checksum(bytes: Uint8Array): number {
  let sum = 0;
  for (let i = 0; i < bytes.length; i += 2) sum += ((bytes[i] as number) << 8) | (bytes[i + 1] as number);
  while (sum > 0xffff) sum = (sum & 0xffff) + (sum >>> 16);
  return ~sum & 0xffff;
}

/** Asks who has an IP address. */
export function arpRequest(from: Station, ip: Uint8Array): Uint8Array {
  const [bytes, view] = frame(BROADCAST, from.mac, TYPE_ARP, 28);
  view.setUint16(14, 1);
  view.setUint16(16, TYPE_IP);
  bytes.set([6, 4, 0, 1], 18);
  bytes.set(from.mac, 22);
  bytes.set(from.ip, 28);
  bytes.set(ip, 38);
  return bytes;
}

/** The MAC address that an ARP reply gives for an IP address, or null when this is no such reply. */
export function arpAnswer(bytes: Uint8Array, ip: Uint8Array): Uint8Array | null {
  if (bytes.length < 42 || typeOf(bytes) !== TYPE_ARP || bytes[21] !== 2) return null;
  return same(bytes.subarray(28, 32), ip) ? bytes.slice(22, 28) : null;
}

/** A ping with so many bytes of payload (even). */
export function echoRequest(
  from: Station,
  to: Station,
  { id, sequence, size }: { id: number; sequence: number; size: number },
): Uint8Array {
  const [bytes, view] = frame(to.mac, from.mac, TYPE_IP, 28 + size);
  view.setUint8(14, 0x45);
  view.setUint16(16, 28 + size);
  view.setUint8(22, 64);
  view.setUint8(23, 1);
  bytes.set(from.ip, 26);
  bytes.set(to.ip, 30);
  view.setUint16(24, checksum(bytes.subarray(14, 34)));
  view.setUint8(34, 8);
  view.setUint16(38, id);
  view.setUint16(40, sequence);
  for (let i = 0; i < size; i++) bytes[42 + i] = i;
  view.setUint16(36, checksum(bytes.subarray(34)));
  return bytes;
}

/** Whether a frame is the answer to this ping, to the last bit, checksums included. */
export function isEchoReply(bytes: Uint8Array, request: Uint8Array): boolean {
  if (bytes.length !== request.length || typeOf(bytes) !== TYPE_IP || bytes[34] !== 0) return false;
  return (
    same(bytes.subarray(0, 6), request.subarray(6, 12)) &&
    same(bytes.subarray(26, 30), request.subarray(30, 34)) &&
    same(bytes.subarray(30, 34), request.subarray(26, 30)) &&
    same(bytes.subarray(38), request.subarray(38)) &&
    checksum(bytes.subarray(14, 34)) === 0 &&
    checksum(bytes.subarray(34)) === 0
  );
}

/** Whether a frame only says where a card is: what the host sends for one that was restored. */
export function isAnnouncement(bytes: Uint8Array): boolean {
  return typeOf(bytes) === TYPE_RARP;
}

/** A command; 60 bytes. */
export function command(to: Uint8Array, from: Uint8Array, code: number, count = 0, size = 0): Uint8Array {
  const [bytes, view] = frame(to, from, TYPE_COMMAND, 46);
  view.setUint32(14, code, true);
  view.setUint32(18, count, true);
  view.setUint32(22, size, true);
  return bytes;
}

/** The sequence number of a frame of a flood, or null when it is none, or not as it was sent. */
export function floodedSequence(bytes: Uint8Array, size: number): number | null {
  const view = new DataView(bytes.buffer, bytes.byteOffset, bytes.length);
  if (bytes.length !== size || typeOf(bytes) !== TYPE_COMMAND || view.getUint32(14, true) !== COMMAND_FLOODED)
    return null;
  const sequence = view.getUint32(18, true);
  for (let i = 26; i < size; i++) if (bytes[i] !== ((sequence + i) & 0xff)) return null;
  return sequence;
}
