/** The page's own policy: only scripts that carry this answer's nonce run. */
import { randomBytes } from "node:crypto";
import { type NextRequest, NextResponse } from "next/server";
import { Problem } from "./lib/problems.ts";

export const config = { matcher: "/" };

export function proxy(request: NextRequest): Response {
  if (!["GET", "HEAD"].includes(request.method)) return wrongMethod();
  const nonce = randomBytes(16).toString("base64");
  const development = process.env.NODE_ENV === "development";
  const policy = [
    "default-src 'self'",
    // React needs eval to show errors while it develops.
    `script-src 'self' 'nonce-${nonce}' 'strict-dynamic'${development ? " 'unsafe-eval'" : ""}`,
    `style-src 'self' ${development ? "'unsafe-inline'" : `'nonce-${nonce}'`}`,
    "img-src 'self' blob: data:",
    "media-src 'self' blob:",
    "frame-ancestors 'self'",
  ].join("; ");
  const headers = new Headers(request.headers);
  headers.set("Content-Security-Policy", policy);
  const response = NextResponse.next({ request: { headers } });
  response.headers.set("Content-Security-Policy", policy);
  return response;
}

function wrongMethod(): Response {
  const problem = new Problem(405, "Method not allowed", "It takes GET, HEAD.");
  return Response.json(problem.asJson(), {
    status: 405,
    headers: { Allow: "GET, HEAD", "Content-Type": "application/problem+json" },
  });
}
