/** Runs once when the server starts: refuses incomplete settings, starts the worker if asked to. */
export async function register(): Promise<void> {
  if (process.env.NEXT_RUNTIME !== "nodejs") return;
  const { startWeb } = await import("./web.ts");
  await startWeb();
}
