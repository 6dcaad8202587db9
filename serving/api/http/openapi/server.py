"""The part of the OpenAPI document about the server itself: the paths of every server, and those of its extensions."""

from collections.abc import Collection, Sequence
from typing import Any

from serving.api.http.openapi.words import COUNT, FLAG, TEXT, Json, change, each, fields, read, ref, wishes


def server_paths(extensions: Collection[str], models: Sequence[str]) -> Json:
    """Returns the paths of a server. extensions: those of the protocol that the server offers; others are left out."""
    paths = {
        "/v2": read("Returns the server's name, version and extensions", "ServerMetadata"),
        "/v2/health/live": read("Returns whether the server is running", "Live"),
        "/v2/health/ready": read("Returns whether all models are ready", "Ready", 503),
        "/v2/models/stats": read("Returns the statistics of all models", "Statistics"),
        "/v2/repository/index": change(
            "Returns the models and their states", wishes(ready=FLAG), "Index", 400, required=False
        ),
    }
    if "model_repository" in extensions:
        paths |= _control_paths(models)
    if "system_shared_memory" in extensions:
        paths |= _region_paths("system", "Regions", "Registration")
    if "cuda_shared_memory" in extensions:
        paths |= _region_paths("cuda", "CudaRegions", "CudaRegistration")
    if "logging" in extensions:
        paths["/v2/logging"] = settings("the log settings", "LogSettings")
    if "features" in extensions:
        paths |= _feature_paths()
    if "releases" in extensions:
        paths |= _release_paths(models)
    if "trace" in extensions:
        paths["/v2/trace/setting"] = settings("the trace settings of all models", "TraceSettings")
    return paths


def _control_paths(models: Sequence[str]) -> Json:
    tags = ["loading and unloading models"]
    parameters = [_in_path("model", TEXT | {"enum": [*models]})]
    given = wishes(parameters=wishes(unload_dependents=FLAG))
    errors = (400, 403, 404, 500, 503)
    return {
        f"/v2/repository/models/{{model}}/{verb}": {
            **change(summary, given, "Nothing", *errors, required=False, tags=tags),
            "parameters": parameters,
        }
        for verb, summary in (
            ("load", "Deploys the model, or restarts its replicas one by one. Returns when the model is ready."),
            ("unload", "Unloads the model. Returns when its processes have ended."),
        )
    }


def _region_paths(kind: str, registered: str, registration: str) -> Json:
    tags = [f"{kind} shared memory"]
    all_of_them, one = f"/v2/{kind}sharedmemory", f"/v2/{kind}sharedmemory/region/{{region}}"
    parameters = [_in_path("region", TEXT | {"pattern": "^[A-Za-z0-9_-]{1,200}$"})]
    unregister = "Unregisters a region. Requests that already use it are still answered."
    return {
        f"{all_of_them}/status": read("Returns all registered regions", registered, tags=tags),
        f"{all_of_them}/unregister": change("Unregisters all regions", None, "Nothing", 403, tags=tags),
        f"{one}/status": read("Returns one registered region", registered, 404, tags=tags) | {"parameters": parameters},
        f"{one}/register": {
            **change("Registers memory that the client has created", ref(registration), "Nothing", 400, 403, tags=tags),
            "parameters": parameters,
        },
        f"{one}/unregister": change(unregister, None, "Nothing", 403, tags=tags) | {"parameters": parameters},
    }


def _feature_paths() -> Json:
    tags, errors = ["features"], (400, 403, 404, 413, 503)
    parameters = [_in_path("view", TEXT | {"pattern": "^[A-Za-z_][A-Za-z0-9_]{0,63}$"})]
    push = "Writes rows of a feature view: each with the entity's id, `event_ts`, and features"
    get = "Returns features of entities as of now, one list per feature"
    return {
        "/v2/features": read("Returns the feature views", "FeatureViews", tags=tags),
        "/v2/features/{view}": {
            **change(push, ref("FeatureRows"), "FeaturesWritten", *errors, tags=tags),
            "parameters": parameters,
        },
        "/v2/features/{view}/get": {
            **change(get, ref("FeaturesWanted"), "FeatureColumns", *errors, tags=tags),
            "parameters": parameters,
        },
    }


def _release_paths(models: Sequence[str]) -> Json:
    tags = ["releases"]
    parameters = [_in_path("model", TEXT | {"enum": [*models]})]
    errors = (400, 403, 404, 409, 503)
    path = "/v2/models/{model}/release"
    told = read("Returns the model's traffic and its running or latest release", "Release", 404, 503, tags=tags)
    begun = change("Begins a release: `version`, and the plan", ref("ReleasePlan"), "Release", *errors, tags=tags)
    changes = {
        "hold": ("Keeps the shares as they are", "Reason"),
        "resume": ("Lets a held release go on", "Reason"),
        "abort": ("Ends the release; the stable version has all requests", "Reason"),
        "approve": ("Approves a version", "Consent"),
        "revoke": ("Takes an approval back, until the version is released", "Consent"),
    }
    return {path: told | begun | {"parameters": parameters}} | {
        f"{path}/{verb}": {
            **change(summary, ref(schema), "Release", *errors, tags=tags),
            "parameters": parameters,
        }
        for verb, (summary, schema) in changes.items()
    }


