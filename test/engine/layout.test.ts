import fs from "node:fs";
import * as abi from "vbus/abi";
import { describe, expect, it } from "vitest";

type Target = "lp64" | "ilp32";
interface Struct {
  size: number;
  flat: Record<string, { offset: number; size: number }>;
}
interface Constants {
  structs: Record<string, Record<Target, Struct>>;
  [group: string]: unknown;
}

const facts = JSON.parse(
  fs.readFileSync(new URL("../data/abi-constants.json", import.meta.url), "utf8"),
) as Constants;

function struct(name: string, target: Target): Struct {
  const found = facts.structs[name]?.[target];
  if (found === undefined) throw new Error(`abi-constants.json has no ${name}`);
  return found;
}

/** The 2009 headers had 64-bit members without forced alignment; only 32-bit guests see a difference. */
function layoutOf(name: string, target: Target): Struct {
  const historic = `${name}__unaligned_u64`;
  return struct(target === "ilp32" && facts.structs[historic] !== undefined ? historic : name, target);
}

/** A fact by its path, a plain number or a `{ value, hex }` pair. */
function fact(path: string): number {
  let node: unknown = facts;
  for (const key of path.split(".")) node = (node as Record<string, unknown>)[key];
  const value = typeof node === "object" && node !== null ? (node as { value: unknown }).value : node;
  if (typeof value !== "number") throw new Error(`abi-constants.json has no number at ${path}`);
  return value;
}

type Offsets = Record<string, number>;

function expectLayout(name: string, target: Target, size: number | null, offsets: Offsets): void {
  const { size: actual, flat } = layoutOf(name, target);
  if (size !== null) expect(size, `size of ${name}`).toBe(actual);
  for (const [field, offset] of Object.entries(offsets)) {
    expect(offset, `${name}.${field} on ${target}`).toBe(flat[field]?.offset);
  }
}

