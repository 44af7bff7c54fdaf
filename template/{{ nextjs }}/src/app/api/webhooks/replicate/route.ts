import { app } from "@/lib/app.ts";
import { readBody, route } from "@/lib/http.ts";
import { workSoon } from "@/lib/vercel.ts";

const MAX_BYTES = 8 * 2 ** 20;

export const maxDuration = 60;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route(
  {
    POST: async (request) => {
      const { service } = await app();
      await service.receive(await readBody(request, MAX_BYTES), request.headers);
      workSoon();
      return Response.json({});
    },
  },
  { maxBytes: () => MAX_BYTES, signed: true },
);
