"""What makes a program send its traces: variables for SDKs, and what is installed in its environment.

Nothing that the user has set is changed.
"""

import os
import re
import shutil
import subprocess
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

import msgspec

EXPORTER = "opentelemetry-exporter-otlp-proto-http"
DISTRO = "opentelemetry-distro"
FAMILIES = (
    "opentelemetry-instrumentation-genai-",
    "opentelemetry-instrumentation-",
    "openinference-instrumentation-",
)
GENAI = FAMILIES[0]

FRAMEWORKS: dict[str, tuple[str, ...]] = {
    "langchain-core": (f"{GENAI}langchain",),
    "llama-index-core": (f"{GENAI}llama-index", f"{GENAI}openai"),
    "openai-agents": (f"{GENAI}openai-agents", f"{GENAI}openai"),
    "smolagents": ("openinference-instrumentation-smolagents",),
    # These have spans of their own.
    "google-adk": (),
    "pydantic-ai-slim": (),
    "strands-agents": (),
}
"""By library what gives its spans, as far as it does not do that itself."""
CLIENTS = {"openai": (f"{GENAI}openai",), "anthropic": (f"{GENAI}anthropic",)}
"""The same for libraries that frameworks call."""
SENDERS = ("agent-framework-core", "langfuse", "logfire", "openlit", "traceloop-sdk")
"""Libraries that a program sets up by itself."""

ALWAYS = {
    "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
    "OTEL_TRACES_EXPORTER": "otlp",
    "OTEL_LOGS_EXPORTER": "otlp",
    "OTEL_METRICS_EXPORTER": "none",
    # Steps are to be seen soon, and a burst is not to be lost.
    "OTEL_BSP_SCHEDULE_DELAY": "500",
    "OTEL_BSP_MAX_QUEUE_SIZE": "20000",
    "OTEL_BLRP_SCHEDULE_DELAY": "500",
    "LOGFIRE_SEND_TO_LOGFIRE": "if-token-present",
}
"""Variables of which each is set unless the user has."""
CONTENT = {
    "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": ("SPAN_ONLY", "NO_CONTENT"),
    "ADK_CAPTURE_MESSAGE_CONTENT_IN_SPANS": ("true", "false"),
    "LANGSMITH_HIDE_INPUTS": ("false", "true"),
    "LANGSMITH_HIDE_OUTPUTS": ("false", "true"),
    "OPENAI_AGENTS_TRACE_INCLUDE_SENSITIVE_DATA": ("true", "false"),
    "OPENINFERENCE_HIDE_INPUTS": ("false", "true"),
    "OPENINFERENCE_HIDE_OUTPUTS": ("false", "true"),
    "TRACELOOP_TRACE_CONTENT": ("true", "false"),
}
"""By which libraries decide about prompts and answers: what sends them, and what does not."""
LOOK = """
import importlib.metadata, json
print(json.dumps({each.metadata["Name"]: [entry.group for entry in each.entry_points]
                  for each in importlib.metadata.distributions() if each.metadata["Name"]}))
"""
LOOKS_S = 20.0
_PYTHON = re.compile(r"(python|pypy)[0-9.]*")
_SHEBANG = re.compile(rb"#!\s*(\S+)")


class Installed(NamedTuple):
    """What the environment of a Python has: `names` of distributions, and whether one sets up an SDK."""

    interpreter: Path
    names: frozenset[str]
    configures: bool

    @property
    def instrument(self) -> Path | None:
        """The script that instruments a program from outside, where it would also send something."""
        script = self.interpreter.with_name("opentelemetry-instrument")
        return script if self.configures and EXPORTER in self.names and script.exists() else None

    @property
    def libraries(self) -> dict[str, tuple[str, ...]]:
        """The libraries that are there, and what is missing for each."""
        found = {name: needs for name, needs in FRAMEWORKS.items() if name in self.names}
        found = found or {name: needs for name, needs in CLIENTS.items() if name in self.names}
        return {name: tuple(each for each in needs if not self._has(each)) for name, needs in found.items()}

    @property
    def missing(self) -> list[str]:
        """What to install, so that the libraries which are there are instrumented from outside."""
        needs = dict.fromkeys(each for needs in self.libraries.values() for each in needs)
        base = [DISTRO] * (not self.configures) + [EXPORTER] * (EXPORTER not in self.names)
        return [*base, *needs]

    def _has(self, wanted: str) -> bool:
        library = next(wanted.removeprefix(each) for each in FAMILIES if wanted.startswith(each))
        # As in `opentelemetry-instrumentation-openai-v2`.
        return any(f"{each}{library}{v2}" in self.names for each in FAMILIES for v2 in ("", "-v2"))


