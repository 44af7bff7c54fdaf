/** What may be wrong with a request, in the words of RFC 9457. */
import type { z } from "zod";

export interface FieldError {
  field: string;
  detail: string;
}

/** A request that cannot be served; `retryAfter` in seconds. */
export class Problem extends Error {
  override readonly name = "Problem";
  readonly status: number;
  readonly title: string;
  readonly errors: FieldError[] | undefined;
  readonly headers: Record<string, string>;

  constructor(
    status: number,
    title: string,
    detail: string,
    more: { errors?: FieldError[]; retryAfter?: number; headers?: Record<string, string> } = {},
  ) {
    super(detail);
    this.status = status;
    this.title = title;
    this.errors = more.errors;
    this.headers = { ...more.headers };
    if (more.retryAfter !== undefined) {
      this.headers["Retry-After"] = String(Math.max(1, Math.round(more.retryAfter)));
    }
  }

  /** By name: Next.js may load this file twice, for the server's start and for a route. */
  static [Symbol.hasInstance](value: unknown): boolean {
    return (value as Error | null)?.name === "Problem";
  }

  asJson() {
    const { title, status, errors } = this;
    return { type: "about:blank", title, status, detail: this.message, errors };
  }
}

export function invalid(field: string, detail: string): Problem {
  return invalidFields([{ field, detail }]);
}

export function invalidFields(given: FieldError[]): Problem {
  // a field may have any name in a request, also one that UTF-8 cannot say
  const errors = given.map(({ field, detail }) => ({
    field: field.toWellFormed(),
    detail: detail.toWellFormed(),
  }));
  const detail = errors.map((error) => `${error.field}: ${error.detail}`).join("; ");
  return new Problem(422, "Invalid request", detail, { errors });
}

/** A field-by-field account of what zod refused, below the field `prefix` if given. */
export function invalidInput(error: z.ZodError, ...prefix: string[]): Problem {
  return invalidFields(
    error.issues.flatMap((issue) => {
      const unknown = issue.code === "unrecognized_keys";
      const missing = issue.code === "invalid_type" && issue.message.endsWith("undefined");
      const detail = missing ? "Field required" : issue.message;
      const paths = unknown ? issue.keys.map((key) => [...issue.path, key]) : [issue.path];
      return paths.map((path) => ({
        field: [...prefix, ...path].map(String).join("."),
        detail: unknown ? "there is no such field" : detail,
      }));
    }),
  );
}

export function notFound(): Problem {
  return new Problem(404, "Not found", "There is no such thing of yours here.");
}
