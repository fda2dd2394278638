/** Loops for figures of one thread. Each returns to JavaScript after a bounded number of rounds. */
import { checksumRange } from "../../assembly/checksum";
import { stuck } from "./contest/loops";
import { complete, post, reap } from "./sides";

export { ringAttach, ringCreate, ringNegotiated } from "../../assembly/ring";

/** Post, consume, complete, reap: one burst of n descriptors, both sides in this thread. n, fewer, or a negative errno. */
function burst(north: usize, south: usize, northTable: usize, southTable: usize, n: u32, buffers: u32): i32 {
  const posted = post(north, northTable, n, buffers);
  if (posted != <i32>n) return posted;
  const completed = complete(south, southTable, n);
  return completed != <i32>n ? completed : reap(north, northTable, n);
}

/**
 * `rounds` bursts of n descriptors through one ring. 0, or a negative errno.
 */
export function ringRounds(
  north: usize,
  south: usize,
  northTable: usize,
  southTable: usize,
  n: u32,
  rounds: u32,
  buffers: u32,
): i32 {
  for (let round: u32 = 0; round < rounds; round++) {
    const done = burst(north, south, northTable, southTable, n, buffers);
    if (done != <i32>n) return stuck(done);
  }
  return 0;
}

/**
 * {@link ringRounds} over many rings in turn, one burst on each. `norths` and `souths` are arrays of endpoint addresses.
 * `first` is where to go on; the caller passes what it got. Next ring, or a negative errno.
 */
export function ringsRounds(
  norths: usize,
  souths: usize,
  rings: u32,
  northTable: usize,
  southTable: usize,
  n: u32,
  rounds: u32,
  buffers: u32,
  first: u32,
): i32 {
  let ring = first;
  for (let round: u32 = 0; round < rounds; round++) {
    const north = <usize>load<u32>(norths + <usize>ring * 4);
    const south = <usize>load<u32>(souths + <usize>ring * 4);
    const done = burst(north, south, northTable, southTable, n, buffers);
    if (done != <i32>n) return stuck(done);
    if (++ring == rings) ring = 0;
  }
  return <i32>ring;
}

/** Sums the same range `times` times; the result depends on every one of them. */
export function checksumRounds(address: usize, length: u32, times: u32): u32 {
  let sum: u32 = 0;
  for (let i: u32 = 0; i < times; i++) sum += checksumRange(address, length);
  return sum;
}
