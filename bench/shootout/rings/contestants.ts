/** Who takes part in (a), in the order in which they are shown. */
import { EXT_COMPACT, EXT_LAZY_INDEXES } from "vbus/abi";
import { messageRing, ringbufRing } from "./javascript.js";
import { nativeRing } from "./native.js";
import type { RingContestant } from "./setting.js";
import { ioqContestant, IOQ_2009, SPSC, virtqueueContestant } from "./stage.js";
import { wasmRing } from "./wasm.js";

/** Copies of a payload by a producer into a buffer and by a consumer out of it. */
const IN_AND_OUT = 2;

/** Whom everybody is compared with. */
export const REFERENCE = "ioq";

/** All of them. */
export const RING_CONTESTANTS: readonly RingContestant[] = [
  wasmRing(
    {
      id: "ioq",
      name: "IOQ strict v4",
      about:
        "ours: the ring of 2009 with exactly its bytes on the wire. Private indexes, bursts published by one store, shared indexes written once per burst because a peer of 2009 may read them.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    ioqContestant(0),
  ),
  wasmRing(
    {
      id: "ioq-lazy",
      name: "IOQ lazy indexes",
      about: "ours, after both sides negotiated that shared indexes are written only when a side goes idle.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    ioqContestant(EXT_LAZY_INDEXES),
  ),
  wasmRing(
    {
      id: "ioq-compact",
      name: "IOQ compact",
      about: "ours, after both sides negotiated lazy indexes and descriptors of 16 instead of 32 bytes.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    ioqContestant(EXT_LAZY_INDEXES | EXT_COMPACT),
  ),
  wasmRing(
    {
      id: "ioq-2009",
      name: "IOQ as in 2009",
      about:
        "the same bytes as they were used in 2009, reconstructed from the ABI documents: one descriptor at a time, both indexes read and written in shared memory for each, a signal after each.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    IOQ_2009,
  ),
  wasmRing(
    {
      id: "split",
      name: "virtio split",
      about:
        "the virtqueue that every virtio driver knows, by the same engine: private positions, event index, one publication per burst, the same checks.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    virtqueueContestant("split", false),
  ),
  wasmRing(
    {
      id: "split-in-order",
      name: "virtio split, in order",
      about: "… with in-order use negotiated: one used element stands for a burst.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    virtqueueContestant("split", true),
  ),
  wasmRing(
    {
      id: "packed",
      name: "virtio packed",
      about: "virtio's newer ring, by the same engine: 16-byte descriptors that change owner in place.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    virtqueueContestant("packed", false),
  ),
  wasmRing(
    {
      id: "packed-in-order",
      name: "virtio packed, in order",
      about: "… with in-order use negotiated: one used descriptor stands for a burst.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    virtqueueContestant("packed", true),
  ),
  wasmRing(
    {
      id: "spsc",
      name: "SPSC rings",
      about:
        "two plain single-producer single-consumer rings of 16-byte records: separate cache lines, cached indexes, one store per burst, nothing checked. What one would build without a peer to distrust.",
      runs: "wasm",
      copies: IN_AND_OUT,
    },
    SPSC,
  ),
  ringbufRing({
    id: "ringbuf",
    name: "ringbuf.js",
    about: "the ring buffer from npm that web audio uses: JavaScript over SharedArrayBuffer, 32-bit words.",
    runs: "JavaScript",
    copies: IN_AND_OUT,
  }),
  messageRing({
    id: "messages",
    name: "MessageChannel",
    about:
      "what the platform has: postMessage with bytes that structured clone copies, a burst per message, event-driven on both sides.",
    runs: "JavaScript",
    copies: 2,
  }),
  nativeRing(
    {
      id: "c-ioq",
      name: "C: IOQ strict",
      about: "the algorithm of the engine in C, same layout and same barriers.",
      runs: "native",
      copies: null,
    },
    "ioq",
  ),
  nativeRing(
    {
      id: "c-ioq-lazy",
      name: "C: IOQ lazy",
      about: "… with lazy indexes.",
      runs: "native",
      copies: null,
    },
    "lazy",
  ),
  nativeRing(
    {
      id: "c-ioq-2009",
      name: "C: IOQ as in 2009",
      about: "the reconstruction in C, with the store fences of the original.",
      runs: "native",
      copies: null,
    },
    "2009",
  ),
  nativeRing(
    {
      id: "c-split",
      name: "C: virtio split",
      about: "split virtqueue in C: private indexes, event index, in-order use, one publication per burst.",
      runs: "native",
      copies: null,
    },
    "split",
  ),
  nativeRing(
    {
      id: "c-packed",
      name: "C: virtio packed",
      about: "packed virtqueue in C: event suppression by position, in-order use, one publication per burst.",
      runs: "native",
      copies: null,
    },
    "packed",
  ),
  nativeRing(
    {
      id: "c-ring",
      name: "C: ringtest ring",
      about:
        "after the idea that Linux' tools/virtio/ringtest publishes as “ring”: 16-byte descriptors that change owner in place, event index both ways. Own code.",
      runs: "native",
      copies: null,
    },
    "ringtest",
  ),
  nativeRing(
    {
      id: "c-virtio09",
      name: "C: ringtest virtio 0.9",
      about: "… and as “virtio 0.9”: available ring, used ring, free list, event index both ways. Own code.",
      runs: "native",
      copies: null,
    },
    "virtio09",
  ),
];