describe("constants against the table of the ABI", () => {
  const VALUES: [path: string, value: number][] = [
    ["locale.north", abi.NORTH],
    ["locale.south", abi.SOUTH],
    ["shm_signal.magic", abi.SIGNAL_MAGIC],
    ["shm_signal.version", abi.SIGNAL_VERSION],
    ["shm_signal.desc_size", abi.SIGNAL_SIZE],
    ["shm_signal.offset_in_ioq_head", abi.IOQ_OFF_SIGNAL],
    ["ioq.magic", abi.IOQ_MAGIC],
    ["ioq.version", abi.IOQ_VERSION],
    ["ioq.index_type.valid", abi.IDX_VALID],
    ["ioq.index_type.inuse", abi.IDX_INUSE],
    ["ioq.index_type.both", abi.IDX_BOTH],
    ["ioq.seek_type.tail", abi.SEEK_TAIL],
    ["ioq.seek_type.next", abi.SEEK_NEXT],
    ["ioq.seek_type.head", abi.SEEK_HEAD],
    ["ioq.seek_type.set", abi.SEEK_SET],
    ["ioq.iterator_flags.AUTOUPDATE", abi.ITER_AUTOUPDATE],
    ["ioq.iterator_flags.NOFLIPOWNER", abi.ITER_NOFLIPOWNER],
    ["ioq.max_count_host", abi.IOQ_MAX_COUNT],
    ["ioq.segment_length.final.base", abi.IOQ_OFF_RING],
    ["ioq.segment_length.final.per_descriptor", abi.IOQ_DESC_SIZE],
    ["ioq.segment_length.historic_ilp32.base", abi.IOQ_OFF_RING_ILP32],
    ["ioq.segment_length.historic_ilp32.per_descriptor", abi.IOQ_DESC_SIZE_ILP32],
    ["vbus.no_signal_offset", abi.NO_SIGNAL],
    ["vbus.max_devtype_len", abi.DEVTYPE_SIZE],
    ["vbus_pci.abi_magic", abi.BRIDGE_MAGIC],
    ["vbus_pci.abi_version", abi.PCI_ABI_VERSION],
    ["vbus_pci.hc_version", abi.BRIDGE_VERSION],
    ["vbus_pci.bridge_vector.NEGOTIATE", abi.BRIDGE_NEGOTIATE],
    ["vbus_pci.bridge_vector.QREG", abi.BRIDGE_QREG],
    ["vbus_pci.bridge_vector.SLOWCALL", abi.BRIDGE_SLOWCALL],
    ["vbus_pci.bridge_vector.FASTCALL_ADD", abi.BRIDGE_FASTCALL_ADD],
    ["vbus_pci.bridge_vector.FASTCALL_DROP", abi.BRIDGE_FASTCALL_DROP],
    ["vbus_pci.bridge_param_len.NEGOTIATE", abi.NEGOTIATE_SIZE],
    ["vbus_pci.bridge_param_len.QREG", abi.BUSREG_SIZE],
    ["vbus_pci.hc_vector.DEVOPEN", abi.HC_DEVOPEN],
    ["vbus_pci.hc_vector.DEVCLOSE", abi.HC_DEVCLOSE],
    ["vbus_pci.hc_vector.DEVCALL", abi.HC_DEVCALL],
    ["vbus_pci.hc_vector.DEVSHM", abi.HC_DEVSHM],
    ["vbus_pci.hc_param_len.lp64.DEVOPEN", abi.DEVICEOPEN_SIZE],
    ["vbus_pci.hc_param_len.lp64.DEVCLOSE", abi.DEVICECLOSE_SIZE],
    ["vbus_pci.hc_param_len.lp64.DEVCALL", abi.DEVICECALL_SIZE],
    ["vbus_pci.hc_param_len.lp64.DEVSHM", abi.DEVICESHM_SIZE],
    ["vbus_pci.hc_param_len.ilp32.DEVOPEN", abi.DEVICEOPEN_SIZE],
    ["vbus_pci.hc_param_len.ilp32.DEVCLOSE", abi.DEVICECLOSE_SIZE],
    ["vbus_pci.hc_param_len.ilp32.DEVCALL", abi.DEVICECALL_SIZE_ILP32],
    ["vbus_pci.hc_param_len.ilp32.DEVSHM", abi.DEVICESHM_SIZE_ILP32],
    ["vbus_pci.fastcall_len.lp64", abi.FASTCALL_SIZE],
    ["vbus_pci.fastcall_len.ilp32", abi.FASTCALL_SIZE_ILP32],
    ["vbus_pci.signal_port.eventq", abi.PORT_EVENTQ],
    ["vbus_pci.signal_port.fastcall", abi.PORT_FASTCALL],
    ["vbus_pci.signal_port.shmsignal", abi.PORT_SHMSIGNAL],
    ["vbus_pci.event.DEVADD", abi.EVENT_DEVADD],
    ["vbus_pci.event.DEVDROP", abi.EVENT_DEVDROP],
    ["vbus_pci.event.SHMSIGNAL", abi.EVENT_SHMSIGNAL],
    ["vbus_pci.event.SHMCLOSE", abi.EVENT_SHMCLOSE],
    ["vbus_pci.event_size.lp64", abi.EVENT_SIZE],
    ["vbus_pci.event_size.ilp32", abi.EVENT_SIZE_ILP32],
    ["vbus_pci.linux_guest_eventq_len", abi.EVENTQ_DEFAULT_COUNT],
    ["venet.version", abi.VENET_VERSION],
    ["venet.queue.RX", abi.VENET_QUEUE_RX],
    ["venet.queue.TX", abi.VENET_QUEUE_TX],
    ["venet.func.LINKUP", abi.VENET_LINKUP],
    ["venet.func.LINKDOWN", abi.VENET_LINKDOWN],
    ["venet.func.MACQUERY", abi.VENET_MACQUERY],
    ["venet.func.NEGCAP", abi.VENET_NEGCAP],
    ["venet.func.FLUSHRX", abi.VENET_FLUSHRX],
    ["venet.func.PMTDQUERY", abi.VENET_PMTDQUERY],
    ["venet.func.EVQQUERY", abi.VENET_EVQQUERY],
    ["venet.func.L4ROQUERY", abi.VENET_L4ROQUERY],
    ["venet.func_data_len.NEGCAP", abi.VENET_CAPABILITIES_SIZE],
    ["venet.func_data_len.EVQQUERY", abi.VENET_QUERY_SIZE],
    ["venet.func_data_len.L4ROQUERY", abi.VENET_QUERY_SIZE],
    ["venet.cap_group.SG", abi.VENET_GROUP_SG],
    ["venet.cap_group.EVENTQ", abi.VENET_GROUP_EVENTQ],
    ["venet.cap_group.L4RO", abi.VENET_GROUP_L4RO],
    ["venet.segment_id_original_host.PMTD_POOL", abi.VENET_SEGMENT_PMTD_POOL],
    ["venet.segment_id_original_host.EVENT_POOL", abi.VENET_SEGMENT_EVENT_POOL],
    ["venet.segment_id_original_host.EVENT_QUEUE", abi.VENET_SEGMENT_EVENT_QUEUE],
    ["venet.segment_id_original_host.L4RO_POOL", abi.VENET_SEGMENT_L4RO_POOL],
    ["venet.segment_id_original_host.L4RO_PAGE_QUEUE", abi.VENET_SEGMENT_L4RO_PAGE_QUEUE],
  ];
  for (const [path, value] of VALUES) {
    it(`${path} is ${value}`, () => expect(value).toBe(fact(path)));
  }

  it("every errno of the table has its number", () => {
    for (const [name, value] of Object.entries(facts["errno"] as Record<string, number>)) {
      const ours = (abi as unknown as Record<string, number>)[name];
      if (ours !== undefined) expect(ours, name).toBe(value);
    }
    expect([abi.EPERM, abi.EINVAL, abi.EFAULT, abi.ENOENT]).toEqual([1, 22, 14, 2]);
  });
});

