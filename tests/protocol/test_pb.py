"""The generated messages are up to date, and equal to those of tritonclient."""

import pytest
from google.protobuf.descriptor import FieldDescriptor
from tritonclient.grpc import model_config_pb2, service_pb2

from serving.protocol.pb import SERVICE, generate, message, pool

OURS = pool().FindFileByName("open_inference.proto")


def every_message(messages):
    for found in messages:
        if not found.GetOptions().map_entry:
            yield found
        yield from every_message(found.nested_types)


def tritons(name: str):
    for module in (service_pb2, model_config_pb2):
        found = module.DESCRIPTOR
        for part in name.removeprefix("inference.").split("."):
            by_name = found.message_types_by_name if found is module.DESCRIPTOR else found.nested_types_by_name
            found = by_name.get(part)
            if found is None:
                break
        else:
            return found
    raise AssertionError(f"tritonclient has no {name}")


def kind(field: FieldDescriptor) -> tuple[object, ...]:
    inner = field.message_type or field.enum_type
    oneof = field.containing_oneof.name if field.containing_oneof else ""
    return field.number, field.type, field.is_repeated, inner.full_name if inner else "", oneof


def test_the_generated_code_is_current() -> None:
    committed = generate.TARGET.read_text()
    assert committed == generate.generated(), "run: python -m serving.protocol.pb.generate"


@pytest.mark.parametrize(
    "ours", list(every_message(OURS.message_types_by_name.values())), ids=lambda found: found.full_name
)
def test_every_field_is_the_field_that_tritonclient_knows(ours) -> None:
    theirs = {field.name: kind(field) for field in tritons(ours.full_name).fields}
    assert {field.name: kind(field) for field in ours.fields}.items() <= theirs.items()


@pytest.mark.parametrize("ours", list(OURS.enum_types_by_name.values()), ids=lambda found: found.name)
def test_every_enum_has_tritons_numbers(ours) -> None:
    theirs = model_config_pb2.DESCRIPTOR.enum_types_by_name[ours.name]
    assert {value.name: value.number for value in ours.values} == {value.name: value.number for value in theirs.values}


def test_all_twenty_calls_are_there() -> None:
    def calls(service) -> dict[str, tuple[str, str, bool, bool]]:
        return {
            method.name: (
                method.input_type.full_name, method.output_type.full_name, method.client_streaming,
                method.server_streaming,
            )
            for method in service.methods
        }  # fmt: skip

    theirs = calls(service_pb2.DESCRIPTOR.services_by_name["GRPCInferenceService"])
    assert calls(pool().FindServiceByName(SERVICE)) == theirs
    assert len(theirs) == 20


def test_health_is_grpcs_own() -> None:
    assert message("grpc.health.v1.HealthCheckResponse")(status=1).SerializeToString() == b"\x08\x01"
