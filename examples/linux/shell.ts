/** An interactive console of the guest in the terminal: its serial line, or a console of the bus. */
import type { Terminal } from "vbus/devices/vconsole";
import type { Machine } from "./machine.js";

const END = "\x1d"; // Ctrl-]

/** Connects the terminal with the guest's serial line until Ctrl-], or until standard input ends. */
export async function runShell(machine: Machine): Promise<void> {
  const { stdout } = process;
  machine.console.listen((character) => stdout.write(character, "latin1"));
  const done = readKeys((text) => {
    machine.console.send(text);
  });
  machine.console.send("stty echo; cd /; break\n"); // out of the loop that reads lines for programs
  await done;
  machine.console.listen(null);
}

/**
 * Connects the terminal with a console of the guest, with the size of the window, until Ctrl-], or until standard input ends
 * or the guest hangs up.
 */
export async function runTerminal(terminal: Terminal): Promise<void> {
  const { stdout } = process;
  const resize = (): void => {
    terminal.resize(stdout.columns, stdout.rows);
  };
  if (stdout.isTTY) {
    resize();
    stdout.on("resize", resize);
  }
  terminal.onData = (bytes) => void stdout.write(bytes);
  await readKeys(
    (text) => void terminal.write(Buffer.from(text, "latin1")),
    (end) => {
      terminal.onHangup = end;
    },
  );
  terminal.onHangup = null;
  stdout.off("resize", resize);
}

/** Hands out what is typed until Ctrl-], or until standard input ends. @param ended - told how to end it earlier */
function readKeys(typed: (text: string) => void, ended: (end: () => void) => void = () => {}): Promise<void> {
  const { stdin } = process;
  return new Promise((resolve) => {
    const onData = (text: string): void => {
      const end = text.indexOf(END);
      typed(end === -1 ? text : text.slice(0, end));
      if (end !== -1) finish();
    };
    const finish = (): void => {
      stdin.off("data", onData).off("end", finish);
      if (stdin.isTTY) stdin.setRawMode(false);
      stdin.pause();
      resolve();
    };
    ended(finish);
    if (stdin.isTTY) stdin.setRawMode(true);
    stdin.setEncoding("latin1").on("data", onData).on("end", finish).resume();
  });
}
