/** `npm run migrate`: brings the database to the present schema. */
import { migrate } from "./lib/migrations.ts";
import { loadSettings } from "./lib/settings.ts";
import { orExplain } from "./lib/start.ts";

await orExplain(() => migrate(loadSettings(process.env, false).databaseUrl));
