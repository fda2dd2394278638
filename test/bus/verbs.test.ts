import { describe, expect, it } from "vitest";

import * as errno from "vbus/abi";
import { VbusError } from "vbus/engine";

import {
  Bench,
  CALL_HOOK,
  CALL_SUM,
  formatSignal,
  lastSignal,
  SEGMENT,
  SEGMENT_LENGTH,
  SIGNAL_OFFSET,
  spell,
  VERSION,
} from "./mailbox.js";

const NO_HANDLE = 0xdead;

describe("open", () => {
  it("gives handles from 1 that are never used again, not even after a reset", async () => {
    const { client } = await Bench.open();
    expect(client.open(0, VERSION)).toBe(1);
    expect(client.close(1)).toBe(0);
    expect(client.open(0, VERSION)).toBe(2);
    client.reset();
    expect(client.open(0, VERSION)).toBe(3);
  });

  it("does not use up a handle when the device refuses", async () => {
    const { client } = await Bench.open();
    expect(client.open(0, VERSION + 1)).toBe(-errno.EINVAL);
    expect(client.open(0, VERSION)).toBe(1);
  });

  it.each([
    ["an id that nobody has", -errno.ENOENT, 1],
    ["an id that is no number at all", -errno.ENOENT, NaN],
    ["a negative id", -errno.ENOENT, -1],
  ])("answers %s with %i", async (_what, expected, id) => {
    const { client } = await Bench.open();
    expect(client.open(id, VERSION)).toBe(expected);
  });

  it("passes the device's refusals through: version, busy, no back end", async () => {
    const { client, mailbox, errors } = await Bench.open();
    expect(client.open(0, 99)).toBe(-errno.EINVAL);
    mailbox.backend = false;
    expect(client.open(0, VERSION)).toBe(-errno.ENXIO);
    mailbox.backend = true;
    client.open(0, VERSION);
    expect(client.open(0, VERSION)).toBe(-errno.EBUSY);
    expect(errors).toEqual([]);
  });

  it("opens one interface several times, and for several clients, when the device allows it", async () => {
    const bench = await Bench.open();
    bench.mailbox.sessionsMax = 3;
    const other = bench.guest("other");
    expect([bench.client.open(0, VERSION), bench.client.open(0, VERSION), other.open(0, VERSION)]).toEqual([
      1, 2, 1,
    ]);
    expect(other.open(0, VERSION)).toBe(-errno.EBUSY);
  });

  it("answers -ENOSPC when the handles are used up, without asking the device", async () => {
    const { client, mailbox } = await Bench.open({ lastHandle: 2 });
    client.close(client.open(0, VERSION));
    client.close(client.open(0, VERSION));
    expect(client.open(0, VERSION)).toBe(-errno.ENOSPC);
    expect(mailbox.opened).toHaveLength(2);
  });

  it("answers -ENOMEM above the limit of sessions", async () => {
    const { client, mailbox } = await Bench.open({ sessions: 1 });
    mailbox.sessionsMax = 2;
    client.open(0, VERSION);
    expect(client.open(0, VERSION)).toBe(-errno.ENOMEM);
  });

  it("turns any other exception into -EIO and an error event", async () => {
    const { client, mailbox, errors } = await Bench.open();
    mailbox.hooks.connect = () => {
      throw new RangeError("jammed");
    };
    expect(client.open(0, VERSION)).toBe(-errno.EIO);
    expect(errors).toMatchObject([{ source: "devices/box0", error: { message: "jammed" } }]);
    mailbox.hooks.connect = () => {};
    expect(client.open(0, VERSION)).toBe(1);
  });

  it("ends the session at once when the device's connect resets the client", async () => {
    const { client, mailbox } = await Bench.open();
    mailbox.hooks.connect = () => {
      client.reset();
    };
    expect(client.open(0, VERSION)).toBe(-errno.ENOTCONN);
    expect(mailbox.opened[0]?.closed).toBe(1);
    expect(client.connections).toEqual([]);
  });

  it("answers -ENOTCONN after disconnect", async () => {
    const { client } = await Bench.open();
    client.disconnect();
    expect(client.open(0, VERSION)).toBe(-errno.ENOTCONN);
  });
});

