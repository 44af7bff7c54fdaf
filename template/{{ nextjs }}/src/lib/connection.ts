/**
 * What Next.js keeps from its routes: who is connected, and how long an answer that is sent as it
 * comes will be. Both pass through headers of our own, which nobody else can set.
 */
import { subscribe } from "node:diagnostics_channel";
import type { IncomingMessage, ServerResponse } from "node:http";

export const CONNECTED = "x-connected-address";
export const LENGTH = "x-answer-length";

interface Started {
  request: IncomingMessage;
  response: ServerResponse;
}

/** Prepare every request of this process. */
export function watchConnections(): void {
  subscribe("http.server.request.start", (message) => {
    const { request, response } = message as Started;
    request.headers[CONNECTED] = request.socket.remoteAddress ?? "unknown";
    const writeHead = response.writeHead;
    response.writeHead = function (this: ServerResponse, ...given: unknown[]) {
      const length = this.getHeader(LENGTH);
      if (length !== undefined && !this.headersSent) {
        this.removeHeader(LENGTH);
        this.setHeader("Content-Length", length);
      }
      return Reflect.apply(writeHead, this, given) as ServerResponse;
    };
  });
}