def look(command: Sequence[str]) -> Installed | None:
    """What is installed for the Python that runs the command; None where none is known to.

    Its own interpreter reads the metadata; no library is imported.
    """
    program = shutil.which(command[0])
    if program is None:
        return None
    interpreter = Path(os.path.abspath(program))
    try:
        if not _PYTHON.fullmatch(interpreter.name):
            with interpreter.open("rb") as script:
                shebang = _SHEBANG.match(script.readline(500))
            interpreter = Path(os.fsdecode(shebang[1])) if shebang else interpreter
            if not _PYTHON.fullmatch(interpreter.name):
                return None
        done = subprocess.run(
            [interpreter, "-c", LOOK],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            timeout=LOOKS_S,
            check=True,
        )
        groups = msgspec.json.decode(done.stdout, type=dict[str, list[str]])
    except (OSError, subprocess.SubprocessError, msgspec.DecodeError):
        return None
    names = frozenset(re.sub(r"[-_.]+", "-", name).lower() for name in groups)
    configures = any("opentelemetry_configurator" in each for each in groups.values())
    return Installed(interpreter, names, configures)


class Prepared(NamedTuple):
    """The variables to add, those of the user's that were left, and where traces go if not to us."""

    variables: dict[str, str]
    kept: list[str]
    elsewhere: str | None


def prepare(
    environ: Mapping[str, str],
    installed: Installed | None,
    *,
    address: str,
    key: str,
    service: str,
    content: bool | None,
) -> Prepared:
    """The variables with which SDKs send to the address; `content` None leaves that to those that are set."""
    endpoints = ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "OTEL_EXPORTER_OTLP_ENDPOINT")
    told = next(filter(None, map(environ.get, endpoints)), None)
    elsewhere = told if told is not None and not told.startswith(address) else None
    contents = {name: values[content is False] for name, values in CONTENT.items()}
    names = installed.names if installed is not None else frozenset()
    if "agent-framework-core" in names:
        # Other programs may have variables of these names.
        is_sent = "false" if content is False else "true"
        contents |= {"ENABLE_INSTRUMENTATION": "true", "ENABLE_SENSITIVE_DATA": is_sent}
    alone = ALWAYS if content is not None else ALWAYS | contents
    if "service.name=" not in environ.get("OTEL_RESOURCE_ATTRIBUTES", ""):
        alone = alone | {"OTEL_SERVICE_NAME": service}
    # What belongs together is set together, or all of it is the user's.
    groups = [{name: value} for name, value in alone.items()]
    headers = environ.get("OTEL_EXPORTER_OTLP_HEADERS", "")
    if elsewhere is None:
        groups += [
            {"OTEL_EXPORTER_OTLP_ENDPOINT": address},
            {"OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf"},
            {"LANGFUSE_BASE_URL": address, "LANGFUSE_PUBLIC_KEY": "runglass", "LANGFUSE_SECRET_KEY": key},
            {"TRACELOOP_BASE_URL": address, "TRACELOOP_API_KEY": key},
        ]
        has_instrumentor = any(f"{each}langchain" in names for each in FAMILIES)
        if names >= {"langsmith", "opentelemetry-sdk", EXPORTER} and not has_instrumentor:
            # The endpoint is that of a way in which it sends nothing, so that nothing leaves the machine.
            otel = {"LANGSMITH_TRACING": "true", "LANGSMITH_TRACING_MODE": "otel"}
            groups.append({**otel, "LANGSMITH_ENDPOINT": address, "LANGSMITH_API_KEY": key})
    # The server was found by these; whoever has a key of more rights keeps it.
    variables = {"RUNGLASS_BASE_URL": address, "RUNGLASS_API_KEY": environ.get("RUNGLASS_API_KEY") or key}
    kept: list[str] = []
    for group in groups:
        own = [name for name, value in group.items() if environ.get(name, value) != value]
        kept += own
        variables |= {} if own else group
    if content is not None:
        variables |= contents
    if elsewhere is None and "authorization" not in headers.lower() and "x-api-key" not in headers.lower():
        # Without a space, which some SDKs do not decode.
        ours = f"x-api-key={key}"
        variables["OTEL_EXPORTER_OTLP_HEADERS"] = f"{headers},{ours}" if headers else ours
    others = ("OTEL_SDK_DISABLED", "OTEL_TRACES_SAMPLER", "OTEL_EXPORTER_OTLP_TRACES_PROTOCOL")
    kept += [name for name in others if environ.get(name)]
    return Prepared(variables, kept, elsewhere)
