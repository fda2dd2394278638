/**
 * Which of V8's compilers works on v86's code. v86 translates what the guest runs into thousands of small modules;
 * optimising each of them takes the processor time that the guest would need, so the fast compiler alone ("Liftoff")
 * is the better one for them. Code that is compiled once and stays, v86's own core and our engine, is worth optimising.
 *
 * The flag belongs to the whole process and counts for what is compiled while it is set. It is set while any machine
 * runs: what should be optimised is compiled before.
 */
import { setFlagsFromString } from "node:v8";

let holders = 0;

/** Modules that are compiled from now on are not optimised, until as many {@link allowOptimising} were called. */
export function forbidOptimising(): void {
  if (holders++ === 0) setFlagsFromString("--liftoff-only");
}

/** Undoes one {@link forbidOptimising}. */
export function allowOptimising(): void {
  if (--holders === 0) setFlagsFromString("--no-liftoff-only");
}
