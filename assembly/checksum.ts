/**
 * Internet checksum (RFC 1071).
 *
 * A *sum* here is the folded 16-bit one's complement sum of little-endian words, not yet inverted. One's complement
 * addition does not care about byte order, so a sum computed from little-endian loads and stored by a little-endian
 * store gives the bytes of network order. Sums are added with `checksumAdd`; a range that starts at an odd offset of
 * the whole contributes its sum with the bytes swapped.
 */
import { EINVAL } from "./abi/errno";

/** Folds a wide sum to 16 bits with end-around carry. */
function fold(sum: u64): u32 {
  sum = (sum >> 32) + (sum & 0xffffffff);
  sum = (sum >> 32) + (sum & 0xffffffff);
  let low = <u32>sum;
  low = (low >> 16) + (low & 0xffff);
  low = (low >> 16) + (low & 0xffff);
  return low;
}

/** Adds two sums. */
export function checksumAdd(a: u32, b: u32): u32 {
  const sum = a + b;
  return (sum >> 16) + (sum & 0xffff);
}

/** Sum of a range whose first byte is at an odd offset of the whole. */
export function checksumSwap(sum: u32): u32 {
  return ((sum & 0xff) << 8) | ((sum >> 8) & 0xff);
}

/** Bytes per pass of the wide loop: 1024 turns of at most 2 * 32768 per signed 32-bit lane stay below 2^31 / 16. */
const WIDE_PASS: usize = 65536;

/**
 * Sum of blocks of 64 bytes; `length` is a multiple of 64. The multiply-add instruction sums pairs of *signed* words, so
 * every word is biased by -32768 (its top bit flipped), and what that takes away is added again once per pass.
 */
function sumWide(address: usize, length: usize): u64 {
  const bias = i16x8.splat(-32768);
  const ones = i16x8.splat(1);
  let total: u64 = 0;
  while (length != 0) {
    const pass = length < WIDE_PASS ? length : WIDE_PASS;
    const end = address + pass;
    let a = i32x4.splat(0);
    let b = i32x4.splat(0);
    let c = i32x4.splat(0);
    let d = i32x4.splat(0);
    // two blocks a turn: the loop's own cost is a tenth of a block's
    while (address + 64 < end) {
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.xor(v128.load(address), bias), ones));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 16), bias), ones));
      c = i32x4.add(c, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 32), bias), ones));
      d = i32x4.add(d, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 48), bias), ones));
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 64), bias), ones));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 80), bias), ones));
      c = i32x4.add(c, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 96), bias), ones));
      d = i32x4.add(d, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 112), bias), ones));
      address += 128;
    }
    if (address != end) {
      a = i32x4.add(a, i32x4.dot_i16x8_s(v128.xor(v128.load(address), bias), ones));
      b = i32x4.add(b, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 16), bias), ones));
      c = i32x4.add(c, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 32), bias), ones));
      d = i32x4.add(d, i32x4.dot_i16x8_s(v128.xor(v128.load(address, 48), bias), ones));
      address += 64;
    }
    a = i32x4.add(i32x4.add(a, b), i32x4.add(c, d)); // each lane within ±4 * 1024 * 65536 = ±2^28
    const halves = i64x2.add(i64x2.extend_low_i32x4_s(a), i64x2.extend_high_i32x4_s(a));
    const signed = i64x2.extract_lane(halves, 0) + i64x2.extract_lane(halves, 1);
    total += <u64>(signed + <i64>pass * 16384); // pass / 2 words of 32768 each: the sum of unsigned words, never below 0
    length -= pass;
  }
  return total;
}

/** Sum of any range: SIMD for 64 bytes and more, 64-bit words below, the rest by halves. */
export function checksumRange(address: usize, length: u32): u32 {
  let total: u64 = 0;
  let left: usize = length;
  if (left >= 64) {
    const wide = left & ~63;
    total = sumWide(address, wide);
    address += wide;
    left &= 63;
  }
  if ((left & 32) != 0) {
    const both = i32x4.add(sumPairs(v128.load(address)), sumPairs(v128.load(address, 16)));
    total += sumLanes(both);
    address += 32;
  }
  if ((left & 16) != 0) {
    total += sumLanes(sumPairs(v128.load(address)));
    address += 16;
  }
  if ((left & 8) != 0) {
    const word = load<u64>(address);
    total += (word & 0xffffffff) + (word >> 32);
    address += 8;
  }
  if ((left & 4) != 0) {
    total += <u64>load<u32>(address);
    address += 4;
  }
  if ((left & 2) != 0) {
    total += <u64>load<u16>(address);
    address += 2;
  }
  if ((left & 1) != 0) total += <u64>load<u8>(address); // the missing byte of the last word is zero
  return fold(total);
}

/** Sums of neighbouring words, of at most 2^17 each. */
function sumPairs(words: v128): v128 {
  return i32x4.extadd_pairwise_i16x8_u(words);
}

/** Sum of four lanes, of which any two together stay below 2^32. */
function sumLanes(lanes: v128): u64 {
  const halves = i64x2.add(i64x2.extend_low_i32x4_u(lanes), i64x2.extend_high_i32x4_u(lanes));
  return i64x2.extract_lane(halves, 0) + i64x2.extract_lane(halves, 1);
}

/** Swaps a 16-bit number to network order, as a little-endian sum sees it. */
function networkWord(value: u32): u32 {
  return ((value & 0xff) << 8) | ((value >> 8) & 0xff);
}

/** Pseudo-header sum for IPv4: `addresses` points at the source address, the destination follows (8 bytes). */
export function checksumPseudo4(addresses: usize, protocol: u32, length: u32): u32 {
  return fold(
    <u64>load<u32>(addresses) +
      <u64>load<u32>(addresses, 4) +
      <u64>networkWord(protocol & 0xff) +
      <u64>networkWord(length & 0xffff),
  );
}

/** Pseudo-header sum for IPv6 (RFC 8200 8.1): `addresses` points at source and destination (32 bytes). */
export function checksumPseudo6(addresses: usize, protocol: u32, length: u32): u32 {
  return fold(
    <u64>checksumRange(addresses, 32) +
      <u64>networkWord(protocol & 0xff) +
      <u64>networkWord(length & 0xffff) +
      <u64>networkWord(length >> 16),
  );
}

/**
 * Completes a partial checksum in place: sums from `start` to the end of the frame (the field already holds the
 * pseudo-header sum) and stores the inverted result at `start + offset`. `zeroIsOnes` is UDP's rule: a result of 0 is
 * sent as 0xffff. 0, or -EINVAL when a position lies outside the frame.
 */
export function checksumComplete(frame: usize, length: u32, start: u32, offset: u32, zeroIsOnes: u32): i32 {
  if (<u64>start + <u64>offset + 2 > <u64>length) return -EINVAL;
  let result = ~checksumRange(frame + <usize>start, length - start) & 0xffff;
  if (result == 0 && zeroIsOnes != 0) result = 0xffff;
  store<u16>(frame + <usize>start + <usize>offset, <u16>result);
  return 0;
}
