import type { NextConfig } from "next";

const config: NextConfig = {
  poweredByHeader: false,
  // Stored files keep their length and ranges; the proxy in front may compress the rest.
  compress: false,
  // A path with a slash too many is answered 404 by the routes, not led to another.
  skipTrailingSlashRedirect: true,
  // Brings a binary of its own, or is large: left as it is, a build is much faster.
  serverExternalPackages: [
    "@aws-sdk/client-s3",
    "@aws-sdk/lib-storage",
    "@aws-sdk/s3-request-presigner",
    "@vercel/blob",
    "better-sqlite3",
    "pg",
    "pino",
  ],
  // The page uses no next/image: then nobody else may have pictures resized either.
  images: { unoptimized: true },
  headers: async () => [
    {
      source: "/:path*",
      headers: [
        { key: "X-Content-Type-Options", value: "nosniff" },
        { key: "Referrer-Policy", value: "same-origin" },
      ],
    },
  ],
};

export default config;
