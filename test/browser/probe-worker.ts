/** The engine's probe in a module worker. */
import { serve } from "../../examples/replay/threads.js";
import { probeEngine, type LinkWay } from "./engine-probe.js";

await serve({
  engine({ way }: { way: LinkWay }) {
    return probeEngine(way);
  },
});
