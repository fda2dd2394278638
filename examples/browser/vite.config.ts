import { fileURLToPath } from "node:url";
import { defineConfig } from "vite";

/** `npm run page` builds with this, and puts the guest's files beside what comes out. */
export default defineConfig({
  root: fileURLToPath(new URL(".", import.meta.url)),
  base: "./", // any folder of any static server
  publicDir: false,
  logLevel: "warn",
  build: {
    outDir: fileURLToPath(new URL("../../.build/browser-page", import.meta.url)),
    emptyOutDir: true,
    target: "es2022",
    sourcemap: true,
    assetsInlineLimit: 0, // a strict content security policy allows no data: addresses
    chunkSizeWarningLimit: 1500,
    rolldownOptions: {
      checks: { bundlerTimings: false },
      onLog: (level, log, report) => {
        // v86 and the engine import Node's modules where they run in Node
        if (!/externalized for browser compatibility/.test(log.message)) report(level, log);
      },
    },
  },
});
