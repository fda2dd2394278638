import { VbusError } from "../errors.js";

/** An interface in a capture file. */
export interface CaptureInterface {
  /** Link type; 1 is Ethernet. */
  linkType: number;
  /** Most bytes per frame that were recorded; 0: no limit. */
  snapLength: number;
  /** Its name, when the file says it. */
  name?: string;
  /** A sentence about it, when the file says one. */
  description?: string;
  /** Frames that the interface had received, when the file has statistics. */
  received?: number;
  /** Frames that were dropped, when the file has statistics. */
  dropped?: number;
}

/** A frame of a capture file. */
export interface CapturedFrame {
  /** Its bytes, as far as they were recorded; a view on the (unpacked) file. */
  data: Uint8Array<ArrayBuffer>;
  /** Nanoseconds since 1970; 0n where the file has no stamp. */
  timestampNs: bigint;
  /** Number of the interface in {@link CaptureFile.interfaces}. */
  interface: number;
  /** Length on the wire in bytes. */
  originalLength: number;
  /** True when fewer bytes were recorded than were on the wire. */
  truncated: boolean;
  /** Seen from the interface, when the file says it. */
  direction?: "inbound" | "outbound";
}

/** A capture file, read. */
export interface CaptureFile {
  /** Which format it was. */
  format: "pcap" | "pcapng";
  /** Comments on the file. */
  comments: string[];
  /** Interfaces of all sections, in order. */
  interfaces: CaptureInterface[];
  /** Frames in file order. */
  frames: CapturedFrame[];
}

/** An EINVAL that says where in the file, and what is wrong. */
export function captureError(offset: number, what: string): VbusError {
  return new VbusError("EINVAL", `capture file, offset ${offset}: ${what}`);
}
