"""The web process: any WSGI server with threads can run ``app.wsgi:application``."""

from __future__ import annotations

import multiprocessing
import os
import signal
import sys
import threading
from collections.abc import Iterable
from tempfile import SpooledTemporaryFile
from typing import Any

from django.core.wsgi import get_wsgi_application
from granian.utils.proxies import wrap_wsgi_with_proxy_headers

from inference.contract import body_limit
from inference.logs import configure_logs

from .main import service

IN_MEMORY = 2**20
# Of a request, by PEP 3333, besides HTTP_… and wsgi.…; and where it came from.
NAMED = {"REQUEST_METHOD", "SCRIPT_NAME", "PATH_INFO", "QUERY_STRING", "CONTENT_TYPE"}
NAMED |= {"CONTENT_LENGTH", "SERVER_NAME", "SERVER_PORT", "SERVER_PROTOCOL", "REMOTE_ADDR"}

# Ctrl+C reaches this child of granian's, too: that and its parent's SIGTERM at one time hang it.
if sys.platform != "win32" and multiprocessing.parent_process():
    signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})

_service = service()
configure_logs(json=not _service.settings.development)
_django = get_wsgi_application()


def measured(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Give a body that comes in chunks its length, which WSGI wants; read no more than allowed."""
    if environ.get("CONTENT_LENGTH") or environ.get("HTTP_TRANSFER_ENCODING") is None:
        return _django(environ, start_response)
    limit = body_limit(environ.get("PATH_INFO", ""), _service.settings)
    size = 0
    with SpooledTemporaryFile(IN_MEMORY) as body:
        while size <= limit and (chunk := environ["wsgi.input"].read(2**16)):
            size += len(chunk)
            body.write(chunk)
        body.seek(0)
        environ |= {"CONTENT_LENGTH": str(size), "wsgi.input": body}
        return _django(environ, start_response)


_proxied = wrap_wsgi_with_proxy_headers(measured, _service.settings.forwarded_allow_ips)


def of_request(name: str) -> bool:
    header = name.startswith("HTTP_") and name not in os.environ
    return header or name in NAMED or name.startswith("wsgi.")


def application(environ: dict[str, Any], start_response: Any) -> Iterable[bytes]:
    """Pass on what is of the request: granian adds the process's environment, and so the token."""
    given = {name: value for name, value in environ.items() if of_request(name)}
    answer: Iterable[bytes] = _proxied(given, start_response)
    return answer


if _service.settings.worker_in_web:
    from inference.worker import run_worker

    threading.Thread(
        target=run_worker, args=(_service, threading.Event()), name="worker", daemon=True
    ).start()
