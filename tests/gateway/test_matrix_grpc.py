"""Tests every method of gRPC with every kind of credential, through both doors. The methods are those of the service
descriptors; what each answers follows from a rule, and a method without a rule fails."""

from collections.abc import Iterator
from typing import Any

import pytest

from serving.api.shared_memory.cuda_driver import CudaDriver
from serving.api.shared_memory.regions import Regions
from serving.protocol.pb import HEALTH, SERVICE, decode, encode
from serving.testing.cuda_driver import build_driver
from tests.gateway.grpc_calls import Caller, calling, infer, message_for, methods
from tests.gateway.tenancy import (
    ABSENT,
    CREDENTIALS,
    HERS,
    OURS,
    SEEN,
    TALE,
    Expect,
    Tenancy,
    everybody,
    of_a_model,
    operators,
    predicting,
    tenancy,
    with_a_key,
)

RULES: dict[str, Expect] = {
    "ServerLive": everybody,
    "ServerReady": everybody,
    "ServerMetadata": with_a_key,
    "ModelReady": with_a_key,  # of a model that is not there it says that it is not ready
    "ModelMetadata": of_a_model(with_a_key),
    "ModelConfig": of_a_model(with_a_key),
    "ModelStatistics": of_a_model(with_a_key),
    "ModelInfer": predicting,
    "ModelStreamInfer": predicting,
    "RepositoryIndex": with_a_key,
    "RepositoryModelLoad": of_a_model(operators),
    "RepositoryModelUnload": of_a_model(operators),
    "SystemSharedMemoryStatus": with_a_key,
    "SystemSharedMemoryRegister": operators,
    "SystemSharedMemoryUnregister": operators,
    "CudaSharedMemoryStatus": with_a_key,
    "CudaSharedMemoryRegister": operators,
    "CudaSharedMemoryUnregister": operators,
    "TraceSetting": of_a_model(operators),
    "LogSettings": operators,
    "Check": of_a_model(with_a_key),  # of a model; of the server as ServerReady
    "Watch": with_a_key,  # of a model that is not there it says that it is unknown
}
UNFIT = ("INVALID_ARGUMENT", "NOT_FOUND")
CODES = {401: "UNAUTHENTICATED", 403: "PERMISSION_DENIED", 404: "NOT_FOUND"}


@pytest.fixture(scope="module", params=["fast", "plain"])
def served(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Tenancy]:
    folder = tmp_path_factory.mktemp("regions")
    regions = Regions(folder, CudaDriver(str(build_driver(folder))), by_tenant=True)
    with tenancy(request.param, regions) as running:
        yield running


@pytest.fixture(scope="module")
def caller(served: Tenancy) -> Iterator[Caller]:
    with calling(served.served.grpc) as client:
        yield client


def credential(who: str) -> list[tuple[str, str]]:
    return list(CREDENTIALS[who].items())


@pytest.mark.parametrize("path", methods())
def test_every_method_answers_every_credential_as_its_rule_says(caller: Caller, path: str) -> None:
    name = path.rpartition("/")[2]
    assert name in RULES, f"no rule says who may call {path}: add one to RULES"
    for who in CREDENTIALS:
        expected = RULES[name](who)
        answer = caller.call(path, message_for(path, OURS), credential(who))
        if expected == 200:  # let in; an unfit message is another matter
            is_let_in = answer.code == "OK" or (answer.code in UNFIT and ("Shared" in name or "Trace" in name))
            assert is_let_in, (who, answer)
        else:
            assert answer.code == CODES[expected], (who, answer)
            assert not answer.messages, who


def test_every_rule_is_needed() -> None:
    assert {path.rpartition("/")[2] for path in methods()} == set(RULES)


def test_the_health_of_the_server_is_open_and_that_of_a_foreign_model_unknown(caller: Caller) -> None:
    for service in ("", SERVICE):
        asked = encode("grpc.health.v1.HealthCheckRequest", {"service": service})
        for who in CREDENTIALS:
            for method in ("Check", "Watch"):
                (answer,) = caller.call(f"/{HEALTH}/{method}", asked, credential(who)).messages
                assert decode("grpc.health.v1.HealthCheckResponse", answer).status == 1, who
    for name in (OURS, ABSENT[OURS]):
        (answer,) = caller.call(f"/{HEALTH}/Watch", message_for(f"/{HEALTH}/Watch", name), credential("other tenant"))[
            2
        ]
        assert decode("grpc.health.v1.HealthCheckResponse", answer).status == 3


