"""Asks a server of two tenants everything that its OpenAPI document describes, with keys and without: no 5xx, and what
the requests leave behind in logs, audit, records and pages holds no key."""

import logging
from collections import Counter
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
import schemathesis

from serving.core.witness import Exchange
from serving.protocol.pb import SERVICE
from tests.gateway.grpc_calls import calling, infer, message_for, methods
from tests.gateway.tenancy import CREDENTIALS, HERS, LIVE_PAGES, OURS, USED_TEXTS, Tenancy, tenancy

BOUNDED = hypothesis.settings(
    max_examples=10, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)
FIRST, FURTHER = ("an operator", "another scope", "no key"), ("own tenant", "other tenant", "garbage")
NOT_OFFERED = 501  # by a model that gives any number of answers, or by this server


class Records:
    """A witness that keeps what it is told of requests, as logs, traces and records do."""

    def __init__(self) -> None:
        self.exchanges: list[Exchange] = []

    def answered(self, exchange: Exchange) -> None:
        self.exchanges.append(exchange)


RECORDS = Records()


@pytest.fixture(scope="module")
def served() -> Iterator[Tenancy]:
    with tenancy(witnesses=(RECORDS,)) as running:
        yield running


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
@pytest.mark.parametrize("who", [*FIRST, *(pytest.param(who, marks=pytest.mark.chaos) for who in FURTHER)])
def test_whoever_asks_whatever_nothing_fails_inside(served: Tenancy, who: str, mode) -> None:
    url = f"http://{served.served.http}/openapi.json"
    document = httpx.get(url, headers=CREDENTIALS["an operator"]).json()
    schema = schemathesis.openapi.from_dict(document)
    statuses: Counter[int] = Counter()
    with httpx.Client(base_url=f"http://{served.served.http}", headers=CREDENTIALS[who]):
        for found in schema.get_all_operations():
            operation = found.ok()
            if mode is schemathesis.GenerationMode.NEGATIVE and not operation.body:
                continue  # nothing can be wrong with it

            @BOUNDED
            @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
            def probe(case) -> None:
                answer = case.call(base_url=f"http://{served.served.http}", headers=CREDENTIALS[who])
                statuses[answer.status_code] += 1
                timed_out = answer.status_code == 504 and "timeout" in str(case.body)  # the limit was the client's own
                assert answer.status_code < 500 or answer.status_code == NOT_OFFERED or timed_out, answer.text

            probe()
    if who in ("no key", "garbage"):
        assert set(statuses) <= {200, 401}, statuses  # 200: health and pages, which are open
        assert statuses[401] > 50
    else:
        assert statuses[200 if mode is schemathesis.GenerationMode.POSITIVE else 400] > 5, statuses


def parts(text: str) -> set[str]:
    """Returns the parts of a credential that are secret, each long enough to be no accident."""
    if text.startswith("hw_"):
        secret = text.split("_")[2]
        return {secret[at : at + 12] for at in range(0, 31, 6)}
    return {text[at : at + 24] for at in range(len(text) // 2, len(text) - 24, 12)}  # claims and signature


def logged(caplog: pytest.LogCaptureFixture) -> list[str]:
    """Returns what was logged by all but the clients of this test."""
    return [
        caplog.handler.format(record) for record in caplog.records if not record.name.startswith(("httpx", "httpcore"))
    ]


def test_a_grep_for_the_credentials_used_finds_nothing(
    served: Tenancy, caplog: pytest.LogCaptureFixture, capfd: pytest.CaptureFixture[str]
) -> None:
    caplog.set_level(logging.DEBUG)
    paths = [f"/v2/models/{OURS}/infer", f"/v2/models/{HERS}", "/v2/logging", "/v2/nothing", "/v2", "/openapi.json"]
    paths += [f"/v2/repository/models/{OURS}/load", *LIVE_PAGES]
    written: list[str] = []
    with httpx.Client(base_url=f"http://{served.served.http}") as client, calling(served.served.grpc) as caller:
        for headers in CREDENTIALS.values():
            named = headers | {"x-request-id": "one"}
            for path in paths:
                for verb in ("GET", "POST"):
                    answer = client.request(verb, path, content=b"{}", headers=named)
                    written += [answer.text, str(answer.headers)]
            credential = list(headers.items())
            for path in methods():
                answered = caller.call(path, message_for(path, OURS), credential)
                written += [answered.text, str(answered.trailers), *map(str, answered.messages)]
            written += [caller.call(f"/{SERVICE}/ModelInfer", infer(OURS, b"x"), credential).text]
    written += [repr(served.callers), repr(served.callers.__dict__.keys()), repr(served.gate), *map(repr, served.audit)]
    written += [repr(exchange) for exchange in RECORDS.exchanges] + [*logged(caplog), *capfd.readouterr()]
    written += [repr(engine) for engine in served.served.engines.values()]
    written += [repr(recorder.counts()) for recorder in served.served.recorders.values()]
    assert len(RECORDS.exchanges) > 3
    assert len(served.audit) > 10
    everything = "\n".join(written)
    for text in USED_TEXTS:
        for part in parts(text):
            assert part not in everything, everything[everything.index(part) - 100 :][:200]
