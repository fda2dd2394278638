/** Runs before every test file: properties use the same seed in every run, unless they name one or `VBUS_SEED` does. */
import { configureGlobal, readConfigureGlobal } from "fast-check";
import { seedOr } from "./engine/seed.js";

configureGlobal({ ...readConfigureGlobal(), seed: seedOr(20090402) });