describe("close", () => {
  it("answers -ENOENT for a handle that was never given, is closed, or belongs to another client", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    expect(bench.client.close(NO_HANDLE)).toBe(-errno.ENOENT);
    expect(bench.client.close(0)).toBe(-errno.ENOENT);
    expect(bench.guest("other").close(handle)).toBe(-errno.ENOENT);
    expect(bench.client.close(handle)).toBe(0);
    expect(bench.client.close(handle)).toBe(-errno.ENOENT);
  });

  it("forgets the handles before the device's close, and sends SHMCLOSE after it", async () => {
    const bench = await Bench.open();
    const { client, mailbox } = bench;
    const { handle } = bench.session();
    const signal = bench.share(handle);
    client.listen();
    bench.drain();
    const seen: unknown[] = [];
    mailbox.hooks.close = () => {
      seen.push(client.signal(signal), client.call(handle, CALL_SUM, 0, 0, 0), client.nextEvent());
    };
    expect(client.close(handle)).toBe(0);
    expect(seen).toEqual([-errno.ENOENT, -errno.ENOENT, null]);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
  });

  it("succeeds, and sends SHMCLOSE, even when the device's close throws", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.share(handle);
    bench.client.listen();
    bench.drain();
    bench.mailbox.hooks.close = () => {
      throw new Error("stuck");
    };
    expect(bench.client.close(handle)).toBe(0);
    expect(spell(bench.drain())).toEqual(["shmclose cookie"]);
    expect(bench.errors).toHaveLength(1);
  });
});

describe("call", () => {
  it("reaches the guest's bytes and hands back the device's result", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.memory.copyTo(SEGMENT + 64, new Uint8Array([1, 2, 3]));
    expect(bench.client.call(handle, CALL_SUM, SEGMENT + 64, 3, 100)).toBe(106);
  });

  it("answers -ENOENT for an unknown handle, also after close", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.client.close(handle);
    expect(bench.client.call(handle, CALL_SUM, SEGMENT, 1, 0)).toBe(-errno.ENOENT);
  });

  it("passes errors of the device through unchanged, -EFAULT of the memory included", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    expect(bench.client.call(handle, 77, SEGMENT, 1, 0)).toBe(-errno.EINVAL);
    expect(bench.client.call(handle, CALL_SUM, 0x7fff_ffff_ffff, 1, 0)).toBe(-errno.EFAULT);
    expect(bench.errors).toEqual([]);
  });

  it.each([
    [2 ** 40, 2 ** 31 - 1],
    [-(2 ** 40), -(2 ** 31)],
    [Infinity, 2 ** 31 - 1],
    [1.9, 1],
    [-errno.EBUSY, -errno.EBUSY],
  ])("clamps the result %d to %d", async (result, expected) => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.mailbox.hooks.call = () => result;
    expect(bench.client.call(handle, CALL_HOOK, 0, 0, 0)).toBe(expected);
  });

  it.each([NaN, "12", 5n])(
    "answers -EIO, with an error event, when the device returns %s",
    async (result) => {
      const bench = await Bench.open();
      const { handle } = bench.session();
      bench.mailbox.hooks.call = () => result as number;
      expect(bench.client.call(handle, CALL_HOOK, 0, 0, 0)).toBe(-errno.EIO);
      expect(bench.errors).toHaveLength(1);
    },
  );

  it("answers -EIO, with an error event, when the device throws anything else; the session lives on", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.mailbox.hooks.call = () => {
      throw new TypeError("bug");
    };
    expect(bench.client.call(handle, CALL_HOOK, 0, 0, 0)).toBe(-errno.EIO);
    expect(bench.errors).toHaveLength(1);
    expect(bench.client.call(handle, CALL_SUM, SEGMENT, 0, 4)).toBe(4);
  });

  it("may close its own session; the device's reference lasts until the call has ended", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    const device = bench.vbus.device("box0");
    const released: number[] = [];
    bench.mailbox.hooks.call = () => {
      bench.vbus.removeDevice("box0");
      bench.client.close(handle);
      released.push(bench.mailbox.released);
      return 5;
    };
    expect(bench.client.call(handle, CALL_HOOK, 0, 0, 0)).toBe(5);
    expect(released).toEqual([0]);
    expect(bench.mailbox.released).toBe(1);
    expect(device?.connections).toBe(0);
  });
});

