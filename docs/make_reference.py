"""Writes `reference.md` from the code: every setting, command, exit code, event and error code.

Run `make reference` after a change; a test fails while the page does not match the code.
"""

import inspect
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import get_args, get_type_hints

import click
import msgspec

from runglass.cli.app import COMPLETION, app
from runglass.cli.exit_codes import MEANINGS
from runglass.cli.options import summary
from runglass.client import Flow
from runglass.config.reader import CLIENT_VARIABLES, PREFIX
from runglass.config.settings import Price, Settings
from runglass.engine.steps import attempt_runner
from runglass.engine.workers import code_transform, sandbox, template_worker
from runglass.errors import CODES, STEP_CODES, exception_for
from runglass.flows import parser as flow_parser
from runglass.flows.schemas import defaults
from runglass.log.events import KnownEvent
from runglass.run_files import file_reader
from runglass.server.endpoints import ENDPOINTS
from runglass.server.requests import attachments, body_parsing, messages, tools
from runglass.server.requests.parameters import MAX_KEY
from runglass.wire.run_api import ExecuteRequest

PAGE = Path(__file__).with_name("reference.md")


def page() -> str:
    """The whole page as Markdown."""
    parts = [
        "# Reference\n\nThis page is written by `make reference` from the code; a test holds it to it.",
        "## Settings\n\nA setting is a flag of `runglass serve` (if the list of commands has one), an"
        " environment variable, or a key in `runglass.toml` in the current folder. The first of these wins,"
        " and a flag `--data` also over a `store` of the variable or the file. In a variable, lists and"
        " tables are JSON.",
        table(["setting", "variable", "default", "meaning"], settings()),
        "Clients and terminal commands also read:",
        table(["variable", "meaning"], [(f"`{name}`", text) for name, text in CLIENT_VARIABLES.items()]),
        "Other variables that begin with `RUNGLASS_` cause a warning, unless Kubernetes sets them for a"
        " service called `runglass`. An unknown key in the file, or an invalid value anywhere, stops the"
        " command.",
        "### Prices\n\n`prices` gives US dollars per million tokens for a model string, overriding the"
        " built-in list. Numbers may be text, which keeps every digit.",
        table(["field", "type", "default"], prices()),
        PRICE_EXAMPLES,
        "## Limits\n\nWhat is larger is rejected, or fails its step, with the code in the last column.",
        table(["limit", "value", "beyond it"], limits()),
        "## Running a flow from Python\n\n`flow.execute(…)`, of `Client` and `AsyncClient`, takes these by"
        " name only; `execute_async`, `steps` and `events` take those that concern them.",
        table(["argument", "type", "default", "in the request"], arguments()),
        PARAMETERS,
        "## Commands\n\n`runglass COMMAND --help` says more. Tab completes commands, options and values after"
        " this line in the shell's start file:",
        completion(),
        "In the options, "
        + "; ".join(f"{kind} stands for {', '.join(names)}" for kind, names in shared())
        + ".",
        table(["command", "what it does", "options"], commands()),
        "## HTTP endpoints\n\n`/docs` of a running server describes each, with bodies and responses, and"
        " `/docs/openapi.json` as OpenAPI. A key is sent as `Authorization: Bearer nk_…`; `role` is the least"
        " one that is allowed. " + " ".join(aliased()),
        table(["endpoint", "role", "what it does", "query", "headers"], endpoints()),
        "## Exit codes",
        table(["code", "meaning"], [(f"{int(code)}", text) for code, text in MEANINGS.items()]),
        "## Events\n\nEach also has `executionId`, `seq` and `at`; *step* stands for `stepId`, `loopIndex`"
        " and `loopPath`. In Python, `step_started` is the class `StepStarted`, and so on.",
        table(["event", "meaning", "fields"], events()),
        "## Error codes of responses",
        table(["code", "meaning"], codes()),
        "## Error codes of step attempts and runs\n\nThe `code` in the error of an attempt (`error_context`)"
        " and of a failed run.",
        table(["code", "meaning"], [(f"`{code}`", text) for code, text in STEP_CODES.items()]),
    ]
    return "\n\n".join(parts) + "\n"


