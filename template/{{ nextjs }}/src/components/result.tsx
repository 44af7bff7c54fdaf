import { useEffect, useState } from "react";
import { api, duration, isOver, isSettled, type PredictionJson, stateOf } from "./api.ts";
import { Output, Text } from "./output.tsx";

/** One prediction: its state, followed until it is over, and what it made. */
export function Result(props: {
  prediction: PredictionJson;
  onChange: (prediction: PredictionJson) => void;
  onDeleted: (id: string) => void;
  onProblem: (text: string) => void;
}) {
  const { prediction, onChange, onDeleted, onProblem } = props;
  const { id } = prediction;
  const settled = isSettled(prediction);
  const text = useFollowed(id, settled, onChange);
  const time = useTime(settled);

  async function cancel() {
    onChange(await api(`/api/predictions/${id}/cancel`, { method: "POST" }));
  }

  async function remove() {
    await api(`/api/predictions/${id}`, { method: "DELETE" });
    onDeleted(id);
  }

  const attempt = (act: () => Promise<void>) => () =>
    act().catch((error) => onProblem(error.message));
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
            <button className="plain cancel" type="button" onClick={attempt(cancel)}>
              Cancel
            </button>
          )}
          {settled && (
            <button className="plain delete" type="button" onClick={attempt(remove)}>
              Delete
            </button>
          )}
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

/** Follow a prediction by server-sent events; where they break, by requests that wait. */
function useFollowed(
  id: string,
  settled: boolean,
  onChange: (prediction: PredictionJson) => void,
): string {
  const [text, setText] = useState("");
  useEffect(() => {
    if (settled) return;
    let open = true;
    const source = new EventSource(`/api/predictions/${id}/events`);
    const update = (event: MessageEvent<string>) => onChange(JSON.parse(event.data));
    setText("");
    source.addEventListener("prediction", update);
    source.addEventListener("output", (event) => {
      setText((before) => before + JSON.parse(event.data));
    });
    source.addEventListener("done", (event) => {
      source.close();
      update(event);
    });
    source.onerror = async () => {
      source.close();
      while (open) {
        try {
          onChange(await api(`/api/predictions/${id}?wait=20`));
        } catch {
          await new Promise((resolve) => setTimeout(resolve, 5000));
        }
      }
    };
    return () => {
      open = false;
      source.close();
    };
  }, [id, settled, onChange]);
  return text;
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
