/** Loops for one thread, unshared flavour: what the engine costs without barriers. */
export * from "./one-thread";
