"""Tests the watch for the cloud's notice, against a local server that answers in the form that AWS documents."""

import subprocess
import threading
from collections.abc import Iterator
from datetime import UTC, datetime, timedelta
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import pytest

from serving.operate import preemption
from serving.operate.preemption import notice_s, watch

NOW = datetime(2030, 1, 1, 12, 0, tzinfo=UTC)


class Metadata(ThreadingHTTPServer):
    """Answers as the instance metadata service: a token first; from the second request on, the notice if there is
    one."""

    asked = 0

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.server_port}"


class Handler(BaseHTTPRequestHandler):
    server: Metadata

    def do_PUT(self) -> None:
        self._answer(200, b"a token")

    def do_GET(self) -> None:
        assert self.headers["X-aws-ec2-metadata-token"] == "a token"
        self.server.asked += 1
        if self.server.asked == 1:
            self._answer(404, b"")
        else:
            self._answer(200, b'{"action": "terminate", "time": "2030-01-01T12:01:30Z"}')

    def _answer(self, status: int, body: bytes) -> None:
        self.send_response(status)
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: object) -> None:
        return


@pytest.fixture
def metadata() -> Iterator[Metadata]:
    with Metadata(("127.0.0.1", 0), Handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield server
        server.shutdown()
        thread.join()


class NeverStopped:
    def wait(self, timeout_s: float | None = None) -> bool:
        return False


def test_no_notice_is_none_and_a_notice_is_the_time_left(metadata: Metadata) -> None:
    assert notice_s(metadata.url, NOW) is None
    assert notice_s(metadata.url, NOW) == 90.0
    assert notice_s(metadata.url, NOW + timedelta(hours=1)) == 0.0


def test_the_node_is_drained_once_when_the_notice_comes(metadata: Metadata) -> None:
    said: list[str] = []
    drained: list[float] = []
    watch(said.append, NeverStopped(), url=metadata.url, drain=drained.append)  # type: ignore[arg-type]
    assert len(drained) == 1
    assert len(said) == 1


def test_a_drain_that_failed_is_tried_again(metadata: Metadata) -> None:
    said: list[str] = []
    tries: list[float] = []

    def drain(left_s: float) -> None:
        tries.append(left_s)
        if len(tries) < 4:
            raise (subprocess.CalledProcessError(1, "ray"), ConnectionError("no Ray"), FileNotFoundError("ray"))[
                len(tries) - 1
            ]

    watch(said.append, NeverStopped(), url=metadata.url, drain=drain)  # type: ignore[arg-type]
    assert len(tries) == 4
    assert sum("draining failed" in text for text in said) == 3


def test_an_absent_metadata_service_is_reported_once_and_polled_on() -> None:
    said: list[str] = []

    class Thrice:
        asked = 0

        def wait(self, timeout_s: float | None = None) -> bool:
            assert timeout_s == preemption.POLL_S
            self.asked += 1
            return self.asked > 3

    watch(said.append, Thrice(), url="http://127.0.0.1:9")  # type: ignore[arg-type]
    assert len(said) == 1
