"""A stand-in for Anthropic's Messages API: an assistant that makes the tool calls it was given."""

from __future__ import annotations

import json
import threading
from collections.abc import Sequence
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import TracebackType
from typing import Any, Self

Call = tuple[str, dict[str, Any]]
"""A tool's name and its input."""
AT_ONCE = 20  # calls in one message: a turn of the client takes longer than most of them


class Assistant:
    """Serves on loopback; makes a few calls a turn and keeps what the client answers to each.

    `results` maps a call's index to the tool_result block that came back for it; `system` is the
    text of the newest system prompt and of the user's messages, where CLAUDE.md arrives.
    """

    def __init__(self, calls: Sequence[Call]) -> None:
        self.calls = calls
        self.results: dict[int, dict[str, Any]] = {}
        self.system = ""
        assistant = self

        class Handler(BaseHTTPRequestHandler):
            protocol_version = "HTTP/1.1"

            def do_HEAD(self) -> None:
                self._send(200, "text/plain", b"")

            def do_GET(self) -> None:
                self._send(404, "application/json", b"{}")

            def do_POST(self) -> None:
                request = json.loads(self.rfile.read(int(self.headers["content-length"])))
                if "/count_tokens" in self.path or not self.path.startswith("/v1/messages"):
                    self._send(200, "application/json", b'{"input_tokens": 1}')
                    return
                blocks, reason = assistant.answer(request)
                message = {
                    "id": "msg_1",
                    "type": "message",
                    "role": "assistant",
                    "model": request["model"],
                    "content": blocks,
                    "stop_reason": reason,
                    "stop_sequence": None,
                    "usage": {"input_tokens": 1, "output_tokens": 1},
                }
                if request.get("stream"):
                    self._send(200, "text/event-stream", streamed(message))
                else:
                    self._send(200, "application/json", json.dumps(message).encode())

            def _send(self, status: int, kind: str, body: bytes) -> None:
                self.send_response(status)
                self.send_header("content-type", kind)
                self.send_header("content-length", str(len(body)))
                self.end_headers()
                if self.command != "HEAD":
                    self.wfile.write(body)

            def log_message(self, *_: object) -> None:
                pass

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self.url = f"http://127.0.0.1:{self._server.server_port}"

    def answer(self, request: dict[str, Any]) -> tuple[list[dict[str, Any]], str]:
        """The next calls that have no result yet, or the end of the conversation."""
        for message in request["messages"]:
            blocks = message["content"] if isinstance(message["content"], list) else []
            for block in blocks:
                if block["type"] == "tool_result":
                    self.results[int(block["tool_use_id"].removeprefix("toolu_"))] = block
        done = len(self.results)
        if not request.get("tools"):  # titles and the like
            return [{"type": "text", "text": "done"}], "end_turn"
        self.system = json.dumps([request.get("system"), request["messages"]])
        if done < len(self.calls):
            calls = [
                {"type": "tool_use", "id": f"toolu_{number:05}", "name": name, "input": given}
                for number, (name, given) in enumerate(self.calls[done : done + AT_ONCE], done)
            ]
            return calls, "tool_use"
        return [{"type": "text", "text": "done"}], "end_turn"

    def __enter__(self) -> Self:
        threading.Thread(target=self._server.serve_forever, daemon=True).start()
        return self

    def __exit__(
        self,
        kind: type[BaseException] | None,
        error: BaseException | None,
        trace: TracebackType | None,
    ) -> None:
        self._server.shutdown()
        self._server.server_close()


def streamed(message: dict[str, Any]) -> bytes:
    """The message as server-sent events, each of its blocks in one piece."""
    events: list[dict[str, Any]] = [
        {"type": "message_start", "message": {**message, "content": [], "stop_reason": None}}
    ]
    for index, block in enumerate(message["content"]):
        if block["type"] == "tool_use":
            start = {**block, "input": {}}
            delta = {"type": "input_json_delta", "partial_json": json.dumps(block["input"])}
        else:
            start = {**block, "text": ""}
            delta = {"type": "text_delta", "text": block["text"]}
        events += [
            {"type": "content_block_start", "index": index, "content_block": start},
            {"type": "content_block_delta", "index": index, "delta": delta},
            {"type": "content_block_stop", "index": index},
        ]
    end = {"stop_reason": message["stop_reason"], "stop_sequence": None}
    events += [
        {"type": "message_delta", "delta": end, "usage": {"output_tokens": 1}},
        {"type": "message_stop"},
    ]
    return "".join(f"event: {e['type']}\ndata: {json.dumps(e)}\n\n" for e in events).encode()
