import { spawn, spawnSync, type ChildProcessWithoutNullStreams } from "node:child_process";
import fs from "node:fs";
import path from "node:path";
import { createInterface } from "node:readline";

/** Flags of the native contestants: the baseline of x86-64, which has SSE2 and nothing newer. */
export const NATIVE_FLAGS = [
  "-std=gnu11",
  "-O3",
  "-march=x86-64",
  "-Wall",
  "-Wextra",
  "-Werror",
  "-pthread",
] as const;

const SOURCES = ["main.c", "threads.c", "contest.c", "ring.c", "checksum.c"];
const COMPILERS = ["cc", "gcc", "clang"];
/** An answer takes milliseconds; a machine that is busy with other things may take this long. */
const ANSWER_MS = 120_000;

/** Why there are no native figures. */
export interface NativeAbsent {
  /** For people, such as "no compiler: …". */
  reason: string;
}

/** An answer of the native program: numbers by name. */
export type NativeAnswer = Record<string, number>;

/**
 * The native contestants: one process for the whole run that answers one command at a time, so that its samples can be
 * taken in turn with ours.
 */
export class NativeBench {
  readonly #child: ChildProcessWithoutNullStreams;
  #waiting: { resolve: (line: string) => void; reject: (error: Error) => void } | null = null;
  #ended: Error | null = null;

  /** Talks to a program that runs; {@link NativeBench.start} is the usual way to one. */
  constructor(
    child: ChildProcessWithoutNullStreams,
    /** Name and version of the compiler. */
    readonly compiler: string,
    /** How long to wait for an answer, in ms. */
    private readonly answerMs = ANSWER_MS,
  ) {
    this.#child = child;
    createInterface({ input: child.stdout }).on("line", (line) => {
      this.#waiting?.resolve(line);
      this.#waiting = null;
    });
    child.on("error", (error) => {
      this.#end(error);
    });
    child.on("close", (code) => {
      this.#end(new Error(`the native program ended with code ${code ?? "unknown"}`));
    });
  }

  #end(error: Error): void {
    this.#ended ??= error;
    this.#waiting?.reject(error);
    this.#waiting = null;
  }

  /** Compiles `bench/native` into `folder` when a compiler is there, and starts it. */
  static start(sources: string, folder: string): NativeBench | NativeAbsent {
    if (process.arch !== "x64")
      return { reason: `the native contestants are x86-64 code, this machine is ${process.arch}` };
    const compiler = COMPILERS.find(
      (name) => spawnSync(name, ["--version"], { stdio: "ignore" }).status === 0,
    );
    if (compiler === undefined) return { reason: `no compiler: none of ${COMPILERS.join(", ")} runs here` };
    fs.mkdirSync(folder, { recursive: true });
    const binary = path.join(folder, "bench");
    const args = [...NATIVE_FLAGS, ...SOURCES.map((file) => path.join(sources, file)), "-o", binary];
    const built = spawnSync(compiler, args, { encoding: "utf8" });
    if (built.status !== 0) throw new Error(`${compiler} does not compile bench/native:\n${built.stderr}`);
    const version =
      spawnSync(compiler, ["--version"], { encoding: "utf8" }).stdout.split("\n")[0] ?? compiler;
    return new NativeBench(spawn(binary, { stdio: ["pipe", "pipe", "pipe"] }), version);
  }

  /**
   * Runs one command.
   * @throws Error when the program reports a failure, ends, or does not answer; then it is ended, for an answer that came
   * late would be taken for the next one
   */
  async ask(command: string): Promise<NativeAnswer> {
    if (this.#ended !== null) throw this.#ended;
    const line = await new Promise<string>((resolve, reject) => {
      const timer = setTimeout(() => {
        this.#end(
          new Error(
            `the native program did not answer "${command}" within ${this.answerMs} ms: measure on a machine that is less busy`,
          ),
        );
        this.#child.kill("SIGKILL");
      }, this.answerMs);
      this.#waiting = {
        resolve: (text) => {
          clearTimeout(timer);
          resolve(text);
        },
        reject: (error) => {
          clearTimeout(timer);
          reject(error);
        },
      };
      this.#child.stdin.write(`${command}\n`);
    });
    const answer = JSON.parse(line) as NativeAnswer & { error?: string };
    if (answer.error !== undefined) throw new Error(`native "${command}": ${answer.error}`);
    return answer;
  }

  /** Ends the process. */
  close(): void {
    this.#child.stdin.end();
  }
}