def settings(subject: str, schema: str, **more: Any) -> Json:
    """Returns the operations that read and change settings. subject: names them in the summaries."""
    changed = change(f"Changes {subject}", ref(schema), schema, 400, 403, 503, **more)
    return read(f"Returns {subject}", schema, **more) | changed


def _in_path(name: str, schema: Json) -> Json:
    return {"name": name, "in": "path", "required": True, "schema": schema}


_IDS = each({"type": ["string", "integer"]}) | {"minItems": 1, "maxItems": 1000}
_BY_FEATURE: Json = {"type": "object", "additionalProperties": {"type": "array"}}
_SIZE = {**COUNT, "description": "bytes"}
_PART_OR_NULL: Json = {"type": ["number", "null"]}
_WHO = {"why": TEXT | {"maxLength": 500}, "by": TEXT | {"description": "who asks, where nobody needs a key"}}
SERVER_SCHEMAS: Json = {
    "Error": fields(error=TEXT),
    "Nothing": {"type": "object", "maxProperties": 0},
    "Live": fields(live=FLAG),
    "Ready": fields(ready=FLAG),
    "ServerMetadata": fields(name=TEXT, version=TEXT, extensions=each(TEXT)),
    "Index": each(fields(name=TEXT, version=TEXT, state=TEXT, reason=TEXT)),
    "Statistics": fields(model_stats=each({"type": "object"})),
    "Registration": fields(("key", "byte_size"), key=TEXT, offset=_SIZE, byte_size=_SIZE),
    "Regions": each(fields(name=TEXT, key=TEXT, offset=_SIZE, byte_size=_SIZE)),
    "CudaRegistration": fields(
        ("raw_handle", "device_id", "byte_size"),
        raw_handle=fields(("b64",), b64=TEXT | {"description": "the base64 of a CUDA IPC handle of 64 bytes"}),
        device_id=COUNT,
        byte_size=_SIZE,
    ),
    "FeatureViews": fields(views=each({"type": "object"})),
    "FeatureRows": fields(
        rows=each(wishes(event_ts={"type": ["string", "number"]})) | {"minItems": 1, "maxItems": 1000}
    ),
    "FeaturesWritten": fields(written=COUNT, superseded=COUNT),
    "FeaturesWanted": fields(("ids",), ids=_IDS, features=each(TEXT) | {"minItems": 1}, reasons=FLAG),
    "FeatureColumns": fields(
        ("view", "ids", "features"),
        view=TEXT,
        ids=each(TEXT),
        features=_BY_FEATURE,
        reasons=_BY_FEATURE,
        ages_s=_BY_FEATURE,
    ),
    "ReleasePlan": fields(
        ("version",),
        version=TEXT,
        again=FLAG,
        shares=each(COUNT | {"minimum": 1, "maximum": 10_000}),
        soak_s={"type": "number"},
        deadline_s={"type": "number"},
        requests=COUNT,
        smoke=FLAG,
        shadow=COUNT,
        agreement=_PART_OR_NULL,
        errors={"type": "number"},
        slower={"type": "number"},
        business=_PART_OR_NULL,
        **_WHO,
    ),
    "Reason": wishes(**_WHO),
    "Consent": fields(("version",), version=TEXT, **_WHO),
    "Release": fields(
        model=TEXT, now={"type": "number"}, route={"type": "object"}, release={"type": ["object", "null"]}
    ),
    "CudaRegions": each(fields(name=TEXT, device_id=COUNT, byte_size=_SIZE)),
    "CacheClearing": wishes(tenant=TEXT) | {"additionalProperties": False},
    "CacheCleared": fields(in_memory=COUNT, shared=COUNT),
    "LogSettings": wishes(
        **dict.fromkeys(("log_info", "log_warning", "log_error"), FLAG),
        log_verbose_level=COUNT | {"maximum": 2**31 - 1},
        log_file={"const": ""},
        log_format={"const": "default"},
    )
    | {"additionalProperties": False},
    "TraceSettings": wishes(
        trace_level=each({"enum": ["OFF", "TIMESTAMPS"]}) | {"minItems": 1, "maxItems": 1},
        trace_rate=TEXT | {"pattern": "^[1-9][0-9]{0,8}$"},
        trace_count={"const": "-1"},
        log_frequency={"const": "0"},
        trace_file={"const": ""},
        trace_mode={"const": "opentelemetry"},
    )
    | {"additionalProperties": False},
}