describe("shm", () => {
  it("gives 0 without a signal, whatever the device returned", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    expect(bench.client.shm(handle, 5, SEGMENT, 100, null, 9)).toBe(0);
    expect(session.segments).toMatchObject([
      { id: 5, flags: 9, signal: null, segment: { gpa: SEGMENT, length: 100 } },
    ]);
  });

  it("gives signal handles from 0 with a signal, never twice, counted per client", async () => {
    const bench = await Bench.open();
    bench.mailbox.sessionsMax = 2;
    const other = bench.guest("other");
    const handle = bench.client.open(0, VERSION);
    expect([bench.share(handle), bench.share(handle)]).toEqual([0, 1]);
    bench.client.close(handle);
    expect(bench.share(bench.client.open(0, VERSION))).toBe(2);
    bench.client.reset();
    expect(bench.share(bench.client.open(0, VERSION))).toBe(3);
    expect(bench.share(other.open(0, VERSION), "cookie", other)).toBe(0);
  });

  it("answers -ENOENT for an unknown handle, before anything else is looked at", async () => {
    const { client } = await Bench.open();
    expect(client.shm(NO_HANDLE, 0, -1, -1, { offset: -1, prio: 0, cookie: 0 }, 0)).toBe(-errno.ENOENT);
  });

  const END = 0x10000 + (1 << 20);
  it.each([
    ["below guest memory", 0, 16],
    ["behind guest memory", END, 1],
    ["across the end of guest memory", END - 8, 16],
    ["that wraps around 32 bits", 0xffff_fff0, 0x20],
    ["that wraps around 64 bits", 2 ** 53 - 1, 0xffff_ffff],
    ["at an address that is no number", NaN, 16],
    ["of a negative length", SEGMENT, -1],
    ["of all 32 bits of length", SEGMENT, 0xffff_ffff],
  ])("answers -EFAULT for a segment %s", async (_where, gpa, length) => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    expect(bench.client.shm(handle, 0, gpa, length, null, 0)).toBe(-errno.EFAULT);
    expect(bench.client.shm(handle, 0, gpa, length, { offset: 0, prio: 0, cookie: 0 }, 0)).toBe(
      -errno.EFAULT,
    );
    expect(session.segments).toEqual([]);
  });

  it.each([
    ["behind the segment", SEGMENT_LENGTH],
    ["with its last byte behind the segment", SEGMENT_LENGTH - 15],
    ["so far behind that 32 bits overflow", 0xffff_fff8],
    ["misaligned by one", SIGNAL_OFFSET + 1],
    ["misaligned by two", SIGNAL_OFFSET + 2],
    ["without magic and version", SIGNAL_OFFSET + 32],
    ["at no whole offset", 8.5],
    ["before the segment", -8],
    ["at an offset that is no number", NaN],
  ])("answers -EINVAL for a signal record %s", async (_where, offset) => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    expect(bench.client.shm(handle, 3, SEGMENT, SEGMENT_LENGTH, { offset, prio: 0, cookie: 0 }, 0)).toBe(
      -errno.EINVAL,
    );
    expect(session.segments).toEqual([]);
  });

  it("answers -EINVAL for wrong magic or version, and takes a record at the very end of a segment", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    const record = SEGMENT + SIGNAL_OFFSET;
    formatSignal(bench.memory, record, 0x12345678);
    expect(bench.share(handle)).toBe(-errno.EINVAL);
    formatSignal(bench.memory, record, errno.SIGNAL_MAGIC, 2);
    expect(bench.share(handle)).toBe(-errno.EINVAL);
    formatSignal(bench.memory, record);
    expect(
      bench.client.shm(
        handle,
        3,
        SEGMENT,
        SIGNAL_OFFSET + 16,
        { offset: SIGNAL_OFFSET, prio: 9, cookie: 0 },
        0,
      ),
    ).toBe(0);
    expect(
      bench.client.shm(
        handle,
        3,
        SEGMENT,
        SIGNAL_OFFSET + 15,
        { offset: SIGNAL_OFFSET, prio: 0, cookie: 0 },
        0,
      ),
    ).toBe(-errno.EINVAL);
  });

  it("looks at the alignment of the record itself, not of its offset", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    const request = { offset: SIGNAL_OFFSET - 2, prio: 0, cookie: 0 };
    expect(bench.client.shm(handle, 3, SEGMENT + 2, SEGMENT_LENGTH, request, 0)).toBe(0);
  });

  it.each([true, false])("passes refusals of the device through (with a signal: %s)", async (withSignal) => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    const share = (): number =>
      withSignal ? bench.share(handle) : bench.client.shm(handle, 3, SEGMENT, SEGMENT_LENGTH, null, 0);
    bench.mailbox.hooks.shm = () => -errno.ENOSPC;
    expect(share()).toBe(-errno.ENOSPC);
    bench.mailbox.hooks.shm = () => {
      throw new VbusError("EEXIST", "there is one already");
    };
    expect(share()).toBe(-errno.EEXIST);
    expect(bench.errors).toEqual([]);
    bench.mailbox.hooks.shm = () => {
      throw new Error("bug");
    };
    expect(share()).toBe(-errno.EIO);
    expect(bench.errors).toHaveLength(1);
    bench.mailbox.hooks.shm = () => 0;
    expect(share()).toBe(0);
  });

  it("answers -ENOSPC when the signal handles are used up, without asking the device", async () => {
    const bench = await Bench.open({ lastSignalHandle: 1 });
    const { handle, session } = bench.session();
    expect([bench.share(handle), bench.share(handle), bench.share(handle)]).toEqual([0, 1, -errno.ENOSPC]);
    expect(session.segments).toHaveLength(2);
    expect(bench.client.shm(handle, 3, SEGMENT, 16, null, 0)).toBe(0);
  });

  it("answers -ENOMEM while a guest leaves too many SHMCLOSE untaken", async () => {
    const bench = await Bench.open({ signals: 2 });
    bench.client.listen();
    for (let i = 0; i < 2; i++) {
      const { handle } = bench.session();
      expect(bench.share(handle)).toBe(i);
      bench.client.close(handle);
    }
    const { handle } = bench.session();
    expect(bench.share(handle)).toBe(-errno.ENOMEM);
    bench.drain();
    expect(bench.share(handle)).toBe(2);
  });

  it("answers -ENOENT, and sends nothing, when the session ended inside the call", async () => {
    const bench = await Bench.open();
    const { handle } = bench.session();
    bench.client.listen();
    bench.drain();
    bench.mailbox.hooks.shm = (signal) => {
      bench.client.close(handle);
      signal?.notify();
      return 0;
    };
    expect(bench.share(handle)).toBe(-errno.ENOENT);
    expect(bench.drain()).toEqual([]);
    expect(bench.client.signal(0)).toBe(-errno.ENOENT);
  });

  it("keeps the guest's request as it was, should the connector reuse the object", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const request = { offset: SIGNAL_OFFSET, prio: 0, cookie: "first" };
    bench.client.shm(handle, 3, SEGMENT, SEGMENT_LENGTH, request, 0);
    request.cookie = "second";
    bench.client.listen();
    bench.drain();
    lastSignal(session).notify();
    expect(spell(bench.drain())).toEqual(["shmsignal first"]);
  });
});