SHARED_OPTIONS = {
    "*project*": ("--data", "--store", "--base-url", "--api-key", "--project"),
    "*server*": ("--data", "--store", "--base-url", "--api-key"),
    "*store*": ("--data", "--store"),
}
"""Options that many commands share, the most first."""

API = "/api/v1"
ALIASES = {
    f"{API}/flow-runs/{{execution_id}}": [f"{API}/seq/{{org}}/{{project}}/{{slug}}/runs/{{execution_id}}"],
    "/v1": ["/otel/v1", "/api/public/otel/v1", "/v1/private/otel/v1"],
}
"""Paths below which the same endpoints are, where all that a row says is the same."""


def table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return "\n".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines)


def settings() -> list[tuple[str, str, str, str]]:
    defaults = Settings()
    hints = get_type_hints(Settings, include_extras=True)
    rows = []
    for name in Settings.__struct_fields__:
        meta = next(extra for extra in hints[name].__metadata__ if isinstance(extra, msgspec.Meta))
        default = getattr(defaults, name)
        shown = "–" if default is None or default in ([], {}) else f"`{default}`"
        rows.append((f"`{name}`", f"`{PREFIX}{name.upper()}`", shown, meta.description or ""))
    return rows


PRICE_EXAMPLES = """\
In `runglass.toml`:

```toml
[prices."openai:gpt-4o-mini"]
input_per_mtok = "0.15"
output_per_mtok = "0.60"
cached_input_per_mtok = "0.075"
```

and the same in the environment:

```sh
RUNGLASS_PRICES='{"openai:gpt-4o-mini":
  {"input_per_mtok": "0.15", "output_per_mtok": "0.60", "cached_input_per_mtok": "0.075"}}'
```"""

PARAMETERS = """\
`parameters` become the run's inputs as JSON: `dict`, `list`, `tuple`, `set`, `str`, `int`, `float`, `bool`
and `None` as they are; `Decimal`, `UUID`, `datetime`, `date`, `time` and `timedelta` as text (ISO 8601),
`bytes` as Base64, an `Enum` as its value, dataclasses and msgspec structs as objects. NaN and the infinities
become null. Anything else is a `TypeError`, text with half a surrogate pair a `ValueError`, before anything
is sent.

```python
flow.execute(message="Hello", parameters={"day": date(2026, 1, 2), "limit": Decimal("1.50"), "tags": ["a"]})
```"""


def prices() -> list[tuple[str, str, str]]:
    texts = {"cached_input_per_mtok": "the input price"}
    rows = []
    for field in msgspec.structs.fields(Price):
        default = "needed" if field.required else texts[field.name]
        rows.append((f"`{field.name}`", "number or text", default))
    return rows