describe("structure layouts, both targets", () => {
  for (const target of ["lp64", "ilp32"] as const) {
    const wide = target === "lp64";

    it(`shm_signal_desc (${target})`, () => {
      expectLayout("shm_signal_irq", target, abi.SIGNAL_IRQ_SIZE, {
        enabled: abi.IRQ_OFF_ENABLED,
        pending: abi.IRQ_OFF_PENDING,
        dirty: abi.IRQ_OFF_DIRTY,
      });
      const second = abi.SIGNAL_OFF_IRQ + abi.SIGNAL_IRQ_SIZE;
      expectLayout("shm_signal_desc", target, abi.SIGNAL_SIZE, {
        magic: abi.SIGNAL_OFF_MAGIC,
        ver: abi.SIGNAL_OFF_VERSION,
        "irq[0].enabled": abi.SIGNAL_OFF_IRQ,
        "irq[1].enabled": second,
        "irq[1].dirty": second + abi.IRQ_OFF_DIRTY,
      });
    });

    it(`ioq_ring_head, ioq_ring_idx and ioq_ring_desc (${target})`, () => {
      expectLayout("ioq_ring_idx", target, abi.IOQ_IDX_SIZE, {
        head: abi.IDX_OFF_HEAD,
        tail: abi.IDX_OFF_TAIL,
        full: abi.IDX_OFF_FULL,
      });
      const size = wide ? abi.IOQ_DESC_SIZE : abi.IOQ_DESC_SIZE_ILP32;
      const ring = wide ? abi.IOQ_OFF_RING : abi.IOQ_OFF_RING_ILP32;
      expectLayout("ioq_ring_desc", target, size, {
        cookie: abi.DESC_OFF_COOKIE,
        ptr: abi.DESC_OFF_PTR,
        len: abi.DESC_OFF_LEN,
        valid: abi.DESC_OFF_VALID,
        sown: abi.DESC_OFF_SOWN,
      });
      expectLayout("ioq_ring_head", target, ring + size, {
        magic: abi.IOQ_OFF_MAGIC,
        ver: abi.IOQ_OFF_VERSION,
        "signal.magic": abi.IOQ_OFF_SIGNAL,
        "idx[0].head": abi.IOQ_OFF_IDX,
        "idx[1].tail": abi.IOQ_OFF_IDX + abi.IOQ_IDX_SIZE + abi.IDX_OFF_TAIL,
        "idx[1].full": abi.IOQ_OFF_IDX + abi.IOQ_IDX_SIZE + abi.IDX_OFF_FULL,
        count: abi.IOQ_OFF_COUNT,
        "ring[0].cookie": ring,
      });
      // the extension word is padding of the final layout, and does not exist in the other one
      expect(abi.IOQ_OFF_EXTENSION + 4).toBe(wide ? ring : abi.IOQ_OFF_EXTENSION + 4);
    });

    it(`bridge calls (${target})`, () => {
      expectLayout("vbus_pci_bridge_negotiate", target, abi.NEGOTIATE_SIZE, {
        magic: abi.NEGOTIATE_OFF_MAGIC,
        version: abi.NEGOTIATE_OFF_VERSION,
        capabilities: abi.NEGOTIATE_OFF_CAPABILITIES,
      });
      expectLayout("vbus_pci_call_desc", target, abi.CALL_SIZE, {
        vector: abi.CALL_OFF_VECTOR,
        len: abi.CALL_OFF_LEN,
        datap: abi.CALL_OFF_DATAP,
      });
      expectLayout("vbus_pci_deviceopen", target, abi.DEVICEOPEN_SIZE, {
        devid: abi.DEVICEOPEN_OFF_DEVID,
        version: abi.DEVICEOPEN_OFF_VERSION,
        handle: abi.DEVICEOPEN_OFF_HANDLE,
      });
      expectLayout("vbus_pci_devicecall", target, wide ? abi.DEVICECALL_SIZE : abi.DEVICECALL_SIZE_ILP32, {
        devh: abi.DEVICECALL_OFF_DEVH,
        func: abi.DEVICECALL_OFF_FUNC,
        len: abi.DEVICECALL_OFF_LEN,
        flags: abi.DEVICECALL_OFF_FLAGS,
        datap: wide ? abi.DEVICECALL_OFF_DATAP : abi.DEVICECALL_OFF_DATAP_ILP32,
      });
      expectLayout("vbus_pci_deviceshm", target, wide ? abi.DEVICESHM_SIZE : abi.DEVICESHM_SIZE_ILP32, {
        devh: abi.DEVICESHM_OFF_DEVH,
        id: abi.DEVICESHM_OFF_ID,
        len: abi.DEVICESHM_OFF_LEN,
        flags: abi.DEVICESHM_OFF_FLAGS,
        "signal.offset": wide ? abi.DEVICESHM_OFF_SIGNAL_OFFSET : abi.DEVICESHM_OFF_SIGNAL_OFFSET_ILP32,
        "signal.prio": wide ? abi.DEVICESHM_OFF_SIGNAL_PRIO : abi.DEVICESHM_OFF_SIGNAL_PRIO_ILP32,
        "signal.cookie": wide ? abi.DEVICESHM_OFF_SIGNAL_COOKIE : abi.DEVICESHM_OFF_SIGNAL_COOKIE_ILP32,
        datap: wide ? abi.DEVICESHM_OFF_DATAP : abi.DEVICESHM_OFF_DATAP_ILP32,
      });
      expectLayout("vbus_pci_fastcall_desc", target, wide ? abi.FASTCALL_SIZE : abi.FASTCALL_SIZE_ILP32, {
        result: abi.FASTCALL_OFF_RESULT,
      });
      expectLayout("vbus_pci_busreg", target, wide ? abi.BUSREG_SIZE : abi.BUSREG_SIZE_ILP32, {
        count: abi.BUSREG_OFF_COUNT,
        "eventq[0].count": wide ? abi.BUSREG_OFF_EVENTQ_COUNT : abi.BUSREG_OFF_EVENTQ_COUNT_ILP32,
        "eventq[0].ring": wide ? abi.BUSREG_OFF_EVENTQ_RING : abi.BUSREG_OFF_EVENTQ_RING_ILP32,
        "eventq[0].data": wide ? abi.BUSREG_OFF_EVENTQ_DATA : abi.BUSREG_OFF_EVENTQ_DATA_ILP32,
      });
      expectLayout("vbus_pci_event", target, wide ? abi.EVENT_SIZE : abi.EVENT_SIZE_ILP32, {
        eventid: abi.EVENT_OFF_ID,
      });
      expectLayout("vbus_pci_add_event", target, null, { type: abi.EVENT_DATA_OFF_TYPE });
    });

    it(`venet calls (${target})`, () => {
      expectLayout("venet_capabilities", target, abi.VENET_CAPABILITIES_SIZE, {
        gid: abi.VENET_CAPABILITIES_OFF_GID,
        bits: abi.VENET_CAPABILITIES_OFF_BITS,
      });
      expectLayout("venet_eventq_query", target, abi.VENET_QUERY_SIZE, {});
      expectLayout("venet_l4ro_query", target, abi.VENET_QUERY_SIZE, {});
    });
  }
});
