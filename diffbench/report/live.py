"""The page of a run while it runs, on this machine alone: read-only, made anew when rows arrive."""

from __future__ import annotations

import contextlib
import hashlib
import re
import sys
import threading
from collections.abc import Callable, Iterable
from http import HTTPStatus
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

from diffbench.errors import DiffbenchError
from diffbench.registry.registry import load_registry
from diffbench.report import page
from diffbench.report.reading import ReportedRun
from diffbench.results import columns
from diffbench.store.artefacts import Store
from diffbench.wording import encoded, message_of

ADDRESS = "127.0.0.1"
HOST = re.compile(r"(localhost|127\.0\.0\.1)(:\d+)?")     # any other name led here by somebody's DNS
ENDED = "finished.json"
IDLE_SECONDS = 20                     # that a connection may be silent


class Page:
    """The page of a run as its folder is now. Made once for each state, by one request at a time."""

    def __init__(self, folder: Path, plugins: Iterable[str] = ()):
        self.folder, self.plugins = folder, tuple(plugins)
        self._made: tuple[str, bytes] = ("", b"")
        self._lock = threading.Lock()

    def state(self) -> str:
        """A text that changes with every row; it begins with 'ended' where the run is over."""
        rows = sorted((path.name, path.stat().st_mtime_ns) for path in (self.folder / columns.RECORDS).glob("*.json"))
        end = self.folder / ENDED
        has_ended = end.is_file() and all(end.stat().st_mtime_ns >= changed for _, changed in rows)
        return (f"{'ended' if has_ended else 'running'} {len(rows)} "
                f"{hashlib.sha256(repr(rows).encode()).hexdigest()[:16]}")

    def html(self) -> bytes:
        """The page, or one that says that there are no rows yet."""
        with self._lock:
            state = self.state()
            if self._made[0] != state:
                self._made = (state, self._render())
            return self._made[1]

    def _render(self) -> bytes:
        run = ReportedRun(self.folder)
        sections = load_registry(self.plugins).report_sections(run.rows, self.folder)
        return encoded(page.html(run, Store.default(), sections, is_live=True))


class _Server(ThreadingHTTPServer):
    """A thread for each connection; one that the reader has closed, or lets wait, ends without a word."""

    def handle_error(self, request: object, client_address: object) -> None:
        if not isinstance(sys.exc_info()[1], OSError):
            super().handle_error(request, client_address)


def server(folder: Path, port: int, plugins: Iterable[str] = ()) -> ThreadingHTTPServer:
    """A server that is not serving yet. Raises DiffbenchError where the folder is none of a run, or the port is taken.
    """
    if not (folder / "plan.json").is_file():
        raise DiffbenchError(f"{folder} is no folder of a run: there is no plan.json in it; name the folder that "
                             "`diffbench run` writes to")
    page_of_run = Page(folder, plugins)

    class Handler(BaseHTTPRequestHandler):
        """GET and HEAD of two paths."""

        timeout = IDLE_SECONDS

        def do_GET(self) -> None:
            self._answer(has_body=True)

        def do_HEAD(self) -> None:
            self._answer(has_body=False)

        def _answer(self, has_body: bool) -> None:
            kind, body = "text/plain", b""
            if not HOST.fullmatch(self.headers.get("Host", "")):
                status, body = HTTPStatus.FORBIDDEN, b"this page is served to this machine alone"
            elif self.path not in ("/", "/state"):
                status, body = HTTPStatus.NOT_FOUND, b"there is / and /state"
            else:
                try:
                    status, body = (HTTPStatus.OK, page_of_run.html() if self.path == "/"
                                    else page_of_run.state().encode())
                    kind = "text/html" if self.path == "/" else "text/plain"
                except Exception as error:  # noqa: BLE001  such as a folder that is moved: asked again, it may be there
                    status = HTTPStatus.SERVICE_UNAVAILABLE
                    body = encoded(f"{type(error).__name__}: {message_of(error)}")
            self.send_response(status)                    # what the body says may be no header: those are Latin-1
            for name, value in (("Content-Type", f"{kind}; charset=utf-8"), ("Content-Length", str(len(body))),
                                ("Cache-Control", "no-store"),
                                ("X-Content-Type-Options", "nosniff"), ("Referrer-Policy", "no-referrer"),
                                ("X-Frame-Options", "DENY")):
                self.send_header(name, value)
            self.end_headers()
            if has_body:
                with contextlib.suppress(ConnectionError):            # the reader went away
                    self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Nothing: the terminal is the reader's."""

    try:
        return _Server((ADDRESS, port), Handler)
    except OSError as error:
        raise DiffbenchError(f"--port {port}: {error.strerror or error}; leave it out for a free one") from None


def serve(folder: Path, port: int, plugins: Iterable[str], say: Callable[[str], None]) -> None:
    """Serves until Ctrl-C."""
    with server(folder, port, plugins) as served, contextlib.suppress(KeyboardInterrupt):
        say(f"http://{ADDRESS}:{served.server_address[1]}/ shows {folder} as its rows arrive; Ctrl-C ends it")
        served.serve_forever()
