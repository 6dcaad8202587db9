"""The OpenAPI document is true: what it describes is answered as it says, whatever a client makes of it."""

from collections import Counter
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi import checks

from models.reference import echo_spec, linear_spec, noop_spec, words_spec
from models.spec import TensorSpec
from tests.api.shown_models import CLASSIFIER, EMBEDDER
from tests.house import House, house

MIXED = echo_spec(
    name="mixed",
    inputs=(
        TensorSpec(name="flag", datatype="BOOL", shape=(-1, 2)),
        TensorSpec(name="count", datatype="INT8", shape=(-1, -1)),
    ),
    outputs=(
        TensorSpec(name="flag", datatype="BOOL", shape=(-1, 2)),
        TensorSpec(name="count", datatype="INT8", shape=(-1, -1)),
    ),
)


@pytest.fixture(scope="module")
def served() -> Iterator[House]:
    with house(linear_spec(), CLASSIFIER, EMBEDDER, MIXED, noop_spec(), words_spec()) as running:
        yield running


CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
BOUNDED = hypothesis.settings(
    max_examples=40, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_whatever_is_sent_is_answered_as_described_and_never_by_a_fault_of_ours(served: House, mode) -> None:
    """Requests that fit the description, and requests that do not."""
    schema = schemathesis.openapi.from_url(f"http://{served.http}/openapi.json")
    statuses: Counter[int] = Counter()
    for found in schema.get_all_operations():
        operation = found.ok()
        if mode is schemathesis.GenerationMode.NEGATIVE and not operation.body:
            continue  # nothing can be wrong with it

        @BOUNDED
        @hypothesis.given(case=operation.as_strategy(generation_mode=mode))
        def probe(case) -> None:
            response = case.call()
            statuses[response.status_code] += 1
            timed_out = response.status_code == 504 and "timeout" in str(case.body)  # the limit was the client's own
            assert response.status_code < 500 or timed_out, response.text
            case.validate_response(response, checks=CHECKS)

        probe()
    assert statuses[200 if mode is schemathesis.GenerationMode.POSITIVE else 400] > 50, statuses
    for engine in served.engines.values():
        engine.ledger.check()


def test_every_model_is_there_with_its_signature_and_its_example(served: House) -> None:
    document = httpx.get(f"http://{served.http}/openapi.json").json()
    infer = document["paths"]["/v2/models/embedder/infer"]["post"]
    assert infer["x-model"]["inputs"] == [{"name": "text", "datatype": "BYTES", "shape": [-1, 1]}]
    assert infer["x-model"]["state"] == "READY"
    content = infer["requestBody"]["content"]["application/json"]
    answer = httpx.post(f"http://{served.http}/v2/models/embedder/infer", json=content["example"])
    assert answer.status_code == 200
    assert document["paths"]["/v2/models/classifier/infer"]["post"]["x-model"]["labelled"] == ["probabilities"]
