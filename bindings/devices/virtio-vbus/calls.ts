import {
  VIRTIO_VBUS_CONFIG_OFF_DATA,
  VIRTIO_VBUS_CONFIG_OFF_GENERATION,
  VIRTIO_VBUS_CONFIG_OFF_OFFSET,
  VIRTIO_VBUS_ENABLE_QUEUE,
  VIRTIO_VBUS_GET_FEATURES,
  VIRTIO_VBUS_GET_QUEUE,
  VIRTIO_VBUS_GET_STATUS,
  VIRTIO_VBUS_INFO_OFF_CONFIG,
  VIRTIO_VBUS_INFO_OFF_DEVICE,
  VIRTIO_VBUS_INFO_OFF_QUEUES,
  VIRTIO_VBUS_INFO_OFF_VENDOR,
  VIRTIO_VBUS_INFO_SIZE,
  VIRTIO_VBUS_MAX_CONFIG,
  VIRTIO_VBUS_MAX_FEATURE_WORDS,
  VIRTIO_VBUS_QUERY,
  VIRTIO_VBUS_QUEUE_ENABLED,
  VIRTIO_VBUS_QUEUE_OFF_FLAGS,
  VIRTIO_VBUS_QUEUE_OFF_INDEX,
  VIRTIO_VBUS_QUEUE_OFF_MAX_SIZE,
  VIRTIO_VBUS_QUEUE_OFF_SIZE,
  VIRTIO_VBUS_QUEUE_SIZE,
  VIRTIO_VBUS_READ_CONFIG,
  VIRTIO_VBUS_RESET_QUEUE,
  VIRTIO_VBUS_RINGS_OFF_DESCRIPTORS,
  VIRTIO_VBUS_RINGS_OFF_DEVICE,
  VIRTIO_VBUS_RINGS_OFF_DRIVER,
  VIRTIO_VBUS_RINGS_OFF_INDEX,
  VIRTIO_VBUS_RINGS_OFF_SIZE,
  VIRTIO_VBUS_RINGS_SIZE,
  VIRTIO_VBUS_SET_FEATURES,
  VIRTIO_VBUS_SET_STATUS,
  VIRTIO_VBUS_VENDOR,
  VIRTIO_VBUS_WRITE_CONFIG,
} from "../../../assembly/abi/virtio-vbus.js";
import { VbusError } from "../../errors.js";
import type { VirtioDevice } from "../../virtio/device.js";
import type { VirtioQueueArea } from "../../virtio/queue.js";

/** What the calls act on: the device, and its queues as far as they concern the transport. */
export interface CallTarget {
  /** The device. */
  readonly device: VirtioDevice;
  /** Puts a queue in service. @throws VbusError */
  enableQueue(index: number, size: number, areas: Record<VirtioQueueArea, number>): void;
  /** Takes a queue out of service. @throws VbusError */
  resetQueue(index: number): void;
}

/** One call of the device. */
interface Call {
  /** Whether data of this length can be. */
  fits(length: number): boolean;
  /** Result of calls that only return one is written back: data goes to the guest again. */
  readonly answers: boolean;
  /** Does it. `data` is a private copy of the guest's; the result goes to the guest. @throws VbusError */
  run(target: CallTarget, data: DataView<ArrayBuffer>): number;
}

const exactly =
  (size: number) =>
  (length: number): boolean =>
    length === size;
const words = (length: number): boolean =>
  length >= 8 && length % 8 === 0 && length <= 8 * VIRTIO_VBUS_MAX_FEATURE_WORDS;
const configuration = (least: number) => (length: number) =>
  length >= VIRTIO_VBUS_CONFIG_OFF_DATA + least &&
  length <= VIRTIO_VBUS_CONFIG_OFF_DATA + VIRTIO_VBUS_MAX_CONFIG;

/** The part of a config block that is data, and where it belongs. @throws VbusError EINVAL outside the configuration */
function configPiece({ device }: CallTarget, data: DataView<ArrayBuffer>): [number, Uint8Array<ArrayBuffer>] {
  const offset = data.getUint32(VIRTIO_VBUS_CONFIG_OFF_OFFSET, true);
  const bytes = new Uint8Array(data.buffer, data.byteOffset + VIRTIO_VBUS_CONFIG_OFF_DATA);
  if (offset + bytes.length > device.config.size)
    throw new VbusError(
      "EINVAL",
      `${bytes.length} bytes at ${offset} of a configuration of ${device.config.size} bytes`,
    );
  return [offset, bytes];
}

