import { problemResponse } from "@/lib/http.ts";
import { Problem } from "@/lib/problems.ts";

/** Whatever nothing else answers is not there, also for a program. */
function nothing(request: Request): Response {
  const words = "There is no such path.";
  return problemResponse(new Problem(404, "Not found", words), request);
}

export {
  nothing as DELETE,
  nothing as GET,
  nothing as HEAD,
  nothing as OPTIONS,
  nothing as PATCH,
  nothing as POST,
  nothing as PUT,
};
