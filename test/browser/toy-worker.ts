/** The toy machine in a module worker. */
import { serve } from "../../examples/replay/threads.js";
import { runToy } from "./toy.js";

await serve({
  toy() {
    return runToy();
  },
});
