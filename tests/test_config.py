"""Tests settings files: correct values arrive unchanged, mistakes are reported with their line."""

import pickle
from pathlib import Path

import pytest
import yaml

from serving.config import ServerSettings, Settings, SettingsError, load_settings
from serving.explain import reference, reference_markdown, values

ROOT = Path(__file__).parents[1]
GOOD = """\
server:
  http_port: 8010
models:
  - name: doubler
    factory: shop.models:Doubler
    inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 4]}]
"""


JWT = {"issuer": "https://id.example", "audience": "headway", "jwks": "https://id.example/jwks"}


def mistakes_of(tmp_path: Path, text: str) -> list[str]:
    """Returns the messages for a settings file with this text, without its folder."""
    file = tmp_path / "my.yaml"
    file.write_text(text)
    with pytest.raises(SettingsError) as caught:
        load_settings(file)
    return [mistake.replace(f"{tmp_path}/", "") for mistake in caught.value.mistakes]


def test_a_small_file_is_enough(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    settings = load_settings(file)
    (spec,) = settings.model_specs()
    assert (settings.server.http_port, settings.server.host, settings.server.haproxy) == (8010, "127.0.0.1", "auto")
    assert (spec.name, spec.version, spec.inputs[0].shape, spec.replicas) == ("doubler", "1", (-1, 4), 1)
    assert settings.tenant_weights("doubler") == {}


def test_every_field_of_a_model_arrives_in_its_spec(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    file = tmp_path / "my.yaml"
    file.write_text("""\
models:
  - name: all.of_it-1
    version: 3
    factory: a.b:C.d
    options: {depth: 2}
    inputs: [{name: ids, datatype: INT64, shape: [-1, -1], pad: 0}]
    outputs: [{name: y, datatype: FP32, shape: [-1, 2]}, {name: z, datatype: FP32, shape: [-1, 1]}]
    latency_budget_ms: 50
    resources: {cpus: 0.5, gpus: 0.25}
    replicas: 2
    limits: {max_batch_rows: 8, max_queue_requests: 16, forward_timeout_s: 2}
    labels: {y: classes.txt, z: [only]}
    description: all
    example: '{"inputs": []}'
    tenants: {gold: 3, free: 0.5}
""")
    settings = load_settings(file)
    (spec,) = settings.model_specs()
    assert (spec.version, dict(spec.options), spec.inputs[0].pad, spec.latency_budget_ms) == ("3", {"depth": 2}, 0, 50)
    assert (spec.resources.cpus, spec.resources.gpus, spec.replicas) == (0.5, 0.25, 2)
    assert (spec.limits.max_batch_rows, spec.limits.max_queue_requests, spec.limits.forward_timeout_s) == (8, 16, 2.0)
    assert spec.labels == {"y": ("cat", "dog"), "z": ("only",)}
    assert settings.tenant_weights("all.of_it-1") == {"gold": 3.0, "free": 0.5}


def test_settings_are_the_same_after_a_round_trip_through_a_manifest(tmp_path: Path) -> None:
    (tmp_path / "classes.txt").write_text("cat\ndog\n")
    file = tmp_path / "my.yaml"
    second = GOOD.partition("models:\n")[2].replace("doubler", "other") + "    labels: {y: classes.txt}\n"
    file.write_text(GOOD + second)
    settings = load_settings(file)
    carried = yaml.safe_load(yaml.safe_dump(settings.as_mapping()))
    assert Settings.model_validate(carried).model_specs() == settings.model_specs()
    only = Settings.model_validate(settings.as_mapping("other"))
    assert [spec.name for spec in only.model_specs()] == ["other"]
    assert only.model_specs()[0].labels == {"y": ("cat", "dog")}


def test_models_know_the_folder_of_their_settings_also_in_another_process(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    settings = load_settings(file)
    assert [spec.folder for spec in settings.model_specs()] == [str(tmp_path)]
    assert [spec.folder for spec in pickle.loads(pickle.dumps(settings)).model_specs()] == [str(tmp_path)]
    carried = Settings.model_validate(settings.as_mapping())
    assert [spec.folder for spec in carried.model_specs()] == [None], "a manifest is read on another machine"


def test_mistakes_in_a_manifests_settings_are_reported_without_the_options() -> None:
    model = yaml.safe_load(GOOD)["models"][0] | {"options": {"token": "hunter2-and-more"}, "replicas": 0}
    for wrong in (model, model | {"options": ["hunter2-and-more"]}, {"options": {"token": "hunter2-and-more"}}):
        with pytest.raises(ValueError) as caught:
            Settings.model_validate({"models": [wrong]})
        assert "hunter2" not in str(caught.value)


@pytest.mark.parametrize(
    ("host", "url"),
    [
        ("127.0.0.1", "http://127.0.0.1:8000"),
        ("0.0.0.0", "http://127.0.0.1:8000"),
        ("::1", "http://[::1]:8000"),
        ("::", "http://[::1]:8000"),
        ("fd00::2", "http://[fd00::2]:8000"),
        ("localhost", "http://localhost:8000"),
    ],
)
def test_the_server_is_called_by_an_address_that_fits_into_a_url(host: str, url: str) -> None:
    assert ServerSettings(host=host, auth="none").url == url


@pytest.mark.parametrize("auth", ["none", {"keys": True}, {"keys": False, "jwt": JWT}])
def test_a_server_for_other_machines_starts_once_the_file_says_who_may_call(auth: object) -> None:
    settings = ServerSettings.model_validate({"host": "0.0.0.0", "auth": auth})
    assert settings.auth.is_none == (auth == "none")
    written = settings.model_dump(exclude_unset=True)
    assert written == {"host": "0.0.0.0", "auth": auth}
    assert ServerSettings.model_validate(written) == settings


@pytest.mark.parametrize("host", ["127.0.0.1", "127.1.2.3", "::1", "localhost"])
def test_on_a_loopback_address_nobody_has_to_be_named(host: str) -> None:
    assert ServerSettings(host=host).auth is None


def test_the_state_and_the_key_set_are_found_from_the_settings_file(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    jwt = "{issuer: https://id.example, audience: headway, jwks: jwks.json}"
    file.write_text(GOOD.replace("http_port: 8010", f"state: kept\n  auth: {{jwt: {jwt}}}"))
    server = load_settings(file).server
    assert (server.state, server.auth.keys) == (str(tmp_path / "kept"), True)
    assert (server.auth.jwt.jwks, server.auth.jwt.tenant_claim) == (str(tmp_path / "jwks.json"), "tenant")
    for place in ("s3://bucket/head/way", "file:///var/lib/headway", "/var/lib/headway"):
        assert ServerSettings(state=place).state == place


def test_ports_of_ray_follow_ours_and_stay_ports() -> None:
    assert ServerSettings().ray_ports == (8500, 9500, 8404, 9101)
    assert ServerSettings(http_port=8010, grpc_port=8011).ray_ports == (8510, 9510, 8414, 9111)
    assert all(0 < port < 65536 for port in ServerSettings(http_port=65000).ray_ports)


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("htpp_port: 8010", "htpp_port: unknown key; did you mean 'http_port'?"),
        ("zzz: 1", "zzz: unknown key; possible here: name, host, http_port"),
        ("http_port: 80001", "http_port: input should be less than or equal to 65535, got 80001"),
        ("http_port: yes", "http_port: expected a whole number, got true (YAML reads yes, no, on and off as"),
        ("allowed_origins: [app.example]", "allowed_origins[0]: 'app.example' is not an origin"),
        ("allowed_origins: ['https://app.example/']", "allowed_origins[0]: 'https://app.example/' is not an origin"),
        ("http_port: 30500", "http_port: 30500 is used by Ray Serve itself"),
        ("trace_share: .inf", "trace_share: expected a finite number, got inf"),
        ("grpc_port: 9500", "grpc_port: 9500 is used by Ray Serve itself"),
        ("tenant_header: 'x tenant:'", "tenant_header: string should match pattern"),
        ("grpc_port: 40001", "grpc_port: 40001 is used by Ray Serve itself"),
        ("grpc_port: 41500", "grpc_port: 41500 is used by replicas, for gRPC from HAProxy; take 8001, say"),
        ("http_port: 42500", "http_port: 42500 is used by replicas"),
        ("grpc_port: 8000", "grpc_port: 8000 is already the http_port"),
        (
            "host: 0.0.0.0",
            "host: 0.0.0.0 can be reached from other machines, and anybody there could call the server; ",
        ),
        ("host: '::'", "host: :: can be reached from other machines"),
        ("host: example.com", "host: example.com can be reached from other machines"),
        ("auth: maybe", "auth: expected `none`, or a section with `keys: true` or `jwt`"),
        ("auth: false", "auth: expected `none`, or a section"),
        ("auth: {key: true}", "auth.key: unknown key; did you mean 'keys'?"),
        ("auth: {keys: false}", "auth.keys: without keys and without `jwt` nobody could call"),
        ("auth: {jwt: {issuer: a, audience: b}}", "auth.jwt.jwks: is missing"),
        (
            "auth: {jwt: {issuer: a, audience: b, jwks: c, algorithms: [HS256]}}",
            "auth.jwt.algorithms[0]: 'HS256' is not",
        ),
        (
            "auth: {jwt: {issuer: a, audience: b, jwks: 'http://id.example/'}}",
            "auth.jwt.jwks: expected a file, file:///",
        ),
        ("state: gs://bucket", "state: expected a folder, file:///folder or s3://bucket/folder"),
        ("state: s3://key:secret@bucket", "state: expected a folder"),
        ("haproxy: maybe", "haproxy: 'maybe' is not possible; expected 'auto' or 'off'"),
    ],
)
def test_a_mistake_about_the_server_is_reported_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    assert mistakes_of(tmp_path, GOOD.replace("http_port: 8010", line))[0].startswith(f"my.yaml:2: server.{message}")


@pytest.mark.parametrize(
    ("line", "message"),
    [
        ("version: 1.10", "version: expected a text, got 1.1 (put it in quotes)"),
        ("replicas: 0", "replicas: must be at least 1, got 0"),
        ("replicas: '2'", "replicas: expected a whole number, got '2'"),
        ("latency_budget_ms: -3", "latency_budget_ms: must be positive"),
        ("latency_budget_ms: .inf", "latency_budget_ms: expected a finite number"),
        ("resources: {gpus: 1.5}", "resources.gpus: must be a fraction up to 1 or a whole number, got 1.5"),
        ("limits: {max_batch_rows: 0}", "limits.max_batch_rows: must be at least 1, got 0"),
        ("tenants: {a: 0}", "tenants.a: a weight must be positive, got 0.0"),
        ("example: '{'", "example: is not JSON"),
        ("labels: {q: [a]}", "labels: no output is named q"),
        ("labels: {y: none.txt}", "labels.y: the labels' file"),
        ("labels: {y: [cat, no]}", "labels.y[1]: expected a text, got false"),
        ("replicas: 2\n    scaling: {}", "replicas: with `scaling` there is no fixed number; set scaling.min_replicas"),
        ("scaling: {min_replicas: 11}", "scaling.min_replicas: 11 is more than max_replicas, 10"),
        ("scaling: {max_replicas: 0}", "scaling.max_replicas: input should be greater than or equal to 1, got 0"),
        ("scaling: {down_after: 5}", "scaling.down_after: unknown key; did you mean 'down_after_s'?"),
        ("lables: {}", "lables: unknown key; did you mean 'labels'?"),
        ("name: other", "name: is given twice; it is also on line 4"),
    ],
)
def test_a_mistake_about_a_model_is_reported_with_its_line(tmp_path: Path, line: str, message: str) -> None:
    text = GOOD.replace("    factory:", f"    {line}\n    factory:")
    assert mistakes_of(tmp_path, text)[0].startswith(f"my.yaml:5: models[0].{message}")


@pytest.mark.parametrize(
    ("right", "wrong", "message"),
    [
        ("name: doubler", "name: a/b", "4: models[0].name: 'a/b' cannot be part of a URL"),
        ("name: doubler", "name: ..", "4: models[0].name: '..' cannot be part of a URL"),
        ("name: doubler", "name: front", "4: models[0].name: 'front' is taken by the server itself"),
        (
            "name: doubler",
            "name: stats",
            "4: models[0].name: 'stats' is taken by the server itself: GET /v2/models/stats",
        ),
        (
            "name: doubler",
            "name: inference.GRPCInferenceService",
            "4: models[0].name: 'inference.GRPCInferenceService' is taken by the server itself: grpc.health.v1",
        ),
        ("name: doubler", "name: a%2Db", "4: models[0].name: 'a%2Db' cannot be part of a URL"),
        ("name: doubler", "name: 17", "4: models[0].name: expected a text, got 17 (put it in quotes)"),
        ("name: doubler", "version: '2'", "4: models[0].name: is missing"),
        ("shop.models:Doubler", ".models:Doubler", "5: models[0].factory: '.models:Doubler' is relative"),
        ("shop.models:Doubler", "shop/models.py", "5: models[0].factory: 'shop/models.py' is not of the form"),
        ("{name: x, datatype: FP32", "{name: x, datatype: FP31", "6: models[0].inputs[0].datatype: 'FP31' is not one"),
        ("inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]", "inputs: []", "6: models[0].inputs: needs at least 1"),
        ("inputs: [{name: x, datatype: FP32, shape: [-1, 4]}]", "inputs: 3", "6: models[0].inputs: expected a list"),
        ("[-1, 4]}]\n    outputs", "[4]}]\n    outputs", "6: models[0].inputs[0].shape: must begin with -1"),
        ("[-1, 4]}]\n    outputs", "[]}]\n    outputs", "6: models[0].inputs[0].shape: must begin with -1"),
        ("[-1, 4]}]\n    outputs", "[0, 4]}]\n    outputs", "6: models[0].inputs[0].shape: sizes are positive"),
        (
            "name: doubler",
            "name: doubler\n    limits: {max_batch_rows: 0}",
            "5: models[0].limits.max_batch_rows: must be at least 1, got 0. For a model without a batch dimension, set",
        ),
        ("[-1, 4]}]\n    outputs", "[-1, 4], optional: true}]\n    outputs", "6: models[0].inputs: at least one must"),
        ("[-1, 4]}]\n    outputs", "[-1, 4], pad: 0}]\n    outputs", "6: models[0].inputs[0].pad: only a variable"),
        ("[-1, 4]}]\n    outputs", "[-1, -1], pad: a}]\n    outputs", "6: models[0].inputs[0].pad: expected a number"),
        (
            "[-1, 4]}]\n    outputs",
            "[-1, -1], pad: .nan}]\n    outputs",
            "6: models[0].inputs[0].pad: expected a finite",
        ),
    ],
)
def test_a_mistake_in_a_required_field_of_a_model_is_reported_with_its_line(
    tmp_path: Path, right: str, wrong: str, message: str
) -> None:
    assert right in GOOD
    assert mistakes_of(tmp_path, GOOD.replace(right, wrong, 1))[0].startswith(f"my.yaml:{message}")


def test_a_model_without_a_batch_dimension_declares_its_shapes_as_they_are(tmp_path: Path) -> None:
    lone = GOOD.replace("    inputs: ", "    batched: false\n    inputs: ")
    (tmp_path / "lone.yaml").write_text(lone.replace("shape: [-1, 4]", "shape: [3, -1]", 1))
    (spec,) = load_settings(tmp_path / "lone.yaml").model_specs()
    assert (spec.batched, spec.max_batch_rows, spec.inputs[0].shape, spec.outputs[0].shape) == (
        False, 1, (3, -1), (-1, 4)
    )  # fmt: skip
    (mistake,) = mistakes_of(tmp_path, lone.replace("shape: [-1, 4]", "shape: [-1, -1], pad: 0", 1))
    assert "models[0].inputs[0].pad: must not be set with `batched: false`" in mistake
    (mistake,) = mistakes_of(tmp_path, lone + "    limits: {max_batch_rows: 8}\n")
    assert "models[0].limits.max_batch_rows: a model without a batch dimension" in mistake


def test_all_mistakes_are_reported_at_once_in_the_order_of_the_file(tmp_path: Path) -> None:
    messages = mistakes_of(
        tmp_path,
        GOOD.replace("http_port: 8010", "port: 1").replace("name: x,", "nam: x,").replace("name: y,", "name: 5,"),
    )
    assert [line.split(": ")[0] for line in messages] == ["my.yaml:2", "my.yaml:6", "my.yaml:6", "my.yaml:7"]
    messages = mistakes_of(
        tmp_path, GOOD.replace("doubler", "a/b").replace("shop.models:Doubler", "shop").replace("-1", "1")
    )
    assert [line.split(": ")[0] for line in messages] == ["my.yaml:4", "my.yaml:5", "my.yaml:6", "my.yaml:7"]


def versions_of(*listed: tuple[str, str]) -> Settings:
    described = {"factory": "a:B", "inputs": [X], "outputs": [X]}
    return Settings.model_validate({"models": [{"name": name, "version": one, **described} for name, one in listed]})


X = {"name": "x", "datatype": "FP32", "shape": [-1, 2]}


def test_a_model_may_be_listed_with_several_versions() -> None:
    settings = versions_of(("ranker", "1"), ("alone", "7"), ("ranker", "2"))
    assert [(name, model.version) for name, model in settings.applications().items()] == [
        ("ranker", "1"),
        ("alone", "7"),
        ("ranker@2", "2"),
    ]
    assert [settings.path_of(name) for name in settings.applications()] == [
        "/v2/models/ranker/versions/1",
        "/v2/models/alone",
        "/v2/models/ranker/versions/2",
    ]
    assert [model.version for model in Settings.model_validate(settings.as_mapping("ranker@2")).models] == ["2"]


def test_a_version_can_be_added_and_replaced_but_not_so_that_haproxy_mistakes_it_for_another_model() -> None:
    settings = versions_of(("ranker", "1"), ("ranker_3", "1"))
    one = settings.models[0]
    added = settings.with_version(one.model_copy(update={"version": "2", "description": "new"}))
    assert list(added.applications()) == ["ranker", "ranker_3", "ranker@2"]
    again = added.with_version(one.model_copy(update={"version": "2", "description": "newer"}))
    assert [model.description for model in again.applications().values()] == ["", "", "newer"]
    with pytest.raises(ValueError, match="HAProxy cannot tell ranker@3 and ranker_3 apart"):
        settings.with_version(one.model_copy(update={"version": "3"}))


def test_all_contradictions_in_a_model_are_reported_at_once(tmp_path: Path) -> None:
    messages = mistakes_of(tmp_path, GOOD + "    replicas: 0\n    latency_budget_ms: -1\n    labels: {z: [a]}\n")
    assert [line.split(": ")[1] for line in messages] == [
        f"models[0].{key}" for key in ("replicas", "latency_budget_ms", "labels")
    ]


def test_two_models_may_not_have_the_same_name(tmp_path: Path) -> None:
    messages = mistakes_of(tmp_path, GOOD + GOOD.partition("models:\n")[2])
    assert messages == [
        "my.yaml:8: models[1].name: 'doubler' is already the name of models[0]; another version of the same model "
        "needs a `version` of its own"
    ]


def test_broken_yaml_is_reported_with_its_line(tmp_path: Path) -> None:
    assert mistakes_of(tmp_path, "models:\n  - name: [\n")[0].startswith("my.yaml:3: is not valid YAML: ")
    assert mistakes_of(tmp_path, "models:\n\t- name\n")[0].endswith("; indent with spaces")
    assert mistakes_of(tmp_path, "a: 1\n---\nb: 2\n")[0].startswith("my.yaml:2: is not valid YAML: ")
    assert mistakes_of(tmp_path, "? [a]\n: 1\n")[0].startswith("my.yaml:1: is not valid YAML: ")


@pytest.mark.parametrize("text", ["", "# nothing\n", "- a\n", "just words\n", "models: &x [*x]\n", "a: \x07\n"])
def test_a_file_that_holds_no_settings_is_refused(tmp_path: Path, text: str) -> None:
    assert all(message.startswith("my.yaml") for message in mistakes_of(tmp_path, text))


def laughs(line: str) -> str:
    """Returns twelve lines of YAML that stand for 9^11 values: each names the one before it nine times."""
    repeated = (line.format(number=number, before=", ".join([f"*a{number - 1}"] * 9)) for number in range(1, 12))
    return "a0: &a0 {a: 1}\n" + "".join(repeated) + GOOD


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (laughs("a{number}: &a{number} [{before}]\n"), "holds more than 50,000 values, aliases counted each time"),
        (laughs("a{number}: &a{number}\n  <<: [{before}]\n"), "holds more than 50,000 values"),
        ("models: [&m {options: *m}]\n", "an alias stands inside the value that it names"),
        ("models: &m\n  *m : 1\n", "an alias stands inside the value that it names"),
        (GOOD + f"    options: {{a: {'[' * 10_000}\n", "is nested too deeply"),
        (GOOD + f"    options: {{a: {'[' * 500 + ']' * 500}}}\n", "is nested too deeply"),
        (GOOD + "    options: {a: 2024-99-99}\n", "is not valid YAML: month must be in 1..12"),
        (GOOD + f"    example: '{'[' * 100_000}'\n", "is JSON that is nested too deeply"),
        (GOOD + "#" * 2**20, "has more than 1,048,576 characters"),
    ],
    ids=["laughs", "laughs by merging", "itself", "itself as a key", "deep", "less deep", "a date", "JSON", "large"],
)
def test_a_file_that_would_take_all_memory_or_time_is_refused_at_once(tmp_path: Path, text: str, message: str) -> None:
    (mistake,) = mistakes_of(tmp_path, text)
    assert mistake.startswith("my.yaml")
    assert message in mistake


