import {
  VCONSOLE_EVENT_OFF_COLS,
  VCONSOLE_EVENT_OFF_CONVERSATION,
  VCONSOLE_EVENT_OFF_ID,
  VCONSOLE_EVENT_OFF_POSITION,
  VCONSOLE_EVENT_OFF_ROWS,
  VCONSOLE_EVENT_SIZE,
} from "../../../assembly/abi/vconsole.js";

/** An event as the host wrote it (`docs/abi/vconsole.md` section 6). */
export interface ConsoleEvent {
  /** `VCONSOLE_EVENT_…`, or a number that this driver does not know. */
  id: number;
  /** Conversation that it belongs to. */
  conversation: number;
  /** Bytes of the RX stream before it, since the device was opened. */
  position: number;
  /** Window size. */
  cols: number;
  /** Window size. */
  rows: number;
}

/** Reads an event record; null when it is too short to be one. */
export function parseEvent(record: Uint8Array): ConsoleEvent | null {
  if (record.length < VCONSOLE_EVENT_SIZE) return null;
  const view = new DataView(record.buffer, record.byteOffset, record.byteLength);
  return {
    id: view.getUint32(VCONSOLE_EVENT_OFF_ID, true),
    conversation: view.getUint32(VCONSOLE_EVENT_OFF_CONVERSATION, true),
    position:
      view.getUint32(VCONSOLE_EVENT_OFF_POSITION, true) +
      view.getUint32(VCONSOLE_EVENT_OFF_POSITION + 4, true) * 2 ** 32,
    cols: view.getUint16(VCONSOLE_EVENT_OFF_COLS, true),
    rows: view.getUint16(VCONSOLE_EVENT_OFF_ROWS, true),
  };
}
