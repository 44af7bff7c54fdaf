/** Starting the processes. */
import { SettingsError } from "./settings.ts";

/** Do it; where the settings are not complete say so and end. */
export async function orExplain(start: () => Promise<void>): Promise<void> {
  try {
    await start();
  } catch (error) {
    if (!(error instanceof SettingsError)) throw error;
    process.stderr.write(`The settings are not complete:\n${error.message}\n`);
    process.exit(2);
  }
}
