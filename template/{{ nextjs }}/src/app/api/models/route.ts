import { app } from "@/lib/app.ts";
import { route } from "@/lib/http.ts";

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route({
  GET: async () => Response.json({ results: (await app()).service.models() }),
});
