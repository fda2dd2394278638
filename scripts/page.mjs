// npm run page [-- options]: builds and serves the page with Linux guests, or the page of the replay.
import process from "node:process";
import { parseArgs } from "node:util";
import { BROWSER_PAGE_POLICY, buildBrowserPage } from "./browser-page.mjs";
import { ensure } from "./ensure.mjs";
import { bundlePages, servePages } from "./pages.mjs";
import { StepError, main } from "./step.mjs";

const HELP = `npm run page -- [options]

Serves a page on 127.0.0.1 and prints its address; ^C ends it. The page boots Linux guests in v86, with virtio-net and venet
side by side: a terminal, live charts, the bus tree, hot-plug, captures. Its folder works on any static server.

  --port <n>       port to listen on (default 8009; 0: any free one)
  --no-state       without a saved state: the page's first guest boots, which takes some 15 seconds
  --build          only build the folder, and print where it is
  --replay         the page of the replay instead: guests written in TypeScript, in workers
  --no-isolation   (with --replay) leave out the headers that make a page cross-origin isolated
  --help           this text
`;

function readArguments() {
  let values;
  try {
    ({ values } = parseArgs({
      options: {
        port: { type: "string", default: "8009" },
        "no-state": { type: "boolean", default: false },
        build: { type: "boolean", default: false },
        replay: { type: "boolean", default: false },
        "no-isolation": { type: "boolean", default: false },
        help: { type: "boolean", default: false },
      },
    }));
  } catch (error) {
    throw new StepError(`${error.message}\n(npm run page -- --help explains the options)`, 2);
  }
  const port = Number(values.port);
  if (!/^\d+$/.test(values.port) || port > 65535)
    throw new StepError(`--port ${values.port}: give a number from 0 to 65535`, 2);
  if (values.replay && (values["no-state"] || values.build))
    throw new StepError("--no-state and --build belong to the page with Linux guests: leave --replay out", 2);
  if (values["no-isolation"] && !values.replay)
    throw new StepError("--no-isolation belongs to --replay: the other page is never isolated", 2);
  return { ...values, port };
}

/** The folder of the page with guests; who cannot have them may still have the other page. */
async function guestFolder(options) {
  try {
    return await buildBrowserPage(options);
  } catch (error) {
    if (!(error instanceof StepError)) throw error;
    throw new StepError(`${error.message}\n(npm run page -- --replay needs no Linux guest)`, error.exitCode);
  }
}

await main(async () => {
  const options = readArguments();
  if (options.help) {
    process.stdout.write(HELP);
    return 0;
  }
  await ensure({ programs: !options.replay, bench: false });
  const folder = options.replay ? await bundlePages() : await guestFolder({ state: !options["no-state"] });
  if (options.build) {
    console.log(folder);
    return 0;
  }
  const isolation = options.replay && !options["no-isolation"];
  const server = await servePages({
    folder,
    isolation,
    port: options.port,
    ...(options.replay ? {} : { policy: BROWSER_PAGE_POLICY }),
  });
  const what = options.replay
    ? `the replay${isolation ? "" : " (not cross-origin isolated)"}`
    : "Linux guests";
  console.log(`${what}: ${server.url}`);
  console.log("^C ends the server");
  await new Promise((resolve) => {
    process.once("SIGINT", resolve);
    process.once("SIGTERM", resolve);
  });
  await server.close();
  return 0;
});
