import js from "@eslint/js";
import { defineConfig } from "eslint/config";
import jsdoc from "eslint-plugin-jsdoc";
import tseslint from "typescript-eslint";

const TYPESCRIPT = [
  "bindings/**/*.ts",
  "test/**/*.ts",
  "bench/**/*.ts",
  "examples/**/*.ts",
  "assembly/abi/*.ts",
  "vitest.config.ts",
];

export default defineConfig(
  {
    ignores: [
      "dist/**",
      ".build/**",
      "docs/**",
      "coverage/**",
      "bench/report/**",
      "bindings/engine/wasm-bytes.ts",
      // AssemblyScript shares the syntax of TypeScript but not its types; asc is what checks it.
      "assembly/**/*.ts",
      "!assembly/abi/*.ts",
      "bench/assembly/**",
    ],
  },
  { linterOptions: { reportUnusedDisableDirectives: "error" } },
  {
    files: TYPESCRIPT,
    extends: [js.configs.recommended, tseslint.configs.strictTypeChecked],
    languageOptions: {
      parserOptions: {
        project: ["tsconfig.json", "tsconfig.programs.json"],
        tsconfigRootDir: import.meta.dirname,
      },
    },
    rules: {
      eqeqeq: "error",
      "no-console": "off",
      "@typescript-eslint/consistent-type-imports": "error",
      "@typescript-eslint/consistent-type-exports": "error",
      "@typescript-eslint/switch-exhaustiveness-check": [
        "error",
        { considerDefaultExhaustiveForUnions: true },
      ],
      "@typescript-eslint/no-unused-vars": ["error", { argsIgnorePattern: "^_", varsIgnorePattern: "^_" }],
      "@typescript-eslint/restrict-template-expressions": [
        "error",
        { allowNumber: true, allowBoolean: true },
      ],
      // Bounds are proven once above a hot loop; a check per element there is what the assertion avoids.
      "@typescript-eslint/no-non-null-assertion": "off",
      // `while (true)` is how a drain loop with several exits reads best.
      "@typescript-eslint/no-unnecessary-condition": ["error", { allowConstantLoopConditions: true }],
      "@typescript-eslint/no-confusing-void-expression": ["error", { ignoreArrowShorthand: true }],
      // Codes of the ABI are numbers on the wire and named constants in the source.
      "@typescript-eslint/no-unsafe-enum-comparison": "off",
      // Interfaces with synchronous verbs are implemented by asynchronous guests and the other way round.
      "@typescript-eslint/require-await": "off",
    },
  },
  {
    files: ["bindings/**/*.ts", "assembly/abi/*.ts"],
    plugins: { jsdoc },
    rules: {
      "no-console": "error",
      "jsdoc/require-jsdoc": [
        "error",
        {
          publicOnly: true,
          require: {
            ArrowFunctionExpression: true,
            ClassDeclaration: true,
            FunctionDeclaration: true,
            FunctionExpression: true,
            MethodDefinition: true,
          },
          contexts: [
            "TSInterfaceDeclaration",
            "TSTypeAliasDeclaration",
            "TSEnumDeclaration",
            "ExportNamedDeclaration > VariableDeclaration",
          ],
          checkConstructors: false,
          checkGetters: "no-setter",
          checkSetters: "no-getter",
        },
      ],
    },
  },
  {
    files: ["test/**/*.ts"],
    rules: {
      // Arrange blocks hand over half-built objects, and spies are compared unbound.
      "@typescript-eslint/unbound-method": "off",
      "@typescript-eslint/no-empty-function": "off",
    },
  },
  {
    files: ["scripts/**/*.mjs", "eslint.config.js"],
    extends: [js.configs.recommended],
    languageOptions: {
      globals: {
        Buffer: "readonly",
        clearTimeout: "readonly",
        console: "readonly",
        performance: "readonly",
        setTimeout: "readonly",
        URL: "readonly",
      },
    },
    rules: { eqeqeq: "error" },
  },
);
