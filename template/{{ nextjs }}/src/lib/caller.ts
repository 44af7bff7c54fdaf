/** Who is asking: the one function to replace with your own sign-in. */
import "server-only";
import { createHmac, randomBytes } from "node:crypto";
import { cookies } from "next/headers";
import { app } from "./app.ts";
import { sameSecret } from "./secrets.ts";

/** Set this to false with your own sign-in; production refuses anonymous callers otherwise. */
export const ANONYMOUS = true;

const COOKIE = "session";
const TWO_WEEKS = 14 * 86_400;

/**
 * A stable id of whoever sends the request, at most 255 characters.
 *
 * Here: an anonymous session in a signed cookie. With your own sign-in return the user's id, and
 * throw `new Problem(401, …)` for nobody.
 */
export async function caller(): Promise<string> {
  const { settings } = await app();
  const jar = await cookies();
  const known = opened(jar.get(COOKIE)?.value ?? "", settings.sessionSecret);
  if (known !== null) return known;
  const fresh = randomBytes(16).toString("hex");
  jar.set(COOKIE, `${fresh}.${signature(fresh, settings.sessionSecret)}`, {
    httpOnly: true,
    maxAge: TWO_WEEKS,
    path: "/",
    sameSite: "lax",
    secure: !settings.development,
  });
  return fresh;
}

function opened(cookie: string, secret: string): string | null {
  const id = cookie.split(".", 1)[0] ?? "";
  return sameSecret(cookie, `${id}.${signature(id, secret)}`) ? id : null;
}

function signature(id: string, secret: string): string {
  return createHmac("sha256", secret).update(`session.${id}`).digest("base64url");
}
