"use client";

import { useCallback, useEffect, useState } from "react";
import {
  api,
  duration,
  isSettled,
  type ModelJson,
  type PredictionJson,
  reason,
  stateOf,
} from "./api.ts";
import { ModelForm } from "./model-form.tsx";
import { Result } from "./result.tsx";

interface Page {
  results: PredictionJson[];
  next_cursor: string | null;
}

/** The page: a form for each model, made from its input fields, and what the caller has made. */
export function Studio({ name }: { name: string }) {
  const [models, setModels] = useState<ModelJson[]>([]);
  const [model, setModel] = useState<ModelJson>();
  const [results, setResults] = useState<PredictionJson[]>([]);
  const [cursor, setCursor] = useState<string | null>(null);
  const [said, setSaid] = useState("");
  const [problem, setProblem] = useState("");
  const [trouble, setTrouble] = useState("");

  const older = useCallback(async (after: string | null, signal?: AbortSignal) => {
    const query = after ? `?cursor=${after}` : "";
    const page = await api<Page>(`/api/predictions${query}`, { signal: signal ?? null });
    setResults((known) => {
      const ids = new Set(known.map((prediction) => prediction.id));
      return [...known, ...page.results.filter((prediction) => !ids.has(prediction.id))];
    });
    setCursor(page.next_cursor);
  }, []);

  useEffect(() => {
    const left = new AbortController();
    async function load() {
      // The first answer brings the session: until then nothing else is sent.
      await older(null, left.signal);
      const { results: found } = await api<{ results: ModelJson[] }>("/api/models");
      const wanted = decodeURIComponent(location.hash.slice(1));
      setModels(found);
      setModel(found.find((one) => one.key === wanted) ?? found[0]);
    }
    load().catch((error) => {
      if (!left.signal.aborted) setProblem(`The page could not be loaded: ${reason(error)}`);
    });
    return () => left.abort();
  }, [older]);

  const change = useCallback((now: PredictionJson) => {
    setResults((known) => known.map((before) => (before.id === now.id ? now : before)));
    if (isSettled(now)) setSaid(`${now.model}: ${stateOf(now).words}`);
  }, []);

  const drop = useCallback((id: string) => {
    setResults((known) => known.filter((one) => one.id !== id));
  }, []);

  function pick(key: string) {
    setModel(models.find((one) => one.key === key));
    history.replaceState(null, "", `#${key}`);
  }

  function more() {
    setTrouble("");
    older(cursor).catch((error) => setTrouble(reason(error)));
  }

  return (
    <>
      <header className="top">
        <h1>{name}</h1>
        <label className="pick">
          <span>Model</span>
          <select
            id="model"
            aria-describedby="about"
            value={model?.key}
            onChange={(event) => pick(event.target.value)}
          >
            {models.map(({ key }) => (
              <option key={key}>{key}</option>
            ))}
          </select>
        </label>
      </header>
      <main>
        <section className="make" aria-labelledby="make-title">
          <h2 id="make-title">Make something</h2>
          <p id="about" className="quiet">
            {model && about(model)}
          </p>
          {model ? (
            <ModelForm
              key={model.key}
              model={model}
              onStarted={(started) => setResults((known) => [started, ...known])}
            />
          ) : (
            <form aria-busy="true" />
          )}
          <p className="problem" role="alert" hidden={!problem}>
            {problem}
          </p>
        </section>
        <section className="made" aria-labelledby="made-title">
          <h2 id="made-title" tabIndex={-1}>
            Your results
          </h2>
          <p id="status" className="hidden-but-read" aria-live="polite">
            {said}
          </p>
          <p id="empty" className="empty" hidden={results.length > 0}>
            What you make appears here, and stays.
          </p>
          <ol id="results">
            {results.map((prediction) => (
              <Result
                key={prediction.id}
                prediction={prediction}
                onChange={change}
                onDeleted={drop}
              />
            ))}
          </ol>
          <button
            id="older"
            className="plain"
            type="button"
            hidden={cursor === null}
            onClick={more}
          >
            Show older ones
          </button>
          <p className="problem" role="alert" hidden={!trouble}>
            {trouble}
          </p>
        </section>
      </main>
    </>
  );
}

function about(model: ModelJson): string {
  const usual = model.seconds === null ? "" : ` A run takes about ${duration(model.seconds)}.`;
  const cold =
    model.kind === "official"
      ? " It is always warm."
      : " After a pause it starts cold, which can take minutes.";
  return `${model.ref.split(":")[0]}.${usual}${cold}`;
}
