import fc from "fast-check";
import { describe, expect, it } from "vitest";
import {
  decodeState,
  encodeState,
  STATE_FORMAT_VERSION,
  StateError,
  StateReader,
  type StateValue,
} from "vbus/state";

const fault = (act: () => unknown): string => {
  try {
    act();
  } catch (error) {
    expect(error).toBeInstanceOf(StateError);
    return (error as StateError).fault;
  }
  return "none";
};

const sample: StateValue = {
  name: "nic0",
  numbers: [0, 1, 2 ** 40],
  nothing: null,
  bytes: Uint8Array.of(1, 2, 3),
  nested: { more: new Uint8Array(100).fill(7), yes: true },
};

describe("a saved state as bytes", () => {
  it("gives back what was put in", () => {
    const state = decodeState(encodeState(sample));
    expect(state.get("name").text(10)).toBe("nic0");
    expect(
      state
        .get("numbers")
        .items(3)
        .map((item) => item.number(0, 2 ** 40)),
    ).toEqual([0, 1, 2 ** 40]);
    expect(state.get("nothing").nullable(() => 1)).toBeNull();
    expect(state.get("bytes").bytes(3)).toEqual(Uint8Array.of(1, 2, 3));
    expect(state.get("nested").get("more").bytes(100)).toEqual(new Uint8Array(100).fill(7));
    expect(state.get("nested").get("yes").boolean()).toBe(true);
  });

  it("is not made of what would not come back as it was", () => {
    class Processor {
      readonly pc = 0;
    }
    const refused: [unknown, RegExp][] = [
      [new ArrayBuffer(8), /an ArrayBuffer; give new Uint8Array\(buffer\)/],
      [new Uint32Array(2), /no Uint8Array; give new Uint8Array\(view\.buffer/],
      [new DataView(new ArrayBuffer(8)), /no Uint8Array/],
      [new Date(0), /an object of the class Date/],
      [new Map([[1, 2]]), /an object of the class Map/],
      [new Processor(), /an object of the class Processor/],
      [5n, /a bigint; give a string/],
      [NaN, /NaN, which is no finite number/],
      [undefined, /undefined; leave it out/],
      [() => 1, /a function/],
      [{ $: 0 }, /"\$" stands for bytes/],
    ];
    for (const [value, message] of refused) {
      for (const [at, state] of [
        ["state", value],
        ["state.own.list[1]", { own: { list: [1, value] } }],
      ] as const) {
        const act = (): unknown => encodeState(state as StateValue);
        expect(act).toThrow(message);
        expect(act).toThrow(`${at} cannot be saved`);
        expect(act).toThrow(expect.objectContaining({ code: "EINVAL" }) as Error);
      }
    }
    const bare = Object.assign(Object.create(null) as Record<string, StateValue>, { a: 1 });
    expect(decodeState(encodeState(bare)).get("a").number(1, 1)).toBe(1);
  });

  it("is refused, saying what to give, when it is no Uint8Array", () => {
    const { buffer } = encodeState(sample);
    const others: unknown = [buffer, undefined, null, "state.bin", [...new Uint8Array(buffer)]];
    for (const wrong of others as Uint8Array[]) {
      expect(fault(() => decodeState(wrong))).toBe("foreign");
      expect(() => decodeState(wrong)).toThrow(/new Uint8Array\(buffer\)/);
    }
    expect(() => decodeState(new Uint8Array(64))).toThrow(/give what Quiesced\.save or saveMachine returned/);
    expect(fault(() => decodeState(Buffer.from(buffer)))).toBe("none");
  });

  it("is refused as foreign when it is something else", () => {
    for (const bytes of [
      new Uint8Array(0),
      new Uint8Array(31),
      new Uint8Array(4096),
      new TextEncoder().encode("VBUSSAVES and more that is no state"),
    ])
      expect(["foreign", "version"]).toContain(fault(() => decodeState(bytes)));
  });

  it("is refused, saying so, when it has another version", () => {
    const bytes = encodeState(sample);
    new DataView(bytes.buffer).setUint32(8, STATE_FORMAT_VERSION + 1, true);
    expect(fault(() => decodeState(bytes))).toBe("version");
    expect(() => decodeState(bytes)).toThrow(/format 2, and this release reads format 1 alone/);
    expect(() => decodeState(bytes)).toThrow(expect.objectContaining({ code: "EOPNOTSUPP" }) as Error);
  });

  it("is refused wherever it is cut off", () => {
    const bytes = encodeState(sample);
    for (let length = 0; length < bytes.length; length++)
      expect(fault(() => decodeState(bytes.subarray(0, length)))).toBe(length < 32 ? "foreign" : "damaged");
  });

  it("is refused whichever of its bits is inverted", () => {
    const bytes = encodeState(sample);
    for (let bit = 0; bit < 8 * bytes.length; bit++) {
      // the word that is reserved says nothing
      if (bit >= 28 * 8 && bit < 32 * 8) continue;
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
      expect(
        fault(() => decodeState(bytes)),
        `bit ${bit}`,
      ).not.toBe("none");
      bytes[bit >>> 3]! ^= 1 << (bit & 7);
    }
    expect(fault(() => decodeState(bytes))).toBe("none");
  });

  it("never throws anything but its own error, whatever it is", () => {
    fc.assert(
      fc.property(fc.uint8Array({ maxLength: 200 }), (bytes) => {
        expect(fault(() => decodeState(bytes))).not.toBe("none");
      }),
    );
  });
});

describe("a reader of a state that may be anything", () => {
  it("refuses every value that is not what it asks for, with the place where it is", () => {
    const read = (value: unknown): StateReader => new StateReader(value, "state.x");
    fc.assert(
      fc.property(fc.anything(), (value) => {
        for (const act of [
          () => read(value).number(0, 10),
          () => read(value).boolean(),
          () => read(value).text(5),
          () => read(value).items(3),
          () => read(value).tuple(2),
          () => read(value).bytes(4),
          () => read(value).bits(),
          () => read(value).names(3),
          () => read(value).oneOf("a", "b"),
          () => read(value).get("toString").text(100),
        ]) {
          const outcome = fault(act);
          expect(["none", "contradiction"]).toContain(outcome);
        }
      }),
    );
    expect(() => read({ a: 1 }).get("a").text(5)).toThrow(/at state\.x\.a/);
    expect(fault(() => read({}).get("__proto__").names(5))).toBe("contradiction");
  });
});
