"""The server of the page: from this machine to itself only, under a path that nobody can guess.

A page of another origin cannot read or steer it: besides the path, every request must name this machine as its host,
which a rebound DNS name does not, and where it names an origin, as websockets do, it must be this server's.
"""

import logging
import os
import secrets
import signal
import sys
import threading
import webbrowser
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

from bokeh.application import Application
from bokeh.application.handlers.function import FunctionHandler
from bokeh.document import Document
from bokeh.server.server import BaseServer
from bokeh.server.tornado import BokehTornado
from bokeh.server.util import bind_sockets
from bokeh.settings import settings
from tornado.httpserver import HTTPServer
from tornado.httputil import HTTPServerRequest
from tornado.ioloop import IOLoop
from tornado.web import ErrorHandler, RequestHandler

from common.plane import live_page
from common.plane.live import Script
from common.run.cli import BadInput

ADDRESS = "127.0.0.1"
REPORT = Path(__file__).resolve().parents[2] / "REPORT.md"
LARGEST_MESSAGE = 4 << 20  # bytes from the page; a drawing has far less
LEFT_AFTER_MS = 10_000  # a page that was never connected, or closed, is dropped after this


class _Report(RequestHandler):
    """The report, as text."""

    def get(self) -> None:
        self.set_header("Content-Type", "text/plain; charset=utf-8")
        self.set_header("X-Content-Type-Options", "nosniff")
        self.finish(REPORT.read_bytes() if REPORT.is_file() else b"REPORT.md is not here")


class _Guarded(BokehTornado):
    """Bokeh's application, which answers its own page alone.

    Tornado lets a websocket in whose origin equals its host, and both are foreign where a DNS name was rebound.
    """

    def __init__(self, app: Callable[[Document], None], token: str, port: int) -> None:
        self.hosts = {f"{ADDRESS}:{port}", f"localhost:{port}"}
        self.start_path = f"/{token}/"
        super().__init__(
            {"/": Application(FunctionHandler(app))},
            prefix=token,
            extra_websocket_origins=sorted(self.hosts),
            extra_patterns=[("/report", _Report)],
            use_index=False,
            redirect_root=False,
            check_unused_sessions_milliseconds=1_000,
            unused_session_lifetime_milliseconds=LEFT_AFTER_MS,
            websocket_max_message_size_bytes=LARGEST_MESSAGE,
        )

    def find_handler(self, request: HTTPServerRequest, **others: Any) -> Any:
        """Refuse what does not come from the page itself before any handler sees it."""
        headers = request.headers
        origins = headers.get_list("Origin") + headers.get_list("Sec-Websocket-Origin")
        allowed = {f"http://{host}" for host in self.hosts}
        if headers.get_list("Host") not in [[host] for host in self.hosts] or not set(origins) <= allowed:
            return self._refusal(request, 403)
        if not request.path.startswith(self.start_path):
            return self._refusal(request, 404)
        return super().find_handler(request, **others)

    def _refusal(self, request: HTTPServerRequest, status: int) -> Any:
        return self.get_handler_delegate(request, ErrorHandler, {"status_code": status})


def start(config: Any, script: Script, port: int = 0) -> tuple[BaseServer, str]:
    """A server that listens, on the current event loop, and the address of its page.

    Args:
        port: 0 takes one that is free.
    """
    settings.resources = "server"  # no request leaves the machine
    for name in ("bokeh", "tornado"):
        logging.getLogger(name).setLevel(logging.ERROR)
    sockets, port = bind_sockets(ADDRESS, port)
    token = secrets.token_urlsafe(32)
    application = _Guarded(live_page.page_of(config, script), token, port)
    http = HTTPServer(application)
    http.add_sockets(sockets)
    server = BaseServer(IOLoop.current(), application, http)
    server.start()
    return server, f"http://{ADDRESS}:{port}/{token}/"


def serve(config: Any, functions: Sequence[Callable[..., Any]]) -> None:
    """Serve the page until Ctrl-C or SIGTERM, and end the process with 130 or 143 then.

    Args:
        functions: those of `Script`, in its order.

    Raises:
        BadInput: the settings are those of a comparison.
    """
    if config.is_comparison:
        raise BadInput("--live: the page trains one GAN; leave out `all` for --target and --loss")
    server, address = start(config, Script(*functions))
    loop, stopped = IOLoop.current(), []

    def stop(number: int, frame: Any) -> None:
        stopped.append(number)
        loop.add_callback_from_signal(loop.stop)

    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, stop)
    print(f"the page is at {address}\nCtrl-C ends it", flush=True)
    if not config.no_browser:
        threading.Thread(target=webbrowser.open, args=(address,), daemon=True).start()  # a text browser waits
    loop.start()
    for session in server.get_sessions():
        context: Any = session.document.session_context
        for drop in session.document.session_destroyed_callbacks:
            drop(context)
    sys.stdout.flush()
    os._exit(128 + stopped[0] if stopped else 0)  # the interpreter's own end takes seconds on a busy machine
