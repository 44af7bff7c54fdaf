/** Outputs in a bucket of Amazon S3, Cloudflare R2, or anything that speaks S3's protocol. */
import { isIP } from "node:net";
import { Readable } from "node:stream";
import {
  DeleteObjectsCommand,
  GetObjectCommand,
  ListObjectsV2Command,
  S3Client,
  type S3ClientConfig,
} from "@aws-sdk/client-s3";
import { Upload } from "@aws-sdk/lib-storage";
import { getSignedUrl } from "@aws-sdk/s3-request-presigner";
import type { StoredFile } from "./prediction.ts";
import {
  below,
  type Chunks,
  Counted,
  PART_BYTES,
  probe,
  type Span,
  type Storage,
  StorageError,
  words,
} from "./storage.ts";

const REFUSED = new Set([
  ...["AccessDenied", "InvalidAccessKeyId", "SignatureDoesNotMatch", "CredentialsProviderError"],
  ...["ExpiredToken", "Forbidden", "403"],
]);
const MISSING = new Set(["NoSuchKey", "NoSuchBucket", "NotFound"]);

export class S3Storage implements Storage {
  readonly #client: S3Client;
  readonly #bucket: string;
  readonly #prefix: string;

  /** @param url `s3://bucket/prefix`; credentials, region and endpoint as in the SDK's variables. */
  constructor(url: string) {
    const [bucket = "", ...prefix] = url.slice("s3://".length).split("/");
    this.#bucket = bucket;
    this.#prefix = prefix.filter(Boolean).join("/");
    const endpoint = process.env.AWS_ENDPOINT || process.env.AWS_ENDPOINT_URL;
    const config: S3ClientConfig = {
      maxAttempts: 4,
      // Other services than Amazon's know no checksums of their own.
      requestChecksumCalculation: "WHEN_REQUIRED",
      responseChecksumValidation: "WHEN_REQUIRED",
      requestHandler: { connectionTimeout: 5_000, requestTimeout: 120_000 },
    };
    this.#client = new S3Client(endpoint ? { ...config, endpoint, forcePathStyle: true } : config);
  }

  async put(key: string, chunks: Chunks, type: string, signal?: AbortSignal): Promise<StoredFile> {
    const counted = new Counted(chunks, signal);
    const upload = new Upload({
      client: this.#client,
      params: {
        ...this.#object(key),
        Body: Readable.from(counted, { objectMode: false }),
        ContentType: type,
      },
      partSize: PART_BYTES,
      queueSize: 2,
    });
    const stop = () => void upload.abort();
    await counted.sent(() => upload.done(), stop, explained);
    return counted.stored(key, type);
  }

  async get(key: string, span?: Span): Promise<Chunks> {
    const range = span ? { Range: `bytes=${span.start}-${span.end - 1}` } : {};
    try {
      const found = await this.#client.send(
        new GetObjectCommand({ ...this.#object(key), ...range }),
      );
      return found.Body as Readable;
    } catch (error) {
      throw explained(error);
    }
  }

  async delete(prefix: string): Promise<void> {
    const where = { Bucket: this.#bucket, Prefix: below(this.#prefix, prefix) };
    try {
      for (let more = true; more; ) {
        const listed = await this.#client.send(new ListObjectsV2Command(where));
        const keys = (listed.Contents ?? []).map(({ Key }) => ({ Key }));
        more = listed.IsTruncated === true;
        if (keys.length === 0) return;
        const gone = await this.#client.send(
          new DeleteObjectsCommand({ Bucket: this.#bucket, Delete: { Objects: keys } }),
        );
        const failed = gone.Errors?.[0];
        if (failed) throw new StorageError(`${failed.Message} (${failed.Code})`);
      }
    } catch (error) {
      throw error instanceof StorageError ? error : explained(error);
    }
  }

  async sign(key: string, seconds: number): Promise<string | null> {
    try {
      const command = new GetObjectCommand(this.#object(key));
      const url = await getSignedUrl(this.#client, command, { expiresIn: seconds });
      return isPublic(url) ? url : null;
    } catch (error) {
      throw explained(error);
    }
  }

  check(): Promise<void> {
    return probe(this);
  }

  #object(key: string) {
    return { Bucket: this.#bucket, Key: below(this.#prefix, key) };
  }
}

/** Whether a URL of the store can be read from the internet. */
function isPublic(url: string): boolean {
  const { protocol, hostname } = new URL(url);
  const named = hostname.includes(".") && isIP(hostname) === 0;
  return protocol === "https:" && named && !hostname.endsWith(".internal");
}

function explained(error: unknown): StorageError {
  const code = error instanceof Error ? error.name : "";
  const status = statusOf(error);
  if (REFUSED.has(code) || status === 403) {
    return new StorageError(`the storage refuses these credentials (${code})`, { cause: error });
  }
  if (MISSING.has(code)) {
    const what = "there is no such object, or no such bucket";
    return new StorageError(`${what} (${code})`, { cause: error });
  }
  return new StorageError(words(error), { cause: error });
}

function statusOf(error: unknown): number | undefined {
  const known = error as { $metadata?: { httpStatusCode?: number } } | null;
  return known?.$metadata?.httpStatusCode;
}