def limits() -> list[tuple[str, str, str]]:
    shown = Settings()
    result = shown.code_memory_limit_bytes // sandbox.RESULT_SHARE
    return [
        ("request body", f"`body_limit_bytes`: {bytes_of(shown.body_limit_bytes)}", "`REQUEST_TOO_LARGE`"),
        (
            "file with a run to import",
            f"`import_limit_bytes`: {bytes_of(shown.import_limit_bytes)}",
            "`REQUEST_TOO_LARGE`",
        ),
        (
            "request with traces or logs, decompressed",
            f"`otlp_limit_bytes`: {bytes_of(shown.otlp_limit_bytes)}",
            "`REQUEST_TOO_LARGE`",
        ),
        (
            "event of a run to import",
            bytes_of(file_reader.LARGEST_EVENT_BYTES),
            "`INVALID_REQUEST`",
        ),
        ("nesting of a request body", f"{body_parsing.MAX_DEPTH} levels", "`INVALID_REQUEST`"),
        ("`messages`", bytes_of(messages.MAX_MESSAGES_BYTES), "`MESSAGES_TOO_LARGE`"),
        ("`tools` of a call", f"{tools.MAX_TOOLS}", "`TOOLS_INVALID`"),
        (
            "rounds of tool calls in one step",
            f"{attempt_runner.MAX_TOOL_ITERATIONS}; of `execute` with a `tool_handler`: `max_tool_rounds`",
            "`TOOL_ITERATION_LIMIT`, `ToolCallLimitError`",
        ),
        ("attachments of a call", f"{attachments.MAX_ATTACHMENTS}", "`INVALID_ATTACHMENT`"),
        ("`Idempotency-Key`", f"{MAX_KEY} characters", "`INVALID_REQUEST`"),
        ("requests of a key", "`rate_limit_per_minute`: none", "`RATE_LIMITED`"),
        (
            "requests of all keys of a project",
            "`project_rate_limit_per_minute`: none",
            "`RATE_LIMITED`",
        ),
        (
            "keys of a project that are not revoked",
            f"`max_keys_per_project`: {shown.max_keys_per_project:,}",
            "`FORBIDDEN`",
        ),
        ("defaults filled into a run's inputs", bytes_of(defaults.MAX_FILLED_BYTES), "`INVALID_REQUEST`"),
        ("output of a code step", f"{bytes_of(result)}: a quarter of its memory", "`SANDBOX_LIMIT`"),
        (
            "memory of a code step or expression",
            f"`code_memory_limit_bytes`: {bytes_of(shown.code_memory_limit_bytes)}",
            "`SANDBOX_LIMIT`",
        ),
        (
            "time of a code step or expression",
            f"`code_time_limit_ms`: {shown.code_time_limit_ms:,} ms",
            "`SANDBOX_LIMIT`",
        ),
        ("code of a step", f"{code_transform.CODE_LIMIT:,} characters", "`CODE_ERROR`"),
        ("text that a template makes", f"{bytes_of(template_worker.TEXT_LIMIT)}", "`TEMPLATE_ERROR`"),
        ("iterations of a run", f"`run_iterations`: {shown.run_iterations:,}", "`RUN_LIMIT`"),
        ("outputs of a run", f"`run_output_bytes`: {bytes_of(shown.run_output_bytes)}", "`RUN_LIMIT`"),
        ("log of a run", f"`run_log_bytes`: {bytes_of(shown.run_log_bytes)}", "`RUN_LIMIT`, the run ends"),
        (
            "what runs hold in memory",
            f"`memory_limit_bytes`: {bytes_of(shown.memory_limit_bytes)}",
            "`RUN_LIMIT`, `UNAVAILABLE`",
        ),
        (
            "runs of a project in the store",
            f"`project_data_bytes`: {bytes_of(shown.project_data_bytes)}",
            "`UNAVAILABLE`",
        ),
        ("snapshot", f"`snapshot_limit_bytes`: {bytes_of(shown.snapshot_limit_bytes)}", "cut, `truncated`"),
        ("flow file", f"{shown.flow_limit_bytes:,} characters", "an error in the file"),
        ("steps of a flow", f"{flow_parser.MAX_STEPS:,}", "an error in the file"),
        ("nesting of steps", f"{flow_parser.MAX_NESTING} levels", "an error in the file"),
        ("reported errors of a flow file", f"{flow_parser.MAX_PROBLEMS:,}", "the first of them"),
    ]


def bytes_of(number: int) -> str:
    for unit, size in (("MiB", 1 << 20), ("KiB", 1 << 10)):
        if number >= size and number % size == 0:
            return f"{number // size} {unit}"
    return f"{number:,} bytes"


def arguments() -> list[tuple[str, str, str, str]]:
    sent = dict(zip(ExecuteRequest.__struct_fields__, ExecuteRequest.__struct_encode_fields__, strict=True))
    elsewhere = {"version": "the path", "session_id": "the header `X-Session-Id`"}
    rows = []
    for parameter in list(inspect.signature(Flow.execute).parameters.values())[1:]:
        kind = inspect.formatannotation(parameter.annotation)
        for module in ("collections.abc.", "typing.", "runglass.wire.run_api.", "uuid."):
            kind = kind.replace(module, "")
        place = f"`{sent[parameter.name]}`" if parameter.name in sent else elsewhere.get(parameter.name, "–")
        rows.append((f"`{parameter.name}`", f"`{kind}`", f"`{parameter.default!r}`", place))
    return rows


def completion() -> str:
    return "```\n" + "\n".join(line.strip() for line in COMPLETION.splitlines()[2:]) + "\n```"


def shared() -> Iterator[tuple[str, list[str]]]:
    for kind, names in SHARED_OPTIONS.items():
        yield kind, [f"`{name}`" for name in names]


