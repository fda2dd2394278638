/**
 * shm-signal (`docs/abi/shm-signal.md`): "look at the memory again", with as few doorbells as possible.
 *
 * Why no wake-up is lost
 * ----------------------
 * Three bytes describe the notifications that a receiver gets: `enabled` (receiver writes), `pending` and `dirty`
 * (sender sets, receiver clears). A sender rings only when it finds `enabled` and not `pending`. So a wake-up could be
 * lost in just three ways, and each is closed by one store-then-load pair on both sides (Dekker's pattern: of two
 * threads that each store and then load what the other stored, at least one sees the other's store, provided that
 * neither load passes its own store):
 *
 *   1. Sender sees *masked*, receiver sees *clean* while it unmasks.
 *        sender    [S1] dirty = 1      then  [S2] load enabled        (O2)
 *        receiver  [E1] enabled = 1    then  [E2] load dirty          (O5)
 *      S2 reads 0 only if it came before E1, hence S1 before E2: enable sees dirty and asks for a deferred wakeup.
 *
 *   2. Sender sees *pending*, receiver sees *clean* while it finishes.
 *        sender    [S1] dirty = 1      then  [S3] load pending        (O2)
 *        receiver  [W3] pending = 0    then  [W4] load dirty          (O6)
 *      S3 reads 1 only if it came before W3, hence S1 before W4: the outer loop takes another turn.
 *
 *   3. Receiver wipes out a `dirty` whose data it has not seen.
 *        sender    data, [P3] sown     then  [S1] dirty = 1           (O1, Q6)
 *        receiver  [W1] dirty = 0      then  [C1] load sown, data     (O4)
 *      If W1 overwrote S1, then P3 came before S1 came before W1 came before C1: the data is seen. C1 must be an
 *      atomic load, or it might be satisfied before W1 leaves the store buffer (defect R1b).
 *
 * A burst publishes several descriptors with one P3 (the first item's owner, after all others) followed by one S1;
 * the pairs above hold unchanged. Our own receivers look at the ring once more after W3, so that even a peer with
 * the orderings of 2009 (defect R1: write and read fences only) is served as soon as its stores arrive.
 *
 * Between peers that negotiated LAZY_INDEXES a burst may leave out [S1] when it finds `dirty` still set after its [P3]
 * (`announce` in `burst.ts`). That is the third way once more, with a load in place of the second store:
 *        sender    [P3] sown           then  [S0] load dirty
 *        receiver  [W1] dirty = 0      then  [C1] load sown, data     (O4)
 *      S0 reads 1 only if it came before the W1 that clears it, hence P3 before C1: the data is seen. That W1 is certain
 *      to come, because each S1 is followed by S2 and S3, and by 1 and 2 a `dirty` that was set never stays unseen. In
 *      other words: when all is quiet `dirty` is clear. A receiver without O4 to O6 would break both halves, so towards
 *      a peer that has not promised them by negotiating [S1] is never left out.
 *
 * `test/model/` explores every interleaving of this on a machine with store buffers, with one mutant for each rule.
 *
 * The engine cannot call anybody, so control is inverted: inject and enable *return* what the caller has to do, and
 * a wakeup is `wakeupBegin → run the notifier? → wakeupNext → again / done / budget spent` (bounded: defect R6).
 */
import {
  REGIONS_OFF_WRITE_LOG,
  SIG_KIND_BARE,
  SIG_OFF_BUDGET,
  SIG_OFF_DEFERRED,
  SIG_OFF_EXHAUSTED,
  SIG_OFF_GPA,
  SIG_OFF_IN_WAKEUP,
  SIG_OFF_KIND,
  SIG_OFF_LOCAL,
  SIG_OFF_LOCALE,
  SIG_OFF_MASKED,
  SIG_OFF_NOTIFIED,
  SIG_OFF_RECORD,
  SIG_OFF_REGIONS,
  SIG_OFF_REMOTE,
  SIG_OFF_SENT,
  SIG_OFF_SPURIOUS,
  SIG_OFF_SUPPRESSED,
  SIG_OFF_WAKEUPS,
  SIG_STATE_SIZE,
  WAKEUP_BUDGET,
  WAKEUP_DONE,
  WAKEUP_RUN,
} from "./abi/arena";
import { EFAULT, EINVAL } from "./abi/errno";
import {
  IRQ_OFF_DIRTY,
  IRQ_OFF_ENABLED,
  IRQ_OFF_PENDING,
  SIGNAL_IRQ_SIZE,
  SIGNAL_MAGIC,
  SIGNAL_OFF_IRQ,
  SIGNAL_OFF_MAGIC,
  SIGNAL_OFF_VERSION,
  SIGNAL_SIZE,
  SIGNAL_VERSION,
} from "./abi/shm-signal";
import { addCounter, loadByte, storeByte } from "./memory-order";
import { logWrite, translateRange } from "./regions";

