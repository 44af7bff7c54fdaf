/** Structured logs: one line of JSON each, on standard error. */
import pino from "pino";

export const log = pino(
  {
    base: null,
    messageKey: "event",
    timestamp: () => `,"timestamp":"${new Date().toISOString()}"`,
    formatters: { level: (level) => ({ level }) },
  },
  pino.destination(2),
);
