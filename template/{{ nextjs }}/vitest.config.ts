import { defineConfig } from "vitest/config";

export default defineConfig({
  resolve: { tsconfigPaths: true, conditions: ["react-server", "node"] },
  ssr: { resolve: { conditions: ["react-server", "node"], externalConditions: ["react-server"] } },
  test: { include: ["tests/**/*.test.ts"], testTimeout: 20_000 },
});
