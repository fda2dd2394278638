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
    ["venet.cap_sg.SG", abi.VENET_SG_SG],
    ["venet.cap_sg.TSO4", abi.VENET_SG_TSO4],
    ["venet.cap_sg.TSO6", abi.VENET_SG_TSO6],
    ["venet.cap_sg.ECN", abi.VENET_SG_ECN],
    ["venet.cap_sg.UFO", abi.VENET_SG_UFO],
    ["venet.cap_sg.PMTD", abi.VENET_SG_PMTD],
    ["venet.cap_evq.LINKSTATE", abi.VENET_EVENTQ_LINKSTATE],
    ["venet.cap_evq.TXC", abi.VENET_EVENTQ_TXC],
    ["venet.cap_l4ro.SG", abi.VENET_L4RO_SG],
    ["venet.cap_l4ro.TSO4", abi.VENET_SG_TSO4],
    ["venet.cap_l4ro.TSO6", abi.VENET_SG_TSO6],
    ["venet.cap_l4ro.ECN", abi.VENET_SG_ECN],
    ["venet.sg_flag.NEEDS_CSUM", abi.VSG_NEEDS_CSUM],
    ["venet.sg_flag.GSO", abi.VSG_GSO],
    ["venet.sg_flag.ECN", abi.VSG_ECN],
    ["venet.gso_type.TCPV4", abi.VSG_GSO_TCPV4],
    ["venet.gso_type.UDP", abi.VSG_GSO_UDP],
    ["venet.gso_type.TCPV6", abi.VSG_GSO_TCPV6],
    ["venet.vsg_size.final.base", abi.VSG_SIZE_FIXED],
    ["venet.vsg_size.final.per_iov", abi.VSG_IOV_SIZE],
    ["venet.vsg_size.historic_ilp32.per_iov", abi.VSG_IOV_SIZE_ILP32],
    ["venet.gso_max_len", abi.VENET_GSO_MAX],
    ["venet.l4ro_pool_max_len", abi.VENET_L4RO_POOL_MAX],
    ["venet.event.LINKSTATE", abi.VENET_EVENT_LINKSTATE],
    ["venet.event.TXC", abi.VENET_EVENT_TXC],
    ["venet.evsize", abi.VENET_EVENT_SIZE],
    ["venet.host_default.txmitigation", abi.VENET_TXMITIGATION_DEFAULT],
    ["pci.vendor", abi.PCI_VENDOR],
    ["pci.device", abi.PCI_DEVICE],
    ["pci.class", abi.PCI_CLASS],
    ["pci.revision", abi.PCI_ABI_VERSION],
    ["pci.subsystem_vendor", abi.PCI_SUBSYSTEM_VENDOR],
    ["pci.subsystem_device", abi.PCI_SUBSYSTEM_DEVICE],
    ["pci.interrupt_pin", abi.PCI_INTERRUPT_PIN],
    ["pci.capability_msi_offset", abi.PCI_MSI_OFFSET],
    ["pci.capability_msi_length", abi.PCI_MSI_SIZE],
    ["pci.bar.0.size", abi.BAR0_SIZE],
    ["pci.bar.1.size", abi.BAR1_SIZE],
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
      expectLayout("vbus_pci_handle_event", target, 8, { handle: 0 });
    });

    it(`registers of the PCI function (${target})`, () => {
      expectLayout("vbus_pci_regs", target, abi.BAR0_SIZE, {
        "bridgecall.vector": abi.BAR0_OFF_VECTOR,
        "bridgecall.len": abi.BAR0_OFF_LEN,
        "bridgecall.datap": abi.BAR0_OFF_DATAP,
      });
      expectLayout("vbus_pci_signals", target, abi.BAR1_SIZE, {
        eventq: abi.PORT_EVENTQ,
        fastcall: abi.PORT_FASTCALL,
        shmsignal: abi.PORT_SHMSIGNAL,
        pad: abi.PORT_INTX_STATUS, // the first of the reserved ones
      });
    });

    it(`venet descriptors and events (${target})`, () => {
      const iovSize = wide ? abi.VSG_IOV_SIZE : abi.VSG_IOV_SIZE_ILP32;
      const iovPtr = wide ? abi.VSG_IOV_OFF_PTR : abi.VSG_IOV_OFF_PTR_ILP32;
      expectLayout("venet_iov", target, iovSize, { len: abi.VSG_IOV_OFF_LEN, ptr: iovPtr });
      expectLayout("venet_sg", target, abi.VSG_SIZE_FIXED + iovSize, {
        cookie: abi.VSG_OFF_COOKIE,
        flags: abi.VSG_OFF_FLAGS,
        len: abi.VSG_OFF_LEN,
        "csum.start": abi.VSG_OFF_CSUM_START,
        "csum.offset": abi.VSG_OFF_CSUM_OFFSET,
        "gso.type": abi.VSG_OFF_GSO_TYPE,
        "gso.hdrlen": abi.VSG_OFF_GSO_HDRLEN,
        "gso.size": abi.VSG_OFF_GSO_SIZE,
        count: abi.VSG_OFF_COUNT,
        "iov[0].len": abi.VSG_SIZE_FIXED + abi.VSG_IOV_OFF_LEN,
        "iov[0].ptr": abi.VSG_SIZE_FIXED + iovPtr,
      });
      expectLayout("venet_event_header", target, null, {
        flags: abi.VENET_EVENT_OFF_FLAGS,
        size: abi.VENET_EVENT_OFF_SIZE,
        id: abi.VENET_EVENT_OFF_ID,
      });
      expectLayout("venet_event_linkstate", target, abi.VENET_LINKSTATE_SIZE, {
        state: abi.VENET_LINKSTATE_OFF_STATE,
      });
      // records lie 24 bytes apart whatever the guest, so only the final layout of this one matters
      if (wide) {
        expectLayout("venet_event_txc", target, abi.VENET_TXC_SIZE, {
          txqid: abi.VENET_TXC_OFF_TXQID,
          cookie: abi.VENET_TXC_OFF_COOKIE,
        });
      }
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
