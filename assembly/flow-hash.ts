/**
 * Which flow a frame belongs to, as a number: for devices that spread flows over queues. Both directions of a flow have
 * the same number, so that answers go to the queue that questions came from.
 *
 * A guest may rewrite a frame while it is looked at: then it goes to another queue, and nothing else happens.
 */
import { ENTRY_OFF_ADDRESS, ENTRY_OFF_LENGTH, ENTRY_SIZE } from "./abi/arena";
import { FLOW_SCRATCH_SIZE } from "./abi/arena-virtio-net";
import {
  ETHERTYPE_IPV4,
  ETHERTYPE_IPV6,
  IP4_HEADER,
  IP4_OFF_FRAGMENT,
  IP4_OFF_PROTOCOL,
  IP6_HEADER,
  IP6_OFF_NEXT,
  loadBig16,
  networkOffset,
  PROTOCOL_TCP,
  PROTOCOL_UDP,
} from "./headers";
import { gatherBytes } from "./pieces";

/** Spreads the bits of a number over all of it. */
function mix(value: u32): u32 {
  let h = value;
  h = (h ^ (h >> 16)) * 0x85ebca6b;
  h = (h ^ (h >> 13)) * 0xc2b2ae35;
  return h ^ (h >> 16);
}

/** Writes the flow number of each of n frames to `out`, u32 each. `scratch`: {@link FLOW_SCRATCH_SIZE} private bytes. */
export function flowHashes(table: usize, n: u32, out: usize, scratch: usize): void {
  for (let i: u32 = 0; i < n; i++) {
    const entry = table + <usize>i * ENTRY_SIZE;
    store<u32>(out + ((<usize>i) << 2), flowHash(entry, scratch));
  }
}

function flowHash(entry: usize, scratch: usize): u32 {
  if (load<u32>(entry, ENTRY_OFF_ADDRESS) == 0) return 0; // a frame that will be dropped
  const length = load<u32>(entry, ENTRY_OFF_LENGTH);
  const available = gatherBytes(
    entry,
    0,
    scratch,
    length < <u32>FLOW_SCRATCH_SIZE ? length : FLOW_SCRATCH_SIZE,
  );
  const network = networkOffset(scratch, available);
  if (network == 0) return 0;
  const ip = scratch + <usize>network;
  const type = loadBig16(ip - 2);
  let hash: u32 = type;
  let transport: u32 = 0;
  let protocol: u32 = 0;
  if (type == ETHERTYPE_IPV4 && available >= network + IP4_HEADER) {
    hash ^= mix(load<u32>(ip, 12)) + mix(load<u32>(ip, 16)); // addresses: their order does not matter
    protocol = <u32>load<u8>(ip, IP4_OFF_PROTOCOL);
    // fragments after the first have no ports, so none of the packet's fragments uses them
    if ((loadBig16(ip + IP4_OFF_FRAGMENT) & 0x3fff) == 0)
      transport = network + (((<u32>load<u8>(ip)) & 15) << 2);
  } else if (type == ETHERTYPE_IPV6 && available >= network + IP6_HEADER) {
    let source: u32 = 0;
    let destination: u32 = 0;
    for (let at: usize = 0; at < 16; at += 4) {
      source = mix(source ^ load<u32>(ip + at, 8));
      destination = mix(destination ^ load<u32>(ip + at, 24));
    }
    hash ^= source + destination;
    protocol = <u32>load<u8>(ip, IP6_OFF_NEXT);
    transport = network + IP6_HEADER;
  } else {
    return mix(hash);
  }
  hash = mix(hash ^ protocol);
  const ports = protocol == PROTOCOL_TCP || protocol == PROTOCOL_UDP;
  if (ports && transport != 0 && transport + 4 <= available) {
    const at = scratch + <usize>transport;
    hash ^= mix(<u32>load<u16>(at)) + mix(<u32>load<u16>(at, 2));
  }
  return mix(hash);
}
