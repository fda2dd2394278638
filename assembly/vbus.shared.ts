/** Entry of the shared flavour: shared memory between threads. */
export * from "./exports";
