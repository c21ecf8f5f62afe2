"""`ready:` is printed when a request would be answered, not before."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, HTTPServer

import pytest

from cluster.progress import start_failure, wait_until_ready
from heliostat.errors import HeliostatError


@contextmanager
def endpoint(*statuses: int) -> Iterator[tuple[str, list[str]]]:
    """Answers with each status in turn, the last one for ever; yields its url and the paths asked for."""
    pending, asked = list(statuses), []

    class Handler(BaseHTTPRequestHandler):
        def do_GET(self) -> None:
            asked.append(self.path)
            status = pending.pop(0) if len(pending) > 1 else pending[0]
            body = f"answer {status}".encode()
            self.send_response(status)
            self.send_header("content-length", str(len(body)))
            self.end_headers()
            self.wfile.write(body)

        def log_message(self, format: str, *args: object) -> None:
            """Quiet."""

    with HTTPServer(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", asked
        finally:
            server.shutdown()
            thread.join()


def test_neither_an_unknown_route_nor_a_silent_pool_is_ready() -> None:
    with endpoint(404, 503, 503, 200) as (url, asked):
        assert wait_until_ready(url, threading.Event())
    assert asked == ["/ready"] * 4


def test_ctrl_c_ends_the_wait() -> None:
    stop = threading.Event()
    stop.set()
    with endpoint(503) as (url, _):
        assert not wait_until_ready(url, stop)


def test_an_endpoint_that_never_gets_ready_is_named_with_its_last_answer() -> None:
    with endpoint(503) as (url, _), pytest.raises(HeliostatError, match=r"not ready .* answer 503"):
        wait_until_ready(url, threading.Event(), timeout_s=0.0)


def test_nobody_listens() -> None:
    with endpoint(200) as (url, _):
        pass
    with pytest.raises(HeliostatError, match="not ready"):
        wait_until_ready(url, threading.Event(), timeout_s=0.0)


def test_a_failed_start_is_the_pools_line_not_the_traceback_it_wraps() -> None:
    message = (
        "Traceback (most recent call last):\n"
        "heliostat.errors.HeliostatError: calibration.json: no calibration file\n\n"
        "The above exception was the direct cause of the following exception:\n\n"
        "heliostat.errors.EngineStartError: pool decode.base: the engine did not start: no calibration file\n"
    )
    error = start_failure("the application failed", [message])
    assert str(error) == "pool decode.base: the engine did not start: no calibration file"
    assert "did not start: a line" in str(start_failure("many\na line", []))
