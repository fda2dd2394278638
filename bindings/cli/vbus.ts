#!/usr/bin/env node
/** The `vbus` command of the package. */
import process from "node:process";
import { inspectMain } from "./inspect.js";

const HELP = `vbus inspect [SOCKET]            looks at a running host; --help says more
vbus shootout [--quick | --full]  measures IOQ and its rivals; --help says more
`;

/** The shoot-out lies beside the package's modules; only who asks for it loads it. */
const SHOOTOUT = new URL("../../bench/shootout/main.js", import.meta.url).href;

const [command, ...args] = process.argv.slice(2);
switch (command) {
  case "inspect":
    process.exitCode = await inspectMain(args);
    break;
  case "shootout": {
    const { shootoutMain } = (await import(SHOOTOUT)) as {
      shootoutMain: (args: string[]) => Promise<number>;
    };
    process.exitCode = await shootoutMain(args);
    break;
  }
  case "--help":
  case "help":
    process.stdout.write(HELP);
    break;
  default:
    process.stderr.write(command === undefined ? HELP : `there is no command "${command}"\n${HELP}`);
    process.exitCode = 2;
}