/** The calls by their numbers (`docs/abi/virtio-vbus.md` section 3). */
const CALLS: ReadonlyMap<number, Call> = new Map<number, Call>([
  [
    VIRTIO_VBUS_QUERY,
    {
      fits: exactly(VIRTIO_VBUS_INFO_SIZE),
      answers: true,
      run: ({ device }, data) => {
        new Uint8Array(data.buffer).fill(0);
        data.setUint32(VIRTIO_VBUS_INFO_OFF_DEVICE, device.face.deviceType, true);
        data.setUint32(VIRTIO_VBUS_INFO_OFF_VENDOR, VIRTIO_VBUS_VENDOR, true);
        data.setUint32(VIRTIO_VBUS_INFO_OFF_QUEUES, device.queues.length, true);
        data.setUint32(VIRTIO_VBUS_INFO_OFF_CONFIG, device.config.size, true);
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_GET_FEATURES,
    {
      fits: words,
      answers: true,
      run: ({ device }, data) => {
        for (let at = 0; at < data.byteLength; at += 8)
          data.setBigUint64(at, BigInt.asUintN(64, device.offered >> BigInt(8 * at)), true);
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_SET_FEATURES,
    {
      fits: words,
      answers: false,
      run: ({ device }, data) => {
        let features = 0n;
        for (let at = 0; at < data.byteLength; at += 8)
          features |= data.getBigUint64(at, true) << BigInt(8 * at);
        if (device.choose(features)) return 0;
        throw new VbusError("EBUSY", "features were chosen already; reset the device first");
      },
    },
  ],
  [VIRTIO_VBUS_GET_STATUS, { fits: exactly(0), answers: false, run: ({ device }) => device.status }],
  [
    VIRTIO_VBUS_SET_STATUS,
    {
      fits: exactly(4),
      answers: false,
      run: ({ device }, data) => {
        const status = data.getUint32(0, true);
        if (status > 255) throw new VbusError("EINVAL", `0x${status.toString(16)} is no status of 8 bits`);
        device.writeStatus(status);
        return device.status;
      },
    },
  ],
  [
    VIRTIO_VBUS_READ_CONFIG,
    {
      fits: configuration(0),
      answers: true,
      run: (target, data) => {
        const [offset, bytes] = configPiece(target, data);
        bytes.set(target.device.config.image().subarray(offset, offset + bytes.length));
        data.setUint32(VIRTIO_VBUS_CONFIG_OFF_GENERATION, target.device.config.generation, true);
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_WRITE_CONFIG,
    {
      fits: configuration(1),
      answers: false,
      run: (target, data) => {
        const [offset, bytes] = configPiece(target, data);
        target.device.config.writeBytes(offset, bytes);
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_GET_QUEUE,
    {
      fits: exactly(VIRTIO_VBUS_QUEUE_SIZE),
      answers: true,
      run: ({ device }, data) => {
        const index = data.getUint32(VIRTIO_VBUS_QUEUE_OFF_INDEX, true);
        const setup = device.queue(index);
        if (setup === undefined) throw new VbusError("EINVAL", `there is no queue ${index}`);
        data.setUint32(VIRTIO_VBUS_QUEUE_OFF_MAX_SIZE, setup.maximum, true);
        data.setUint32(VIRTIO_VBUS_QUEUE_OFF_SIZE, setup.enabled ? setup.size : 0, true);
        data.setUint32(VIRTIO_VBUS_QUEUE_OFF_FLAGS, setup.enabled ? VIRTIO_VBUS_QUEUE_ENABLED : 0, true);
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_ENABLE_QUEUE,
    {
      fits: exactly(VIRTIO_VBUS_RINGS_SIZE),
      answers: false,
      run: (target, data) => {
        // beyond 2^53 they are rounded: no memory is there, and the ring says so
        const address = (at: number): number => Number(data.getBigUint64(at, true));
        target.enableQueue(
          data.getUint32(VIRTIO_VBUS_RINGS_OFF_INDEX, true),
          data.getUint32(VIRTIO_VBUS_RINGS_OFF_SIZE, true),
          {
            descriptors: address(VIRTIO_VBUS_RINGS_OFF_DESCRIPTORS),
            driver: address(VIRTIO_VBUS_RINGS_OFF_DRIVER),
            device: address(VIRTIO_VBUS_RINGS_OFF_DEVICE),
          },
        );
        return 0;
      },
    },
  ],
  [
    VIRTIO_VBUS_RESET_QUEUE,
    {
      fits: exactly(4),
      answers: false,
      run: (target, data) => {
        target.resetQueue(data.getUint32(0, true));
        return 0;
      },
    },
  ],
]);

/** Finds a call by its number. @throws VbusError EINVAL for an unknown one, or data of a length that it cannot have */
export function callOf(func: number, length: number): Call {
  const call = CALLS.get(func);
  if (call === undefined) throw new VbusError("EINVAL", `virtio over vbus has no call ${func}`);
  if (!call.fits(length)) throw new VbusError("EINVAL", `call ${func} does not take ${length} bytes`);
  return call;
}