/** Points a signal's cached addresses at its record. */
export function signalPlace(signal: usize, record: usize): void {
  const locale = load<u32>(signal, SIG_OFF_LOCALE);
  const first = record + SIGNAL_OFF_IRQ;
  store<u32>(signal, <u32>record, SIG_OFF_RECORD);
  store<u32>(signal, <u32>(first + <usize>(locale * SIGNAL_IRQ_SIZE)), SIG_OFF_LOCAL);
  store<u32>(signal, <u32>(first + <usize>((1 - locale) * SIGNAL_IRQ_SIZE)), SIG_OFF_REMOTE);
}

/** Notes the record in the write log: its six bytes share a line, and an emulator invalidates whole lines anyway. */
function logRecord(signal: usize): void {
  const regions = <usize>load<u32>(signal, SIG_OFF_REGIONS);
  if (load<u32>(regions, REGIONS_OFF_WRITE_LOG) == 0) return;
  logWrite(regions, load<u64>(signal, SIG_OFF_GPA), SIGNAL_SIZE);
}

/** Fills the private state of a signal whose record lies at `record`. */
export function signalBind(
  signal: usize,
  regions: usize,
  gpa: u64,
  record: usize,
  locale: u32,
  kind: u32,
): void {
  memory.fill(signal, 0, SIG_STATE_SIZE);
  store<u32>(signal, locale, SIG_OFF_LOCALE);
  store<u32>(signal, kind, SIG_OFF_KIND);
  store<u32>(signal, <u32>regions, SIG_OFF_REGIONS);
  store<u64>(signal, gpa, SIG_OFF_GPA);
  signalPlace(signal, record);
}

/** Writes a fresh record: magic, version, everything masked and clean (`docs/abi/shm-signal.md` 1). */
export function signalFormat(record: usize): void {
  memory.fill(record, 0, SIGNAL_SIZE);
  store<u32>(record, SIGNAL_MAGIC, SIGNAL_OFF_MAGIC);
  store<u32>(record, SIGNAL_VERSION, SIGNAL_OFF_VERSION);
}

/** True when the record has the right magic and version. */
export function signalCheck(record: usize): bool {
  return (
    load<u32>(record, SIGNAL_OFF_MAGIC) == SIGNAL_MAGIC &&
    load<u32>(record, SIGNAL_OFF_VERSION) == SIGNAL_VERSION
  );
}

/** North: writes and binds a record of its own at a guest address. 0, -EFAULT (range) or -EINVAL (alignment, locale). */
export function signalCreate(signal: usize, regions: usize, gpaLow: u32, gpaHigh: u32, locale: u32): i32 {
  const gpa = ((<u64>gpaHigh) << 32) | gpaLow;
  const record = translateRange(regions, gpa, SIGNAL_SIZE);
  if (record == 0) return -EFAULT;
  if ((record & 3) != 0 || locale > 1) return -EINVAL;
  signalFormat(record);
  logWrite(regions, gpa, SIGNAL_SIZE);
  signalBind(signal, regions, gpa, record, locale, SIG_KIND_BARE);
  return 0;
}

/** South: checks and binds a record that north wrote (defect R9: range and alignment too). */
export function signalAttach(signal: usize, regions: usize, gpaLow: u32, gpaHigh: u32, locale: u32): i32 {
  const gpa = ((<u64>gpaHigh) << 32) | gpaLow;
  const record = translateRange(regions, gpa, SIGNAL_SIZE);
  if (record == 0) return -EFAULT;
  if ((record & 3) != 0 || locale > 1 || !signalCheck(record)) return -EINVAL;
  signalBind(signal, regions, gpa, record, locale, SIG_KIND_BARE);
  return 0;
}

/**
 * Tells the peer to look (`docs/abi/shm-signal.md` 2.1). Returns 1 when the caller must ring the doorbell, else 0.
 * Everything that is announced must have been stored before.
 */
export function signalInject(signal: usize): u32 {
  const remote = <usize>load<u32>(signal, SIG_OFF_REMOTE);
  storeByte(remote + IRQ_OFF_DIRTY, 1); // [S1] pairs with [W1], [W4], [E2]; fully ordered before [S2] and [S3]
  logRecord(signal);
  if (loadByte(remote + IRQ_OFF_ENABLED) == 0) {
    // [S2] pairs with [E1]
    addCounter(signal + SIG_OFF_MASKED, 1);
    return 0;
  }
  if (loadByte(remote + IRQ_OFF_PENDING) != 0) {
    // [S3] pairs with [W3]
    addCounter(signal + SIG_OFF_SUPPRESSED, 1);
    return 0;
  }
  storeByte(remote + IRQ_OFF_PENDING, 1); // [S4] before the doorbell that the caller rings (O3)
  addCounter(signal + SIG_OFF_SENT, 1);
  return 1;
}