def bad(model: str) -> dict[str, bytes]:
    """Returns requests with one mistake each, of which some have the head of a good request."""
    one: dict[str, Any] = {"name": "x", "datatype": "FP32", "shape": [1, 16]}
    shared = one | {"parameters": {"shared_memory_region": {"string_param": "r"},
                                   "shared_memory_byte_size": {"int64_param": 64}}}  # fmt: skip
    written = {"name": "y", "parameters": shared["parameters"]}
    return {
        "too few bytes": infer(model, bytes(60)),
        "too many bytes": infer(model, bytes(68)),
        "no bytes": infer(model, b""),
        "another version": infer(model, model_version="7"),
        "an unknown input": infer(model, inputs=[one | {"name": "z"}]),
        "another shape": infer(model, inputs=[one | {"shape": [1, 17]}]),
        "a datatype that is none": infer(model, inputs=[one | {"datatype": "FP33"}]),
        "an unknown output": infer(model, outputs=[{"name": "z"}]),
        "an input in an unknown region": infer(model, inputs=[shared]),
        "an output in an unknown region": infer(model, outputs=[written]),
        "a bad priority": infer(model, parameters={"priority": {"string_param": "high"}}),
        "half a message": infer(model)[:-9],
        "noise": b"\xff\x07" + model.encode(),
        "nothing wrong": infer(model),
    }


@pytest.mark.parametrize("method", ["ModelInfer", "ModelStreamInfer"])
def test_whatever_is_wrong_with_it_a_request_to_a_foreign_model_is_one_to_none(caller: Caller, method: str) -> None:
    path, absent = f"/{SERVICE}/{method}", ABSENT[OURS]
    for _ in range(2):  # the second time, plans and openings of good heads are known
        for message in bad(OURS).values():
            caller.call(path, message, credential("own tenant"))
        for what, message in bad(OURS).items():
            foreign = caller.call(path, message, credential("other tenant"))
            expected = caller.call(path, bad(absent)[what], credential("other tenant"))
            assert foreign._replace(text=foreign.text.replace(OURS, absent)) == expected, what
            assert foreign.code == "NOT_FOUND" or what in ("half a message", "noise", "a datatype that is none"), what


@pytest.mark.parametrize("path", [path for path in methods() if "SharedMemory" not in path])
@pytest.mark.parametrize("name", [OURS, TALE])
def test_every_method_answers_for_a_foreign_model_as_for_none(caller: Caller, path: str, name: str) -> None:
    absent = ABSENT[name]
    for settings in (False, True):
        for version in ("", "1", "7"):
            asked = {one: message_for(path, one) for one in (name, absent)}
            kind = methods()[path].input_type.name
            if version and kind.endswith("InferRequest"):
                asked = {one: infer(one, model_version=version) for one in asked}
            elif version and any(field.name == "version" for field in methods()[path].input_type.fields):
                asked = {one: encode(kind, {"name": one, "version": version}) for one in asked}
            elif settings and path.endswith("TraceSetting"):
                asked = {one: encode(kind, {"model_name": one}) for one in asked}
            foreign = caller.call(path, asked[name], credential("other tenant"))
            nothing = caller.call(path, asked[absent], credential("other tenant"))
            assert foreign._replace(text=foreign.text.replace(name, absent)) == nothing, (path, version)


def test_each_tenant_is_shown_its_own_models_only(caller: Caller) -> None:
    for who, tenant in {"own tenant": "acme", "other tenant": "globex"}.items():
        (index,) = caller.call(f"/{SERVICE}/RepositoryIndex", b"", credential(who)).messages
        assert {model.name for model in decode("RepositoryIndexResponse", index).models} == SEEN[tenant]
        (counts,) = caller.call(f"/{SERVICE}/ModelStatistics", b"", credential(who)).messages
        assert {model.name for model in decode("ModelStatisticsResponse", counts).model_stats} == SEEN[tenant]
        (about,) = caller.call(f"/{SERVICE}/ServerMetadata", b"", credential(who)).messages
        assert not any(name.encode() in about for name in (OURS, TALE, HERS))
