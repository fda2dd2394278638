import type { NicEnvironment } from "../ethernet/environment.js";
import type { VenetStatistics } from "./statistics.js";

/** What venet's rings need of their NIC beside what every NIC has. */
export interface VenetDataEnvironment extends NicEnvironment {
  /** {@inheritDoc NicEnvironment.statistics} */
  readonly statistics: VenetStatistics;
  /** Frames per completion signal; 0 = every frame. */
  readonly txMitigation: number;
}
