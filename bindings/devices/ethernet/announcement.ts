import { ETH_ADDRESS_SIZE } from "../../../assembly/abi/venet.js";

const LENGTH = 60;
const OFF_SOURCE = 6;
const OFF_TYPE = 12;
const ETHERTYPE_RARP = 0x8035;
const OFF_SENDER = 22;
const OFF_TARGET = 32;
const HARDWARE_ETHERNET = 1;
const PROTOCOL_IP = 0x0800;
const RARP_REQUEST = 3;

/**
 * The frame that tells a network where a card is now: a RARP request for the card's own address (RFC 903), to everybody. Nobody
 * answers it, and every switch learns from it; hypervisors send the same when a machine has moved.
 * @param mac - 6 bytes
 */
export function announcement(mac: Uint8Array): Uint8Array<ArrayBuffer> {
  const frame = new Uint8Array(LENGTH);
  const view = new DataView(frame.buffer);
  frame.fill(0xff, 0, ETH_ADDRESS_SIZE);
  frame.set(mac, OFF_SOURCE);
  view.setUint16(OFF_TYPE, ETHERTYPE_RARP);
  view.setUint16(14, HARDWARE_ETHERNET);
  view.setUint16(16, PROTOCOL_IP);
  view.setUint8(18, ETH_ADDRESS_SIZE);
  view.setUint8(19, 4);
  view.setUint16(20, RARP_REQUEST);
  frame.set(mac, OFF_SENDER);
  frame.set(mac, OFF_TARGET);
  return frame;
}
