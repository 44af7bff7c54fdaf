import { useEffect, useState } from "react";

/** A stored output by its kind: files as what they are, anything else as text. */
export function Output({ output }: { output: unknown }) {
  const files = [output].flat();
  if (files.length === 0 || !files.every(isFile)) {
    return <Text text={typeof output === "string" ? output : JSON.stringify(output, null, 2)} />;
  }
  const shown = files.map((url) => <Media key={url} url={url} />);
  return shown.length > 1 ? <div className="several">{shown}</div> : shown;
}

export function Text({ text }: { text: string }) {
  // biome-ignore lint/a11y/noNoninteractiveTabindex: a long text is scrolled by keyboard, too
  return <pre tabIndex={0}>{text}</pre>;
}

function isFile(value: unknown): value is string {
  return typeof value === "string" && value.startsWith("/files/");
}

/** A picture, sound, video or link, by the stored content type. */
function Media({ url }: { url: string }) {
  const [type, setType] = useState<string>();
  const [lost, setLost] = useState(false);
  useEffect(() => {
    const left = new AbortController();
    fetch(url, { signal: left.signal })
      .then((reply) => {
        if (reply.ok) setType(reply.headers.get("content-type") ?? "");
        else setLost(true);
        return reply.body?.cancel();
      })
      .catch(() => setLost(!left.signal.aborted));
    return () => left.abort();
  }, [url]);
  if (lost) return <div className="note">The file cannot be read now.</div>;
  if (type === undefined) return <div />;
  // Not next/image, which would fetch it without the caller's cookie.
  if (/^image\/(?!svg)/.test(type)) {
    return (
      <a className="full" href={url} target="_blank" rel="noreferrer">
        <img src={url} alt="The result, in full size behind this link" />
      </a>
    );
  }
  // biome-ignore lint/a11y/useMediaCaption: nobody has written captions for what a model made
  if (type.startsWith("audio/")) return <audio src={url} controls />;
  // biome-ignore lint/a11y/useMediaCaption: nobody has written captions for what a model made
  if (type.startsWith("video/")) return <video src={url} controls />;
  return <a href={url}>Download ({type})</a>;
}
