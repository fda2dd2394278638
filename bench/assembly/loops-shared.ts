/** Loops of the shared flavour: one thread with barriers, and both halves of every two-thread figure. */
export * from "./one-thread";
export * from "./two-threads";
