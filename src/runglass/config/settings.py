"""Every setting of Runglass.

A setting `data` is the flag `--data`, the variable `RUNGLASS_DATA` and the key `data` of the file. The
descriptions below are the documentation; `docs/reference.md` is tested against them.

More than 300 lines: one table.
"""

from decimal import Decimal
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

import msgspec
from msgspec import Meta

from runglass.config.address import is_nats, is_postgres, is_well_formed, shown_address
from runglass.errors import RunglassError


class SettingsError(RunglassError):
    """A setting has an unfit value; the message has its name, its source and the values that fit."""


class Price(msgspec.Struct, frozen=True):
    """US dollars per million tokens. `cached_input_per_mtok` defaults to the input price."""

    input_per_mtok: Decimal
    output_per_mtok: Decimal
    cached_input_per_mtok: Decimal | None = None


HEARD_S = 2.0
"""The least time for which a result waits in the store for a caller whose run has waited for its slot."""
FOLLOWED_S = 10.0
"""The least time for which content waits in a PostgreSQL for a server whose caller is owed it."""


class Settings(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """One value of each setting."""

    host: Annotated[str, Meta(description="address to listen on")] = "127.0.0.1"
    port: Annotated[int, Meta(ge=0, le=65535, description="port to listen on; 0 takes a free one")] = 8080
    metrics_host: Annotated[
        str, Meta(description="address on which `/metrics`, `/health` and `/ready` answer without a key")
    ] = "127.0.0.1"
    metrics_port: Annotated[
        Annotated[int, Meta(ge=0, le=65535)] | None,
        Meta(
            description="port of `/metrics`; 0 takes a free one. By default none, and there is no `/metrics`"
        ),
    ] = None
    data: Annotated[Path, Meta(description="folder of the database")] = Path("runglass-data")
    flows: Annotated[
        Path | None, Meta(description="folder of flow files that are published when they change")
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
            " past a pooler, `postgresql://…`; `memory://` for not at all. By default what the store brings"
        ),
    ] = None
    synchronous: Annotated[
        Literal["FULL", "NORMAL"],
        Meta(
            description="what an acknowledged event survives: FULL a power cut, NORMAL a crash of the process"
        ),
    ] = "FULL"
    body_limit_bytes: Annotated[int, Meta(ge=1024, description="largest request body")] = 10_000_000
    import_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest file with a run that can be imported")
    ] = 256 << 20
    otlp_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest request with traces or logs, once it is decompressed")
    ] = 16 << 20
    otlp_grpc: Annotated[
        Annotated[str, Meta(pattern=r"^.+:\d{1,5}$")] | None,
        Meta(
            description="`HOST:PORT` on which traces are taken over gRPC, as in `127.0.0.1:4317`. By default"
            " none; needs the extra `grpc`"
        ),
    ] = None
    rate_limit_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="requests that one key may make in a minute, counted per server; by default any"),
    ] = None
    capture: Annotated[
        Literal["off", "metadata_only", "redacted", "full"],
        Meta(description="capture mode where neither flow nor project sets one"),
    ] = "metadata_only"
    capture_failed: Annotated[
        Literal["off", "redacted", "full"],
        Meta(
            description="how outputs are kept of runs that fail, under `metadata_only`, where neither flow"
            " nor project says"
        ),
    ] = "off"
    capture_sample: Annotated[
        float,
        Meta(
            ge=0,
            le=1,
            description="share of runs that are kept whole, as with `trace`, where neither flow nor project"
            " says",
        ),
    ] = 0.0
    retention_days: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="days after their end for which runs are kept, where neither flow nor project says;"
            " by default for ever"
        ),
    ] = None
    content_retention_days: Annotated[
        Annotated[float, Meta(ge=0)] | None,
        Meta(
            description="days after their end for which runs keep inputs, outputs and other content, where"
            " neither flow nor project says; by default as long as the run"
        ),
    ] = None
    snapshot_limit_bytes: Annotated[
        int, Meta(ge=256, description="a larger snapshot is cut to this size")
    ] = 262_144
    redact_keys: Annotated[list[str], Meta(description="further object keys whose values are redacted")] = []
    redact_patterns: Annotated[
        list[str], Meta(description="further regular expressions that are redacted")
    ] = []
    code_time_limit_ms: Annotated[
        int, Meta(ge=1, description="time that a code step or an expression may take")
    ] = 5000
    code_memory_limit_bytes: Annotated[
        int, Meta(ge=1 << 20, description="memory that a code step or an expression may take")
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
        Meta(description="price per model string, over the built-in list: US dollars per million tokens"),
    ] = {}
    pause_limit_h: Annotated[
        float, Meta(gt=0, description="hours after which a paused run is cancelled unless it is resumed")
    ] = 24.0
    answer_ttl_s: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds after a run's end for which its result is kept for its caller, who may ask"
            " for a job's or repeat a call; no less than 2, and on PostgreSQL than 10",
        ),
    ] = 3600.0
    crash_retries: Annotated[
        int, Meta(ge=0, description="how often a step is tried again because its process died")
    ] = 3
    stop_grace_s: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds that steps may take to end when the server stops; runs then go on later",
        ),
    ] = 10.0
    lease_s: Annotated[
        float,
        Meta(gt=0, description="seconds after which others go on with the runs of a process that is gone"),
    ] = 10.0
    executes_runs: Annotated[
        bool,
        Meta(
            description="whether the server executes runs itself; false leaves them to other processes on the"
            " same PostgreSQL"
        ),
    ] = True
    max_concurrent_runs: Annotated[
        int,
        Meta(
            ge=1,
            description="runs that go on at once in one process; paused ones do not count, further ones wait,"
            " but for those of a project that has less than its equal share of this number",
        ),
    ] = 1000
    max_queued_runs: Annotated[
        int,
        Meta(
            ge=0,
            description="runs that may wait for a slot; a call beyond that is answered with 503, unless its"
            " project has less than its equal share of this number",
        ),
    ] = 10_000
    ping_s: Annotated[float, Meta(gt=0, description="seconds of silence on a stream before a ping")] = 15.0
    tail_poll_s: Annotated[
        float, Meta(gt=0, description="seconds after which a tail reads the store even without a wake-up")
    ] = 2.0
    project_rate_limit_per_minute: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="requests that all keys of a project may make in a minute together, counted per"
            " server; by default any"
        ),
    ] = None
    max_keys_per_project: Annotated[
        int, Meta(ge=1, description="keys that a project may have; revoked ones do not count")
    ] = 1000
    default_max_tokens: Annotated[
        int,
        Meta(
            ge=1,
            description="`max_tokens` of a model call on a budget whose step sets none: without a limit of"
            " its answer nobody can say what a call may cost",
        ),
    ] = 4096
    image_tokens: Annotated[
        int, Meta(ge=0, description="tokens that an image is taken for where a call on a budget is reserved")
    ] = 50_000
    answer_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest answer of a provider; a larger one fails its step")
    ] = 16 << 20
    answer_idle_limit_s: Annotated[
        float,
        Meta(gt=0, description="seconds for which a provider may send nothing once its answer has begun"),
    ] = 120.0
    allowed_models: Annotated[
        list[str] | None,
        Meta(
            description="patterns, such as `openai:*`, of the models that a `run` key may set, where its"
            " project has no list of its own; by default those that the project's published flows name"
        ),
    ] = None
    allowed_settings: Annotated[
        dict[str, list[str]],
        Meta(
            description="further names of a step's `settings` per provider, or for `*`, that may be sent:"
            " `openai_store`, `extra_body.FIELD`, `extra_headers.NAME`"
        ),
    ] = {}
    head_limit_bytes: Annotated[
        int, Meta(ge=1024, description="largest head of a request: its first line and its headers together")
    ] = 65_536
    url_limit_bytes: Annotated[int, Meta(ge=256, description="longest URL of a request")] = 16_384
    header_count_limit: Annotated[int, Meta(ge=8, description="headers that a request may have")] = 100
    head_time_limit_s: Annotated[
        float, Meta(gt=0, description="seconds in which the head of a request must be complete")
    ] = 10.0
    body_time_limit_s: Annotated[
        float,
        Meta(
            gt=0,
            description="seconds that the body of a request may take, and one more for each"
            " `min_body_bytes_per_s` that have come",
        ),
    ] = 60.0
    min_body_bytes_per_s: Annotated[
        int, Meta(ge=1, description="bytes of a body that give it a second more; see `body_time_limit_s`")
    ] = 1024
    keep_alive_s: Annotated[
        int, Meta(ge=1, description="seconds for which a connection without a request is kept open")
    ] = 60
    stalled_write_limit_s: Annotated[
        float,
        Meta(gt=0, description="seconds after which a caller that takes nothing of its answer is dropped"),
    ] = 60.0
    max_connections: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="connections with a request under way, `/health` aside; by default what the limit of"
            " file descriptors allows, up to 20,000"
        ),
    ] = None
    max_connections_per_address: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="the same for one address (IPv6: one /64 network); by default nine tenths of"
            " `max_connections`. Behind a proxy all callers have its address"
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
        Meta(
            ge=1000,
            description="JSON values that a body may have; rows and exponents count as several",
        ),
    ] = 2_000_000
    check_time_limit_ms: Annotated[
        int,
        Meta(
            ge=1,
            description="time of the processor that checking one request, or one answer of a model, may take",
        ),
    ] = 1000
    flow_check_time_limit_ms: Annotated[
        int, Meta(ge=1, description="time of the processor that checking a pushed flow file may take")
    ] = 20_000
    check_memory_limit_bytes: Annotated[
        int, Meta(ge=256 << 20, description="memory of a process that checks what callers send")
    ] = 640 << 20
    redaction_time_limit_ms: Annotated[
        int,
        Meta(
            ge=1,
            description="time of the processor that redacting a large value may take for each megabyte of it;"
            " what takes longer is not kept",
        ),
    ] = 4000
    redaction_memory_limit_bytes: Annotated[
        int,
        Meta(
            ge=256 << 20,
            description="memory of a process that redacts large values; what takes more is not kept",
        ),
    ] = 1 << 30
    cache_limit_bytes: Annotated[
        int, Meta(ge=0, description="what compiled schemas, decoded flows and the like may take, about")
    ] = 64 << 20
    stall_log_ms: Annotated[
        int,
        Meta(ge=1, description="a time in which the server did nothing else that is logged with its cause"),
    ] = 100
    max_concurrent_runs_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="runs of one project that go on at once, in all processes on the store together; by"
            " default all that may"
        ),
    ] = None
    max_concurrent_runs_per_flow: Annotated[
        dict[str, Annotated[int, Meta(ge=1)]],
        Meta(
            description="runs of a flow, as in `acme/demo/greet`, that go on at once, in all processes on the"
            " store together"
        ),
    ] = {}
    max_queued_runs_per_project: Annotated[
        Annotated[int, Meta(ge=0)] | None,
        Meta(description="runs of one project that may wait for a slot; by default all that may"),
    ] = None
    max_concurrent_steps_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(
            description="processes for code that one project may use at once, and as many for templates; by"
            " default two for each processor"
        ),
    ] = None
    max_concurrent_model_calls_per_project: Annotated[
        Annotated[int, Meta(ge=1)] | None,
        Meta(description="model calls of one project that go on at once, further ones wait; by default any"),
    ] = None
    max_streams_per_project: Annotated[
        int,
        Meta(
            ge=1,
            description="event streams and blocking calls that one project may have open; one more is"
            " answered with 429",
        ),
    ] = 10_000
    project_weights: Annotated[
        dict[str, Annotated[float, Meta(gt=0)]],
        Meta(
            description="share of a project, as in `acme/demo`, beside others, read at the start; 1 where it"
            " is not told"
        ),
    ] = {}
    run_iterations: Annotated[
        int, Meta(ge=1, description="iterations that all loops of one run may make together")
    ] = 250_000
    run_output_bytes: Annotated[
        int, Meta(ge=1024, description="outputs of steps, as JSON, that one run may keep to go on with")
    ] = 256 << 20
    run_log_bytes: Annotated[
        int, Meta(ge=1024, description="events and steps that one run may record; then it is ended as failed")
    ] = 1 << 30
    project_data_bytes: Annotated[
        int,
        Meta(
            ge=1024,
            description="what the runs of one project may take in the store; a start beyond that is answered"
            " with 503 until runs are deleted, by hand or by `retention_days`",
        ),
    ] = 100 << 30
    run_memory_bytes: Annotated[
        int,
        Meta(ge=0, description="outputs, as JSON, that one run holds in memory; older ones are in the store"),
    ] = 8 << 20
    memory_limit_bytes: Annotated[
        int,
        Meta(
            ge=1 << 20,
            description="outputs and large inputs that all runs hold in memory; a step or start beyond that"
            " fails. Steps that decode more than that at once wait for each other",
        ),
    ] = 1 << 30
    recording_settle_s: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds without a further span after which a recorded run has ended whose spans have"
            " all ended",
        ),
    ] = 60.0
    recording_idle_s: Annotated[
        float,
        Meta(
            ge=0,
            description="seconds without a further span after which a recorded run has ended in any case; a"
            " span that is open then has failed with WRITER_LOST",
        ),
    ] = 900.0
    max_recorded_flows_per_project: Annotated[
        int,
        Meta(ge=1, description="flows for recorded runs of one project; runs of further ones go to `otel`"),
    ] = 1000
    plain_retention_days: Annotated[
        float,
        Meta(
            ge=0, description="days after their end for which recorded runs are kept without any span of AI"
        ),
    ] = 1.0
    otlp_endpoint: Annotated[
        str | None,
        Meta(
            description="where runs that have ended are sent on as OpenTelemetry spans: the URL before"
            " `/v1/traces`, as in `http://localhost:4318`. By default nowhere"
        ),
    ] = None
    otlp_headers: Annotated[
        dict[str, str], Meta(description="headers of the requests to `otlp_endpoint`, as for its key")
    ] = {}
    log_level: Annotated[
        Literal["debug", "info", "warning", "error"], Meta(description="least severe message that is logged")
    ] = "info"
    log_format: Annotated[
        Literal["text", "json"],
        Meta(description="lines of text, or a JSON object on each line, with the ids of request and run"),
    ] = "text"

    def __repr__(self) -> str:
        shown = {name: getattr(self, name) for name in self.__struct_fields__}
        shown["provider_keys"] = dict.fromkeys(self.provider_keys, "…")
        shown["otlp_headers"] = dict.fromkeys(self.otlp_headers, "…")
        shown["store"] = None if self.store is None else shown_address(self.store)
        shown["bus"] = None if self.bus is None else shown_address(self.bus)
        return f"Settings({', '.join(f'{name}={value!r}' for name, value in shown.items())})"

    @property
    def postgres(self) -> str | None:
        """Address of the PostgreSQL database, None for a store of another kind. Raises SettingsError."""
        if self.store is None or not is_postgres(self.store):
            return None
        if not is_well_formed(self.store):
            raise SettingsError(
                "store is no address as postgresql://user:password@host:5432/database (it is not shown here,"
                " as it may hold a password); in user and password write / as %2F, @ as %40, : as %3A,"
                " ? as %3F, # as %23 and % as %25"
            )
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
        """Path of the SQLite file. Raises SettingsError for a store of another kind."""
        if self.store is None:
            return self.data / "runglass.db"
        scheme, _, path = self.store.partition(":///")
        if scheme != "sqlite" or not path:
            shown = shown_address(self.store)
            raise SettingsError(
                f"store {shown!r} is not supported here; use sqlite:///path or postgresql://user@host/database"
            )
        return Path(path)

    @property
    def store_name(self) -> str:
        """The SQLite file or the PostgreSQL database, for messages. Raises SettingsError."""
        return str(self.database) if self.postgres is None else shown_address(self.postgres)
