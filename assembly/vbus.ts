/** Entry of the unshared flavour: links onto an emulator's own memory (compiled without threads). */
export * from "./exports";
