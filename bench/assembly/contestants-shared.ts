/** The contestants over shared memory: both halves of every two-thread figure. */
export * from "./contestants";
