/** What a probe found: plain data, as it comes out of the page. */

import type { FrameBalance } from "vbus/net";

/** An error, as far as it can be told. */
export interface ErrorOutcome {
  name: string;
  /** Code of a `VbusError`. */
  code: string | null;
  message: string;
}

/** How an engine came to be and what it did. */
export interface EngineOutcome {
  isolated: boolean;
  /** Flavours that were linked, by way of linking; an error where linking was refused. */
  links: Record<string, string | ErrorOutcome>;
  /** Internet checksum of 00 01 02 ... ff, by the engine and by the page. */
  checksum: [number, number];
}

/** A disk that was written and read in a worker. */
export interface DiskOutcome {
  /** What its back end calls itself. */
  description: string;
  /** All bytes as expected, before and after writing. */
  before: boolean;
  after: boolean;
  /** What a read beyond the end was told. */
  refused: ErrorOutcome | null;
}

/** A disk in a file of the origin private file system, opened twice. */
export interface StoredDiskOutcome {
  outcome: DiskOutcome;
  again: DiskOutcome;
  /** Bytes of the file. */
  size: number;
}

/** The conformance table, run in a page. */
export interface ConformanceOutcome {
  ran: number;
  failures: string[];
}

/** What a page without cross-origin isolation is told. */
export interface RefusalOutcome {
  isolated: boolean;
  sharedArrayBuffer: string;
  allocate: ErrorOutcome | null;
  host: ErrorOutcome | null;
  guest: ErrorOutcome | null;
  ownMemory: ErrorOutcome | null;
}

/** Two guests over the local connector. */
export interface LocalOutcome {
  sent: number;
  /** Frames that each guest got as they were sent, in order. */
  intact: [number, number];
  balanced: boolean;
  drops: Record<string, number>;
  inFlight: number;
  errors: string[];
}

/** A guest's worker was terminated in the middle of a replay. */
export interface DeathOutcome {
  /** What the page was told of it. */
  reason: string;
  /** Device that the guest had. */
  device: number;
  /** Device that the next guest got. */
  successor: number;
  /** The tree before it died and after. */
  before: string;
  after: string;
  /** Frames that the host took out of the dead guest's ring, and what became of them. */
  nic: { frames: number; passed: number; drops: number };
  /** The switch's equation. */
  balance: FrameBalance;
  /** Frames that the living guest's driver got, and those that its device passed to it. */
  living: { received: number; passed: number };
  /** Errors that the host met. */
  errors: string[];
}

/** What the toy machine did. */
export interface ToyOutcome {
  isolated: boolean;
  /** What its guest printed. */
  printed: string;
  /** Frames of its flood that arrived, in order and unharmed. */
  frames: number;
  exitCode: number | null;
  balanced: boolean;
  errors: string[];
}
