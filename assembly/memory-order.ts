/**
 * The few memory accesses whose order matters, by name.
 *
 * Shared flavour: WebAssembly atomics, which are sequentially consistent (on x86 the store is a full barrier, the
 * load is an ordinary load). Unshared flavour: such a memory cannot be seen by a second thread, and the guest does
 * not run while the engine runs, so ordinary accesses in program order are all that is needed.
 */

/** Loads a control byte; later accesses stay behind it. */
export function loadByte(address: usize): u32 {
  if (ASC_FEATURE_THREADS) return atomic.load<u8>(address);
  return load<u8>(address);
}

/** Stores a control byte; earlier accesses stay before it, later *loads* stay behind it (full ordering). */
export function storeByte(address: usize, value: u32): void {
  if (ASC_FEATURE_THREADS) atomic.store<u8>(address, <u8>value);
  else store<u8>(address, <u8>value);
}

/** Loads a shared 16-bit index or flags word; later accesses stay behind it. */
export function loadHalf(address: usize): u32 {
  if (ASC_FEATURE_THREADS) return atomic.load<u16>(address);
  return load<u16>(address);
}

/** Stores a shared 16-bit index or flags word; earlier accesses stay before it, later loads behind it (full ordering). */
export function storeHalf(address: usize, value: u32): void {
  if (ASC_FEATURE_THREADS) atomic.store<u16>(address, <u16>value);
  else store<u16>(address, <u16>value);
}

/** Loads a shared 32-bit word. */
export function loadWord(address: usize): u32 {
  if (ASC_FEATURE_THREADS) return atomic.load<u32>(address);
  return load<u32>(address);
}

/** Stores a shared 32-bit word, fully ordered. */
export function storeWord(address: usize, value: u32): void {
  if (ASC_FEATURE_THREADS) atomic.store<u32>(address, value);
  else store<u32>(address, value);
}

/** Adds to a private 64-bit counter. */
export function addCounter(address: usize, amount: u64): void {
  store<u64>(address, load<u64>(address) + amount);
}
