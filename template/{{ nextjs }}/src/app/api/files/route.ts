import { app } from "@/lib/app.ts";
import { caller } from "@/lib/caller.ts";
import { FORM_BYTES, formFile } from "@/lib/form.ts";
import { addressOf, route } from "@/lib/http.ts";

export const maxDuration = 300;

export const { GET, HEAD, OPTIONS, POST, PUT, PATCH, DELETE } = route(
  {
    POST: async (request) => {
      const { service, settings } = await app();
      const { type, chunks } = await formFile(request, settings.maxUploadBytes);
      const owner = await caller();
      const url = await service.uploads.save(owner, await addressOf(request), type, chunks);
      return Response.json({ url }, { status: 201 });
    },
  },
  { maxBytes: async () => (await app()).settings.maxUploadBytes + FORM_BYTES },
);
