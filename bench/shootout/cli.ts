#!/usr/bin/env node
/** The `vbus` command of the package. */
import process from "node:process";
import { shootoutMain } from "./main.js";

const [command, ...args] = process.argv.slice(2);
if (command === "shootout") {
  process.exitCode = await shootoutMain(args);
} else {
  process.stderr.write("vbus shootout [--quick | --full]: measures IOQ and its rivals; --help says more\n");
  process.exitCode = 2;
}
