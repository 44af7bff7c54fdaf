import { useCallback, useEffect, useState } from "react";
import {
  api,
  duration,
  isOver,
  isSettled,
  type PredictionJson,
  Refused,
  reason,
  stateOf,
} from "./api.ts";
import { Output, Text } from "./output.tsx";

/** One prediction: its state, followed until it is over, and what it made. */
export function Result(props: {
  prediction: PredictionJson;
  onChange: (prediction: PredictionJson) => void;
  onDeleted: (id: string) => void;
}) {
  const { prediction, onChange, onDeleted } = props;
  const { id } = prediction;
  const settled = isSettled(prediction);
  const [problem, setProblem] = useState("");
  const attempt = useCallback(
    async (act: () => Promise<void>) => {
      try {
        await act();
        setProblem("");
      } catch (error) {
        if (error instanceof Refused && error.status === 404)
          onDeleted(id); // in another tab
        else setProblem(reason(error));
      }
    },
    [id, onDeleted],
  );
  const look = useCallback(
    () => attempt(async () => onChange(await api(`/api/predictions/${id}`))),
    [attempt, id, onChange],
  );
  const text = useFollowed(id, settled, onChange, look);
  const time = useTime(settled);

  async function cancel() {
    onChange(await api(`/api/predictions/${id}/cancel`, { method: "POST" }));
  }

  async function remove() {
    await api(`/api/predictions/${id}`, { method: "DELETE" });
    // The button that has the focus goes away with its card.
    document.getElementById("made-title")?.focus();
    onDeleted(id);
  }

  const { words, mood } = stateOf(prediction);
  const ran = prediction.metrics.predict_seconds;
  const elapsed = Math.max(0, (time - Date.parse(prediction.created_at)) / 1000);
  const seconds = settled ? ran : elapsed;
  return (
    <li className="card">
      <div className="output">
        <Shown prediction={prediction} text={text} />
      </div>
      <div className="meta">
        <p className={`state ${mood}`}>
          {words}
          {seconds !== null && ` · ${duration(seconds)}`}
        </p>
        <p className="what">
          {prediction.model} · {when(prediction)}
        </p>
        <p className="actions">
          {!isOver(prediction) && (
            <button className="plain cancel" type="button" onClick={() => attempt(cancel)}>
              Cancel
            </button>
          )}
          {settled && (
            <button className="plain delete" type="button" onClick={() => attempt(remove)}>
              Delete
            </button>
          )}
        </p>
        <p className="problem" role="alert" hidden={!problem}>
          {problem}
        </p>
      </div>
    </li>
  );
}

const when = (prediction: PredictionJson) =>
  new Date(prediction.created_at).toLocaleString([], { dateStyle: "medium", timeStyle: "short" });

function Shown({ prediction, text }: { prediction: PredictionJson; text: string }) {
  if (prediction.output !== null) return <Output output={prediction.output} />;
  if (text) return <Text text={text} />;
  if (isSettled(prediction)) {
    return <div className="note">{prediction.error ?? stateOf(prediction).words}</div>;
  }
  return (
    <div className="note">
      <span className="spinner" />
      {prediction.status === "starting" &&
        "The model is being loaded. After a pause this can take minutes."}
    </div>
  );
}

// A browser opens six connections to a host, in all of its tabs together.
const STREAMS = 2;
let streams = 0;

/** Follow a prediction until it is over; gives the text that it has made so far. */
function useFollowed(
  id: string,
  settled: boolean,
  onChange: (prediction: PredictionJson) => void,
  look: () => Promise<void>,
): string {
  const [text, setText] = useState("");
  useEffect(() => {
    if (settled) return;
    const left = new AbortController();
    const add = (piece: string) => setText((before) => before + piece);
    async function follow() {
      if (streams < STREAMS) await streamed(id, onChange, add, left.signal);
      for (;;) {
        await new Promise((resolve) => setTimeout(resolve, 2000));
        if (left.signal.aborted) return;
        await look();
      }
    }
    setText("");
    follow();
    return () => left.abort();
  }, [id, settled, onChange, look]);
  return text;
}

/** Show it by server-sent events, until they end or break. */
async function streamed(
  id: string,
  onChange: (prediction: PredictionJson) => void,
  onText: (piece: string) => void,
  left: AbortSignal,
): Promise<void> {
  streams += 1;
  const source = new EventSource(`/api/predictions/${id}/events`);
  await new Promise((resolve) => {
    source.addEventListener("prediction", (event) => onChange(JSON.parse(event.data)));
    source.addEventListener("output", (event) => onText(JSON.parse(event.data)));
    source.addEventListener("done", (event) => {
      onChange(JSON.parse(event.data));
      resolve(event);
    });
    source.addEventListener("error", resolve);
    left.addEventListener("abort", resolve);
  });
  source.close();
  streams -= 1;
}

/** The time in milliseconds, new every second until it is settled. */
function useTime(settled: boolean): number {
  const [time, setTime] = useState(Date.now);
  useEffect(() => {
    if (settled) return;
    const clock = setInterval(() => setTime(Date.now()), 1000);
    return () => clearInterval(clock);
  }, [settled]);
  return time;
}