def commands() -> list[tuple[str, str, str]]:
    return list(_commands(app, "runglass"))


def _commands(command: click.Command, path: str) -> Iterator[tuple[str, str, str]]:
    if isinstance(command, click.Group):
        for name, each in sorted(command.commands.items()):
            yield from _commands(each, f"{path} {name}")
        return
    words = [path]
    options = []
    for parameter in command.params:
        if isinstance(parameter, click.Argument):
            words.append(parameter.human_readable_name)
        else:
            options.append(max(parameter.opts, key=len))
    for kind, names in SHARED_OPTIONS.items():
        if {*names} <= {*options}:
            options = [*(each for each in options if each not in names), kind]
    shown = " ".join(each if each in SHARED_OPTIONS else f"`{each}`" for each in options)
    yield f"`{' '.join(words)}`", summary(command), shown


def events() -> list[tuple[str, str, str]]:
    rows = []
    for kind in get_args(KnownEvent):
        tag = kind.__struct_config__.tag
        assert kind.__name__ == "".join(word.title() for word in tag.split("_"))
        common = {"execution_id", "seq", "at"}
        of_step = {"step_id", "loop_index", "loop_path"}
        shown = ["*step*"] if of_step <= {*kind.__struct_fields__} else []
        common |= of_step if shown else set()
        fields = [
            f"`{wire}`"
            for name, wire in zip(kind.__struct_fields__, kind.__struct_encode_fields__, strict=True)
            if name not in common
        ]
        meaning = inspect.cleandoc(kind.__doc__ or "").replace("\n", " ")
        rows.append((f"`{tag}`", " ".join(meaning.split()), " ".join(shown + fields)))
    return rows


def endpoints() -> list[Sequence[str]]:
    """Each endpoint in the order of its path, aliases aside."""
    rows = _endpoints()
    left_out = {other for others in _aliases(rows).values() for other in others}
    return [
        (f"`{method} {path}`", *row) for (method, path), row in rows.items() if (method, path) not in left_out
    ]


def aliased() -> Iterator[str]:
    """A sentence for each path that has aliases, with the endpoints below it that have none."""
    found = _aliases(_endpoints())
    for path, others in ALIASES.items():
        alone = [f"`{below}`" for (_, below), same in found.items() if _is_below(below, path) and not same]
        but = f", except {', '.join(alone)}" if alone else ""
        yield f"What is below `{path}` is also below {', '.join(f'`{other}`' for other in others)}{but}."


def _endpoints() -> dict[tuple[str, str], tuple[str, str, str, str]]:
    rows: dict[tuple[str, str], tuple[str, str, str, str]] = {}
    for each in sorted(ENDPOINTS, key=lambda each: (each.path, each.method)):
        path = re.sub(r":\w+}", "}", each.path)
        query = ", ".join(f"`{parameter.name}`" for parameter in each.query)
        headers = ", ".join(f"`{parameter.name}`" for parameter in (*each.headers, *each.raw_headers))
        role = "none" if each.access == "open" else f"`{each.access}`"
        rows[each.method, path] = (role, each.summary, query, headers)
    return rows


def _aliases(rows: Mapping[tuple[str, str], object]) -> dict[tuple[str, str], list[tuple[str, str]]]:
    """Of each endpoint below a path with aliases: those that are the same below every alias, or none."""
    found = {}
    for path, others in ALIASES.items():
        for method, below in rows:
            if _is_below(below, path) and not any(_is_below(below, other) for other in others):
                there = [(method, other + below.removeprefix(path)) for other in others]
                equal = all(rows.get(each) == rows[method, below] for each in there)
                found[method, below] = there if equal else []
    return found


def _is_below(path: str, folder: str) -> bool:
    return path == folder or path.startswith(f"{folder}/")


def codes() -> list[tuple[str, str]]:
    """Each code below its status and exception."""
    groups: dict[str, list[tuple[str, str]]] = {}
    for code, row in CODES.items():
        group = f"**{row.status}**, `{exception_for(row.status, code).__name__}`"
        groups.setdefault(group, []).append((f"`{code}`", row.meaning))
    return [each for group, rows in groups.items() for each in ((group, ""), *rows)]


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
