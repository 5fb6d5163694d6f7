"""Every setting of Runglass.

A setting `data` is the flag `--data`, the variable `RUNGLASS_DATA` and the key `data` of the file. The
descriptions below are the documentation; `docs/reference.md` is tested against them.

More than 300 lines: one table.
"""

import os
from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from runglass.config.address import NOT_SHOWN, is_nats, is_postgres, is_well_formed, shown_address
from runglass.errors import RunglassError


class SettingsError(RunglassError):
    """A setting has an unfit value; the message has its name, its source and the values that fit."""


class Price(msgspec.Struct, frozen=True):
    """US dollars per million tokens. `cached_input_per_mtok` defaults to the input price."""

    input_per_mtok: Decimal
    output_per_mtok: Decimal
    cached_input_per_mtok: Decimal | None = None


LONGEST_S, LONGEST_H = 1e10, 1e6
"""Of durations that are added to a time of day: with three centuries more there still is such a time."""
HEARD_S = 2.0
"""The least time for which a result waits in the store for a caller whose run has waited for its slot."""
FOLLOWED_S = 10.0
"""The least time for which content waits in a PostgreSQL for a server whose caller is owed it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of each setting."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 picks a free one")] = 8080
    metrics_host: Annotated[
        str, Meta(description="address on which `/metrics`, `/health` and `/ready` answer without a key")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(description="port of `/metrics`; 0 picks a free one. By default none"),
    ] = None
    data: Annotated[Path, Meta(description="folder of the database")] = Path("runglass-data")
    flows: Annotated[
        Path | None, Meta(description="folder of flow files `ORG/PROJECT/*.yaml`, published when they change")
    ] = None
    store: Annotated[
        str | None,
        Meta(
            description="`sqlite:///path`, or `postgresql://user@host/database`, which processes share; by"
            " default `runglass.db` in `data`"
        ),
    ] = None
    bus: Annotated[
        str | None,
        Meta(
            description="how processes wake each other: `nats://user:password@host:4222`, `tls://…`, or,"
            " past a pooler, `postgresql://…`; `memory://` for no wake-ups. By default the store's"
        ),
    ] = None
    synchronous: Annotated[
        Literal["FULL", "NORMAL"],
        Meta(
            description="what an acknowledged event survives: FULL a power cut, NORMAL a crash of the process"
        ),
    ] = "FULL"
    body_limit_bytes: Annotated[int, Meta(ge=1024, description="largest request body")] = 10_000_000
    import_limit_bytes: Annotated[int, Meta(ge=1024, description="largest import file")] = 256 << 20
    otlp_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest request with traces or logs, decompressed")
    ] = 16 << 20
    otlp_grpc: Annotated[
        Annotated[str, Meta(pattern=r"^.+:\d{1,5}$")] | None,
        Meta(
            description="`HOST:PORT` to receive traces over gRPC, as in `127.0.0.1:4317`. By default"
            " none; needs the extra `grpc`"
        ),
    ] = None
    rate_limit_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="requests per minute of a key, per server; by default unlimited"),
    ] = None
    capture: Annotated[
        Literal["off", "metadata_only", "redacted", "full"],
        Meta(description="capture mode, unless the flow or project sets one"),
    ] = "metadata_only"
    capture_failed: Annotated[
        Literal["off", "redacted", "full"],
        Meta(
            description="how to keep outputs of failed runs under `metadata_only`, unless the flow or"
            " project sets it"
        ),
    ] = "off"
    capture_sample: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of runs to keep in full, as with `trace`, unless the flow or project sets it",
        ),
    ] = 0.0
    retention_days: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="days after which ended runs are deleted, unless the flow or project sets it; by"
            " default never"
        ),
    ] = None
    content_retention_days: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="days after which inputs, outputs and other content of ended runs are deleted,"
            " unless the flow or project sets it; by default with the run"
        ),
    ] = None
    snapshot_limit_bytes: Annotated[
        int, Meta(ge=256, description="a larger snapshot is cut to this size")
    ] = 262_144
    redact_keys: Annotated[list[str], Meta(description="more object keys whose values are redacted")] = []
    redact_patterns: Annotated[list[str], Meta(description="more regular expressions to redact")] = []
    code_time_limit_ms: Annotated[
        int, Meta(ge=1, description="time limit of a code step or an expression")
    ] = 5000
    code_memory_limit_bytes: Annotated[
        int, Meta(ge=1 << 20, description="memory limit of a code step or an expression")
    ] = 64 << 20
    providers: Annotated[
        dict[str, str],
        Meta(description="base URL of an OpenAI-compatible server per provider name, as in `local:model`"),
    ] = {}
    provider_keys: Annotated[
        dict[str, str],
        Meta(description="API key per provider name; by default the provider's own environment variable"),
    ] = {}
    prices: Annotated[
        dict[str, Price],
        Meta(
            description="price per model string, overriding the built-in list: US dollars per million tokens"
        ),
    ] = {}
    pause_limit_h: Annotated[
        float, Meta(gt=0, le=LONGEST_H, description="hours after which a paused run is cancelled")
    ] = 24.0
    answer_ttl_s: Annotated[
        float,
        Meta(
            ge=0,
            le=LONGEST_S,
            description="seconds for which a run's result is kept for its caller after the run's end; at"
            " least 2, on PostgreSQL 10",
        ),
    ] = 3600.0
    crash_retries: Annotated[
        int, Meta(ge=0, description="how often a step is retried because its process died")
    ] = 3
    stop_grace_s: Annotated[
        float,
        Meta(
            ge=0, description="seconds that active steps have when the server stops; their runs resume later"
        ),
    ] = 10.0
    lease_s: Annotated[
        float,
        Meta(
            gt=0,
            le=LONGEST_S,
            description="seconds after which other processes resume the runs of a dead one",
        ),
    ] = 10.0
    executes_runs: Annotated[
        bool,
        Meta(
            description="whether the server executes runs; false leaves them to other processes on the"
            " same PostgreSQL"
        ),
    ] = True
    max_concurrent_runs: Annotated[
        int,
        Meta(
            ge=1,
            description="active runs of a process; paused ones do not count. Others wait, unless their"
            " project has less than its equal share of this number",
        ),
    ] = 1000
    max_queued_runs: Annotated[
        int,
        Meta(
            ge=0,
            description="runs that may wait for a slot; further calls get 503, unless their project has"
            " less than its equal share of this number",
        ),
    ] = 10_000
    ping_s: Annotated[float, Meta(gt=0, description="seconds of silence on a stream before a ping")] = 15.0
    tail_poll_s: Annotated[
        float, Meta(gt=0, description="seconds after which a tail polls the store without a wake-up")
    ] = 2.0
    project_rate_limit_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="requests per minute of all keys of a project, per server; by default unlimited"),
    ] = None
    max_keys_per_project: Annotated[
        int, Meta(ge=1, description="maximum number of a project's keys, revoked ones aside")
    ] = 1000
    default_max_tokens: Annotated[
        int,
        Meta(
            ge=1,
            description="`max_tokens` of a model call on a budget whose step sets none; without a limit the"
            " cost cannot be bounded",
        ),
    ] = 4096
    # No image counts as more in the price lists in use, high resolution in small models included.
    image_tokens: Annotated[
        int, Meta(ge=0, description="tokens reserved for an image of a call on a budget")
    ] = 50_000
    answer_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest response of a provider; a larger one fails its step")
    ] = 16 << 20
    answer_idle_limit_s: Annotated[
        float, Meta(gt=0, description="seconds for which a provider's response may pause")
    ] = 120.0
    allowed_models: Annotated[
        list[str] | None,
        Meta(
            description="patterns, such as `openai:*`, of models that a `run` key may override with, unless"
            " its project has a list; by default the models in the project's published flows"
        ),
    ] = None
    allowed_settings: Annotated[
        dict[str, list[str]],
        Meta(
            description="more names of a step's `settings`, per provider or for `*`, that may be sent:"
            " `openai_store`, `extra_body.FIELD`, `extra_headers.NAME`"
        ),
    ] = {}
    head_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest head of a request: first line and headers")
    ] = 65_536
    head_time_limit_s: Annotated[
        float, Meta(gt=0, description="seconds within which the head of a request must be complete")
    ] = 10.0
    body_time_limit_s: Annotated[
        float,
        Meta(
            gt=0,
            description="seconds for the body of a request, plus one per `min_body_bytes_per_s` received",
        ),
    ] = 60.0
    min_body_bytes_per_s: Annotated[
        int, Meta(ge=1, description="bytes of a body that add a second to `body_time_limit_s`")
    ] = 1024
    keep_alive_s: Annotated[
        int, Meta(ge=1, description="seconds for which an idle connection is kept open")
    ] = 60
    stalled_write_limit_s: Annotated[
        float,
        Meta(gt=0, description="seconds after which a caller that reads nothing of its response is dropped"),
    ] = 60.0
    max_connections: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="connections with a request in progress, except `/health`; by default what the file"
            " descriptors allow, up to 20,000"
        ),
    ] = None
    flow_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest flow file, in characters, and largest overrides of a call")
    ] = 1 << 20
    schema_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest JSON Schema of a flow or of a call's overrides")
    ] = 256 * 1024
    body_values_limit: Annotated[
        int,
        Meta(ge=1000, description="JSON values that a body may have; rows and exponents count as several"),
    ] = 2_000_000
    check_time_limit_ms: Annotated[
        int, Meta(ge=1, description="CPU time limit of checking a request or a model's answer")
    ] = 1000
    flow_check_time_limit_ms: Annotated[
        int, Meta(ge=1, description="CPU time limit of checking a pushed flow file")
    ] = 20_000
    check_memory_limit_bytes: Annotated[
        int, Meta(ge=256 << 20, description="memory limit of a process that checks what callers send")
    ] = 640 << 20
    redaction_time_limit_ms: Annotated[
        int,
        Meta(
            ge=1,
            description="CPU time limit of redacting a large value, per megabyte; what takes longer is not"
            " kept",
        ),
    ] = 4000
    redaction_memory_limit_bytes: Annotated[
        int,
        Meta(
            ge=256 << 20,
            description="memory limit of a process that redacts large values; what takes more is not kept",
        ),
    ] = 1 << 30
    cache_limit_bytes: Annotated[
        int, Meta(ge=0, description="approximate memory for compiled schemas, decoded flows and the like")
    ] = 64 << 20
    stall_log_ms: Annotated[
        int, Meta(ge=1, description="shortest stall of the event loop that is logged with its cause")
    ] = 100
    max_concurrent_runs_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="active runs of a project, in all processes on the store; by default unlimited"),
    ] = None
    max_concurrent_runs_per_flow: Annotated[
        dict[str, Annotated[int, Meta(ge=1)]],
        Meta(description="active runs per flow, as in `acme/demo/greet`, in all processes on the store"),
    ] = {}
    max_queued_runs_per_project: Annotated[
        Annotated[int, Meta(ge=0)] | None, Meta(description="waiting runs of a project; by default unlimited")
    ] = None
    max_concurrent_steps_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="processes for code that a project may use at once, and as many for templates; by"
            " default two per processor"
        ),
    ] = None
    max_concurrent_model_calls_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="concurrent model calls of a project; by default unlimited"),
    ] = None
    max_streams_per_project: Annotated[
        int,
        Meta(ge=1, description="open event streams and blocking calls of a project; further ones get 429"),
    ] = 10_000
    project_weights: Annotated[
        dict[str, Annotated[float, Meta(gt=0)]],
        Meta(description="weight of a project, as in `acme/demo`, read at the start; by default 1"),
    ] = {}
    run_iterations: Annotated[int, Meta(ge=1, description="iterations of all loops of a run")] = 250_000
    run_output_bytes: Annotated[
        int, Meta(ge=1024, description="outputs of steps, as JSON, that a run may keep for later steps")
    ] = 256 << 20
    run_log_bytes: Annotated[
        int, Meta(ge=1024, description="events and steps that a run may record; then it fails")
    ] = 1 << 30
    project_data_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="bytes of a project's runs in the store; beyond that new runs get 503 until others"
            " are deleted",
        ),
    ] = 100 << 30
    run_memory_bytes: Annotated[
        int,
        Meta(ge=0, description="outputs, as JSON, that a run holds in memory; older ones are in the store"),
    ] = 8 << 20
    memory_limit_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            description="outputs and large inputs that all runs hold in memory; further steps or starts"
            " fail, and steps that decode more than that at once wait. Beside it large bodies of requests may"
            " fill a quarter as much, those of one project an eighth",
        ),
    ] = 1 << 30
    recording_settle_s: Annotated[
        float,
        Meta(
            ge=0,
            le=LONGEST_S,
            description="seconds without a new span after which a recorded run ends if all its spans have"
            " ended",
        ),
    ] = 60.0
    recording_idle_s: Annotated[
        float,
        Meta(
            ge=0,
            le=LONGEST_S,
            description="seconds without a new span after which a recorded run ends in any case; a"
            " span still open fails with WRITER_LOST",
        ),
    ] = 900.0
    max_recorded_flows_per_project: Annotated[
        int, Meta(ge=1, description="flows of a project's recorded runs; runs of further ones go to `otel`")
    ] = 1000
    plain_retention_days: Annotated[
        float,
        Meta(
            ge=0,
            description="days after which ended plain runs (recorded, without generative AI) are deleted",
        ),
    ] = 1.0
    otlp_endpoint: Annotated[
        str | None,
        Meta(
            description="receiver of ended runs as OpenTelemetry spans: the URL before `/v1/traces`, as in"
            " `http://localhost:4318`. By default none"
        ),
    ] = None
    otlp_headers: Annotated[
        dict[str, str], Meta(description="headers of requests to `otlp_endpoint`, such as its key")
    ] = {}
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="minimum level of log messages")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="text, or one JSON object per line, with the ids of request and run"),
    ] = "text"

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        # An URL, too, may hold a key.
        for name in ("provider_keys", "providers", "otlp_headers"):
            shown[name] = dict.fromkeys(shown[name], "…")
        shown["otlp_endpoint"] = None if self.otlp_endpoint is None else "…"
        shown["store"] = None if self.store is None else shown_address(self.store)
        shown["bus"] = None if self.bus is None else shown_address(self.bus)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def postgres(self) -> str | None:
        """Address of the PostgreSQL database, None for a store of another kind. Raises SettingsError."""
        if self.store is None or not is_postgres(self.store):
            return None
        if not is_well_formed(self.store):
            message = f"store is no address as postgresql://user:password@host:5432/database {NOT_SHOWN}"
            raise SettingsError(message)
        return self.store

    @property
    def bus_address(self) -> str | None:
        """Address of what carries wake-ups between processes, None for nothing. Raises SettingsError."""
        if self.bus is None:
            return self.postgres
        if self.bus == "memory://":
            return None
        if is_nats(self.bus):
            return self.bus
        if not is_postgres(self.bus):
            raise SettingsError("bus is of no known kind; use nats://host:4222, postgresql://… or memory://")
        if self.postgres is None:
            raise SettingsError(
                "bus is a PostgreSQL and store is not; leave bus out, or use nats://host:4222"
            )
        if not is_well_formed(self.bus):
            raise SettingsError("bus is no address as postgresql://user:password@host:5432/database")
        return self.bus

    @property
    def spans_url(self) -> str | None:
        """The URL that takes spans, None where none are sent. Raises SettingsError."""
        if self.otlp_endpoint is None:
            return None
        try:
            parts = urlsplit(self.otlp_endpoint)
            is_url = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
            is_url = is_url and parts.username is None and not parts.query and not parts.fragment
        except ValueError:
            is_url = False
        if not is_url:
            raise SettingsError(
                "otlp_endpoint is no URL as http://localhost:4318, without user, query and fragment; a key"
                " goes into otlp_headers"
            )
        return f"{self.otlp_endpoint.rstrip('/').removesuffix('/v1/traces')}/v1/traces"

    @property
    def kept_for_callers_s(self) -> float:
        """How long after a run's end its result is kept: its caller's server may hear of the end late."""
        return max(self.answer_ttl_s, HEARD_S if self.postgres is None else FOLLOWED_S)

    @property
    def database(self) -> Path:
        """Path of the SQLite file, behind a link to it. Raises SettingsError for a store of another kind."""
        store = f"sqlite:///{self.data / 'runglass.db'}" if self.store is None else self.store
        scheme, _, path = store.partition(":///")
        if scheme != "sqlite" or path in ("", ":memory:"):
            raise SettingsError(
                f"store {shown_address(store)!r} is not supported here; use sqlite:///path or"
                " postgresql://user@host/database"
            )
        database = Path(path)
        if database.is_symlink():
            # The lock is beside the file: beside a link to it, a second process would not see it.
            database = Path(os.path.realpath(database))
            if database.is_symlink():
                raise SettingsError(f"the database {path!r} cannot be found: its links lead in a loop")
        return database

    @property
    def store_name(self) -> str:
        """The SQLite file or the PostgreSQL database, for messages. Raises SettingsError."""
        return str(self.database) if self.postgres is None else shown_address(self.postgres)


USUAL = Settings()
"""What holds where nothing is set."""