/** Masks notifications towards this side. A doorbell already rung may still arrive (defect R5). */
export function signalDisable(signal: usize): void {
  storeByte(<usize>load<u32>(signal, SIG_OFF_LOCAL) + IRQ_OFF_ENABLED, 0);
  logRecord(signal);
}

/** Unmasks. Returns 1 when the caller must schedule a deferred wakeup (`docs/abi/shm-signal.md` 2.3), else 0. */
export function signalEnable(signal: usize): u32 {
  const local = <usize>load<u32>(signal, SIG_OFF_LOCAL);
  storeByte(local + IRQ_OFF_ENABLED, 1); // [E1] pairs with [S2]; fully ordered before [E2]
  logRecord(signal);
  if (load<u32>(signal, SIG_OFF_IN_WAKEUP) != 0) return 0; // the loop that is running looks again anyway (2.6)
  if ((loadByte(local + IRQ_OFF_DIRTY) | loadByte(local + IRQ_OFF_PENDING)) == 0) return 0; // [E2] pairs with [S1]
  addCounter(signal + SIG_OFF_DEFERRED, 1);
  return 1;
}

/** The outer condition of `docs/abi/shm-signal.md` 2.4: RUN with `dirty` cleared, or DONE. */
export function signalTurn(signal: usize, ringHasWork: bool): u32 {
  const local = <usize>load<u32>(signal, SIG_OFF_LOCAL);
  if (loadByte(local + IRQ_OFF_ENABLED) != 0) {
    // [W4] dirty: pairs with [S1]
    if (ringHasWork || (loadByte(local + IRQ_OFF_DIRTY) | loadByte(local + IRQ_OFF_PENDING)) != 0) {
      return signalRun(signal, local);
    }
  }
  store<u32>(signal, 0, SIG_OFF_IN_WAKEUP);
  return WAKEUP_DONE;
}

/** Clears `dirty` and grants one run of the notifier, unless the budget is spent. */
export function signalRun(signal: usize, local: usize): u32 {
  const budget = load<u32>(signal, SIG_OFF_BUDGET);
  if (budget == 0) {
    // `pending` stays set, or was found set or dirty: the wakeup that the caller schedules finds its cause
    store<u32>(signal, 0, SIG_OFF_IN_WAKEUP);
    addCounter(signal + SIG_OFF_EXHAUSTED, 1);
    return WAKEUP_BUDGET;
  }
  store<u32>(signal, budget - 1, SIG_OFF_BUDGET);
  storeByte(local + IRQ_OFF_DIRTY, 0); // [W1] fully ordered before the notifier's [C1] (O4); pairs with [S1], [S0]
  logRecord(signal);
  addCounter(signal + SIG_OFF_NOTIFIED, 1);
  return WAKEUP_RUN;
}

/** Begins a wakeup. `budget` bounds how often the notifier runs. Returns a `WAKEUP_…` result. */
export function signalWakeupBegin(signal: usize, budget: u32): u32 {
  addCounter(signal + SIG_OFF_WAKEUPS, 1);
  store<u32>(signal, 1, SIG_OFF_IN_WAKEUP);
  store<u32>(signal, budget, SIG_OFF_BUDGET);
  const turn = signalTurn(signal, false);
  if (turn == WAKEUP_DONE) addCounter(signal + SIG_OFF_SPURIOUS, 1);
  return turn;
}

/** True when the inner loop of 2.4 must go round again: still enabled and dirty again. */
export function signalDirtyAgain(local: usize): bool {
  return loadByte(local + IRQ_OFF_ENABLED) != 0 && loadByte(local + IRQ_OFF_DIRTY) != 0;
}

/** Step 2.2 of 2.4: this side no longer works; senders ring again. */
export function signalSettle(signal: usize, local: usize): void {
  storeByte(local + IRQ_OFF_PENDING, 0); // [W3] pairs with [S3]; fully ordered before [W4] (O6)
  logRecord(signal);
}

/** Continues a wakeup after the notifier ran. Returns a `WAKEUP_…` result. */
export function signalWakeupNext(signal: usize): u32 {
  const local = <usize>load<u32>(signal, SIG_OFF_LOCAL);
  if (signalDirtyAgain(local)) return signalRun(signal, local);
  signalSettle(signal, local);
  return signalTurn(signal, false);
}
