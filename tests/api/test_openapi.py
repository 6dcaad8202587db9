"""The OpenAPI document is correct: all requests that fit it are answered as it describes."""

from collections import Counter
from collections.abc import Iterator

import httpx
import hypothesis
import pytest
import schemathesis
from schemathesis.specs.openapi import checks

from models.reference import echo_spec, linear_spec, noop_spec, words_spec
from models.spec import TensorSpec
from serving.api.shared_memory.cuda_driver import CudaDriver
from serving.api.shared_memory.regions import Regions
from serving.testing.cuda_driver import build_driver
from tests.api.shown_models import CLASSIFIER, EMBEDDER
from tests.house import House, house
from tests.offers import Control, Switches

MIXED = echo_spec(
    name="mixed",
    inputs=(
        TensorSpec(name="flag", datatype="BOOL", shape=(-1, 2)),
        TensorSpec(name="required", datatype="INT8", shape=(-1, -1)),
    ),
    outputs=(
        TensorSpec(name="flag", datatype="BOOL", shape=(-1, 2)),
        TensorSpec(name="required", datatype="INT8", shape=(-1, -1)),
    ),
)


@pytest.fixture(scope="module")
def served(tmp_path_factory: pytest.TempPathFactory) -> Iterator[House]:
    specs = (linear_spec(), CLASSIFIER, EMBEDDER, MIXED, noop_spec(), words_spec())
    folder = tmp_path_factory.mktemp("regions")
    regions = Regions(folder, CudaDriver(str(build_driver(folder))))
    with house(*specs, regions=regions, control=Control(), switches=Switches()) as running:
        yield running


CHECKS = [
    checks.status_code_conformance,
    checks.content_type_conformance,
    checks.response_schema_conformance,
]
BOUNDED = hypothesis.settings(
    max_examples=20, deadline=None, derandomize=True, database=None, suppress_health_check=list(hypothesis.HealthCheck)
)


@pytest.mark.parametrize("mode", list(schemathesis.GenerationMode))
def test_every_request_is_answered_as_described_and_never_with_an_internal_error(served: House, mode) -> None:
    """Sends requests that fit the description, and requests that do not."""
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
            # A model that gives any number of answers says so, and how it is asked.
            asks_otherwise = response.status_code == 501 and "decoupled" in response.text
            assert response.status_code < 500 or timed_out or asks_otherwise, response.text
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


def test_only_what_the_server_offers_is_described(served: House) -> None:
    offered = {
        "/v2/repository/models/{model}/load",
        "/v2/systemsharedmemory/status",
        "/v2/cudasharedmemory/region/{region}/register",
        "/v2/logging",
        "/v2/trace/setting",
        "/v2/models/embedder/trace/setting",
    }
    assert offered <= set(httpx.get(f"http://{served.http}/openapi.json").json()["paths"])
    with house(linear_spec()) as without:
        paths = httpx.get(f"http://{without.http}/openapi.json").json()["paths"]
    assert "/v2/models/linear/trace/setting" not in paths
    assert [path for path in paths if not path.startswith(("/v2/models/", "/v2/health/"))] == [
        "/v2",
        "/v2/repository/index",
    ]
