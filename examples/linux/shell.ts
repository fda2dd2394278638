/** An interactive console of the guest in the terminal. */
import type { Machine } from "./machine.js";

const END = "\x1d"; // Ctrl-]

/** Connects the terminal with the guest until Ctrl-], or until standard input ends. */
export function runShell(machine: Machine): Promise<void> {
  const { stdin, stdout } = process;
  return new Promise((resolve) => {
    const onData = (text: string): void => {
      const end = text.indexOf(END);
      machine.console.send(end === -1 ? text : text.slice(0, end));
      if (end !== -1) finish();
    };
    const finish = (): void => {
      machine.console.listen(null);
      stdin.off("data", onData).off("end", finish);
      if (stdin.isTTY) stdin.setRawMode(false);
      stdin.pause();
      resolve();
    };
    machine.console.listen((character) => stdout.write(character, "latin1"));
    if (stdin.isTTY) stdin.setRawMode(true);
    stdin.setEncoding("latin1").on("data", onData).on("end", finish).resume();
    machine.console.send("stty echo; cd /; break\n"); // out of the loop that reads lines for programs
  });
}
