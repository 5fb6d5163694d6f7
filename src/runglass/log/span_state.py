"""What is known of one span of another program: the content of a `step_recorded` event.

`docs/spec/recording.md` says what each field means and how two states of one span become one. Plain data,
with nothing of any dialect: what an emitter calls things is known to `recording/dialects`.
"""

from typing import Literal

from runglass.log.trace import ModelCall, TokenBreakdown
from runglass.support.lazy_json import Json, JsonList, LazyStruct, decode_when_read

SpanKind = Literal["llm", "tool", "retrieval", "embedding", "agent", "chain", "code", "guardrail", "other"]
NO_CODE = "ERROR"
"""The code of an error whose sender has told none."""


class SpanState(LazyStruct, frozen=True, kw_only=True, eq=False):
    """The merged state of one span, of all that was received of it.

    Ids are hexadecimal, times decimal texts of nanoseconds since 1970, None where not known. `name` is None
    as long as only logs of the span have come. `status` is the sender's: `unset`, `ok` or `error`.
    `model_calls` has one call at most. `tokens` and `cost_usd` are the usage that the span itself tells, of
    its model call or of all that is inside; `model_used` is the model of that. `entry_name` is there for the
    span of an agent or a workflow. `is_gen_ai` says that an instrumentation of generative AI has made it.
    As long as the span is open, its sender is to be heard of every `lease_s`. Once one without a parent has
    ended, its sender expects nothing more of the trace after `settle_s`.
    """

    span_id: str
    parent_span_id: str | None = None
    name: str | None = None
    kind: SpanKind = "other"
    is_gen_ai: bool = False
    entry_name: str | None = None
    start_time_unix_nano: str | None = None
    end_time_unix_nano: str | None = None
    status: Literal["unset", "ok", "error"] = "unset"
    error: Json = None
    input: Json = None
    output: Json = None
    input_size_bytes: int | None = None
    output_size_bytes: int | None = None
    truncated: bool = False
    tokens: TokenBreakdown | None = None
    cost_usd: str | None = None
    model_used: str | None = None
    model_calls: tuple[ModelCall, ...] = ()
    session: str | None = None
    user: str | None = None
    tags: tuple[str, ...] = ()
    service: str | None = None
    release: str | None = None
    environment: str | None = None
    scope: str | None = None
    resource: Json = None
    attributes: Json = None
    events: JsonList = None
    links: JsonList = None
    notes: tuple[str, ...] = ()
    lease_s: int | None = None
    settle_s: int | None = None

    def __hash__(self) -> int:
        return hash((self.span_id, self.name, self.start_time_unix_nano, self.end_time_unix_nano))


decode_when_read(SpanState, ("error", "input", "output", "resource", "attributes", "events", "links"))