def test_yaml_aliases_may_share_parts_between_models(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    again = "\n".join(line.replace("doubler", "tripler") for line in GOOD.splitlines()[3:])
    file.write_text(f"{GOOD}    limits: &l {{max_queue_requests: 7}}\n{again}\n    limits: *l\n")
    assert [model.limits.max_queue_requests for model in load_settings(file).models] == [7, 7]


def test_of_very_many_mistakes_the_first_are_reported_and_long_ones_are_cut(tmp_path: Path) -> None:
    messages = mistakes_of(tmp_path, "".join(f"k{number}: 1\n" for number in range(100)) + GOOD)
    assert len(messages) == 51
    assert messages[0].startswith("my.yaml:1: k0: unknown key")
    assert messages[-1] == "... and 50 more mistakes"
    (long,) = mistakes_of(tmp_path, GOOD.replace("doubler", "d" * 10_000))
    assert len(long) < 1100


def test_a_file_that_cannot_be_read_is_named(tmp_path: Path) -> None:
    with pytest.raises(SettingsError, match=r"none\.yaml: cannot be read: No such file"):
        load_settings(tmp_path / "none.yaml")
    with pytest.raises(SettingsError, match="cannot be read: Is a directory"):
        load_settings(tmp_path)
    latin = tmp_path / "latin.yaml"
    latin.write_bytes("name: café".encode("latin-1"))
    with pytest.raises(SettingsError, match="is not UTF-8 text"):
        load_settings(latin)


def test_a_bare_off_turns_haproxy_off(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD.replace("http_port: 8010", "haproxy: off"))
    assert load_settings(file).server.haproxy == "off"


def test_each_value_is_explained_with_the_line_it_came_from(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD)
    explained = {value.key: value for value in values(load_settings(file))}
    assert explained["server.http_port"] == ("server.http_port", 8010, f"{file}:2")
    assert explained["server.host"].source == "default"
    assert explained["models[0].inputs[0].shape"].value == [-1, 4]


def test_the_demo_describes_the_models_as_they_describe_themselves() -> None:
    classifier = pytest.importorskip("models.image_classifier").SPEC
    embedder = pytest.importorskip("models.text_embedder").SPEC
    for ours, theirs in zip(load_settings(ROOT / "demo.yaml").model_specs(), (classifier, embedder), strict=True):
        for fact in ("name", "factory", "inputs", "outputs", "labels"):
            assert getattr(ours, fact) == getattr(theirs, fact), fact


def test_every_setting_is_in_the_documentation_with_its_default_and_meaning() -> None:
    text = (ROOT / "docs" / "configuration.md").read_text()
    table = text.partition("<!-- headway settings --markdown -->\n")[2].partition("\n<!-- end -->")[0]
    assert table == reference_markdown(), "paste what `headway settings --markdown` prints"
    assert all(entry.meaning for entry in reference())


TENANTS = """\
tenants:
  acme: {requests_per_minute: 60, burst: 5, models: [doubler]}
  globex: {weight: 2}
"""


def test_tenants_arrive_with_their_limits_and_weights(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD + TENANTS)
    settings = load_settings(file)
    acme, globex = settings.declared_tenants().values()
    assert (acme.name, acme.requests_per_minute, acme.at_once, acme.models) == ("acme", 60, 5, frozenset({"doubler"}))
    assert (globex.requests_per_minute, globex.at_once, globex.models) == (1000, 10, None)
    assert settings.tenant_weights("doubler") == {"acme": 1.0, "globex": 2.0}


def test_the_settings_of_one_model_leave_out_what_tenants_see_of_others(tmp_path: Path) -> None:
    file = tmp_path / "my.yaml"
    file.write_text(GOOD + GOOD.partition("models:\n")[2].replace("doubler", "halver") + TENANTS)
    only = Settings.model_validate(load_settings(file).as_mapping("halver"))
    assert only.declared_tenants()["acme"].models == frozenset()
    assert only.declared_tenants()["acme"].requests_per_minute == 60


@pytest.mark.parametrize(
    ("text", "mistake"),
    [
        ("  acme: {request_per_minute: 6}", "tenants.acme.request_per_minute: unknown key; did you mean 'requests_per"),
        ("  acme: {models: [nobody]}", "tenants.acme.models: there is no model 'nobody'"),
        ("  acme: {burst: 0}", "tenants.acme.burst: input should be greater than or equal to 1, got 0"),
        ("  two words: {}", "a tenant's name has 1 to 64 visible ASCII characters, without blanks"),
    ],
)
def test_a_mistake_about_a_tenant_is_named(text: str, mistake: str, tmp_path: Path) -> None:
    (said,) = mistakes_of(tmp_path, f"{GOOD}tenants:\n{text}\n")
    assert said.startswith("my.yaml:9")
    assert mistake in said


@pytest.mark.parametrize(
    ("redis", "mistake"),
    [
        ("{url: 'redis://anna:secret@cache:6379'}", "url: holds a password; put it into a file and name that in"),
        ("{url: 'http://cache'}", "server.redis.url"),
        ("{url: 'redis://cache', master: m, cluster: true}", "master: Sentinels and a Cluster exclude each other"),
    ],
)
def test_a_mistake_about_redis_is_named_and_a_password_is_not_repeated(
    redis: str, mistake: str, tmp_path: Path
) -> None:
    (said,) = mistakes_of(tmp_path, GOOD.replace("server:\n", f"server:\n  redis: {redis}\n"))
    assert mistake in said
    assert "secret" not in said
