// A vitest reporter that ends the run with one plain line, "N passed, N failed", over all projects, and that makes a
// run without tests, or under CI=true one with skipped tests, a failed one.
import process from "node:process";

/** Reporter; vitest.config.ts lists it after the default one, so that its line is the last. */
export default class ClosingLine {
  onTestRunEnd(modules, unhandledErrors) {
    let passed = 0;
    let failed = unhandledErrors.length;
    const skipped = [];
    for (const module of modules) {
      // A file that could not be loaded, or whose hooks threw, holds no failed test that would say so.
      failed += module.errors().length;
      for (const suite of module.children.allSuites()) failed += suite.errors().length;
      for (const test of module.children.allTests()) {
        const { state } = test.result();
        if (state === "passed") passed++;
        else if (state === "failed") failed++;
        else skipped.push(`${module.moduleId}: ${test.fullName}`);
      }
    }
    const strict = process.env.CI === "true";
    if (strict && skipped.length > 0) {
      process.exitCode = 1;
      console.log("Under CI=true every test must run. Not run:");
      for (const name of skipped) console.log(`  ${name}`);
    }
    if (passed + failed === 0) {
      process.exitCode = 1;
      console.log("No test ran.");
    }
    if (failed > 0) process.exitCode = 1;
    console.log(
      `${passed} passed, ${failed} failed${skipped.length > 0 ? `, ${skipped.length} skipped` : ""}`,
    );
  }
}