describe("doorbells", () => {
  it("reach the device that owns the signal, and -ENOENT is counted for unknown handles", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const signal = bench.share(handle);
    let rung = 0;
    lastSignal(session).onDoorbell = () => rung++;
    expect([bench.client.signal(signal), bench.client.signal(signal)]).toEqual([0, 0]);
    expect(rung).toBe(2);
    expect(bench.client.signal(signal + 1)).toBe(-errno.ENOENT);
    bench.client.close(handle);
    expect(bench.client.signal(signal)).toBe(-errno.ENOENT);
    expect(rung).toBe(2);
  });

  it("that came before somebody listened are delivered as one, in a task", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const signal = bench.share(handle);
    bench.client.signal(signal);
    bench.client.signal(signal);
    let rung = 0;
    lastSignal(session).onDoorbell = () => rung++;
    expect(rung).toBe(0);
    bench.scheduler.run();
    expect(rung).toBe(1);
    bench.scheduler.run();
    expect(rung).toBe(1);
  });

  it("that were kept are not delivered once the session ended, or when a fresh one took their place", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const [first, second] = [bench.share(handle), bench.share(handle)];
    let rung = 0;
    bench.client.signal(first);
    bench.client.signal(second);
    for (const { signal } of session.segments) if (signal !== null) signal.onDoorbell = () => rung++;
    bench.client.signal(second);
    expect(rung).toBe(1);
    bench.client.close(handle);
    bench.scheduler.run();
    expect(rung).toBe(1);
  });

  it("whose handler throws become an error event and hurt nobody", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const signal = bench.share(handle);
    lastSignal(session).onDoorbell = () => {
      throw new Error("bug");
    };
    expect(bench.client.signal(signal)).toBe(-errno.EIO);
    expect(bench.errors).toHaveLength(1);
  });

  it("are not heard after the device released the signal", async () => {
    const bench = await Bench.open();
    const { handle, session } = bench.session();
    const signal = bench.share(handle);
    let rung = 0;
    lastSignal(session).onDoorbell = () => rung++;
    lastSignal(session).release();
    expect(bench.client.signal(signal)).toBe(-errno.ENOENT);
    expect(rung).toBe(0);
  });
});
