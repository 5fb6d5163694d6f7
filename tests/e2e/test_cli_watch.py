"""`runglass watch`: programs that send by hand, their exit codes and signals, and what is said of them."""

import json
import os
import pty
import signal
import sys
from pathlib import Path

import pytest

from runglass import Client
from runglass.cli.exit_codes import Exit
from runglass.store.records import Role
from runglass.testing import RunningServer
from tests.e2e.command import START, environment, fill, hears_ctrl_c, runglass, served, started, watched
from tests.postgres_server import postgres_database
from tests.servers import server_with

SENDS = """
import json, os, secrets, signal, sys, time, urllib.parse, urllib.request

def send(ids=None, failed=False, **attributes):
    trace_id, span_id, parent_id = ids or (secrets.token_hex(16), secrets.token_hex(8), "")
    pairs = dict(each.split("=", 1) for each in os.environ["OTEL_EXPORTER_OTLP_HEADERS"].split(","))
    headers = {name: urllib.parse.unquote(value) for name, value in pairs.items()}
    now = time.time_ns()
    span = {"traceId": trace_id, "spanId": span_id, "parentSpanId": parent_id, "name": "work",
            "status": {"code": 2 if failed else 0},
            "startTimeUnixNano": str(now - 10**9), "endTimeUnixNano": str(now),
            "attributes": [{"key": name, "value": {"stringValue": value}}
                           for name, value in attributes.items()]}
    service = {"key": "service.name", "value": {"stringValue": os.environ["OTEL_SERVICE_NAME"]}}
    body = {"resourceSpans": [{"resource": {"attributes": [service]}, "scopeSpans": [{"spans": [span]}]}]}
    urllib.request.urlopen(urllib.request.Request(
        os.environ["OTEL_EXPORTER_OTLP_ENDPOINT"] + "/v1/traces", json.dumps(body).encode(),
        headers | {"Content-Type": "application/json"})).close()
"""
CALL = "send(**{'gen_ai.operation.name': 'chat', 'gen_ai.request.model': 'm'})\n"
ENVIRONMENT = "print(json.dumps({name: os.environ.get(name) for name in sys.argv[1:]}))\n"


@pytest.fixture
def program(tmp_path: Path) -> "Program":
    return Program(tmp_path)


class Program:
    """A program in a file, watched on a data folder of its own."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(exist_ok=True)
        self.data = folder / "data"
        self._file = folder / "my_agent.py"

    def words(self, code: str, *arguments: str | Path) -> list[str | Path]:
        """The arguments that watch it."""
        return self.words_without_folder(code, "--data", self.data, *arguments)

    def words_without_folder(self, code: str, *arguments: str | Path) -> list[str | Path]:
        self._file.write_text(SENDS + code)
        return ["watch", *arguments, "--", sys.executable, "-u", self._file]

    def runs(self) -> list[dict[str, object]]:
        found = runglass("runs", "list", "--data", self.data, "--json")
        return list(json.loads(found.stdout)["runs"])


def test_a_run_is_recorded_and_ends_with_its_program_whose_output_and_exit_code_are_its_own(
    program: Program,
) -> None:
    done = runglass(*program.words("print('out'); print('err', file=sys.stderr)\n" + CALL + "sys.exit(7)"))
    assert (done.returncode, done.stdout) == (7, "out\n")
    created, err, said = done.stderr.splitlines()
    assert (created, err) == ("created project local/default", "err")
    [run] = program.runs()
    assert said.startswith("✓ my-agent: work  completed in 1.00 s, 1 step")
    assert said.endswith(str(run["id"]))
    assert (run["status"], run["flowSlug"]) == ("completed", "my-agent")
    # Its key was in memory alone, and nothing else is left.
    keys = runglass("keys", "list", "local/default", "--data", program.data, "--json")
    assert [(key["role"], key["revokedAt"]) for key in json.loads(keys.stdout)] == [("admin", None)]


def test_steps_are_shown_while_the_program_is_active(program: Program) -> None:
    with started(*program.words(CALL + "signal.pause()", "--steps")) as watch:
        assert "/viewer/ticket/" in watch.line_of_stderr_with("▶ my-agent: work")
        watch.line_of_stderr_with("✓ work [0]", "work (llm)")
        assert watch.interrupt() == 130
        assert watch.line_of_stderr_with("run completed")


DIES = "import signal; signal.signal(signal.{0}, signal.SIG_DFL); os.kill(os.getpid(), signal.{0})"


@pytest.mark.parametrize(
    ("code", "exit_code", "said"),
    [
        ("", Exit.OK, "the program sent no traces"),
        ("send(method='GET')", Exit.OK, "traces came, but none with a call of a model"),
        (DIES.format("SIGINT"), 130, "a signal ended it"),
        (DIES.format("SIGTERM"), 143, "a signal ended it"),
        (DIES.format("SIGHUP"), 129, "a signal ended it"),
    ],
)
def test_where_nothing_came_it_says_why_that_may_be_and_has_the_exit_code_of_a_shell(
    program: Program, code: str, exit_code: int, said: str
) -> None:
    done = runglass(*program.words(code))
    assert (done.returncode, said in done.stderr) == (exit_code, True)


def test_a_signal_reaches_the_program_and_its_processes_and_the_program_decides(program: Program) -> None:
    code = """
import signal, subprocess
child = subprocess.Popen([sys.executable, "-c", "import signal; print('child', flush=True); signal.pause()"])
def stop(*_):
    print("stopped", child.wait(), flush=True)
    sys.exit(3)
signal.signal(signal.SIGTERM, stop)
print("ready", flush=True)
while True:
    signal.pause()
"""
    with started(*program.words(code)) as watch:
        assert {watch.line(), watch.line()} == {"ready", "child"}
        assert watch.terminate() == 3
        assert watch.line() == "stopped -15"


def test_on_a_terminal_the_program_reads_it_and_ctrl_c_reaches_it_once(program: Program) -> None:
    code = """
import signal
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT})
print("read", input(), flush=True)
signal.sigwait({signal.SIGINT})
print("pressed", flush=True)
print("read", input(), signal.SIGINT in signal.sigpending(), flush=True)
"""
    child, terminal = pty.fork()
    if child == 0:
        hears_ctrl_c()
        arguments = [*START, *map(str, program.words(code, "--no-steps"))]
        os.execve(arguments[0], arguments, environment(TERM="xterm"))
    with os.fdopen(terminal, "rb+", buffering=0) as screen:
        shown = b""

        def until(text: bytes) -> None:
            nonlocal shown
            while text not in shown:
                shown += screen.read(1000)

        screen.write(b"hello\n")
        until(b"read hello")
        screen.write(b"\x03")
        until(b"pressed")
        screen.write(b"more\n")
        until(b"read more False")
        until(b"the program sent no traces")
        until(b"runglass doctor")
        assert os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]) == 0


@pytest.mark.parametrize(
    ("program_file", "code", "why"),
    [("no-such-program", 127, "No such file or directory"), ("/", 126, "Permission denied")],
)
def test_a_program_that_cannot_be_run_has_the_exit_code_of_a_shell(
    program: Program, program_file: str, code: int, why: str
) -> None:
    done = runglass("watch", "--data", program.data, "--", program_file, "--help")
    assert done.returncode == code
    assert f"{program_file!r} cannot be run: {why}" in done.stderr


def test_a_proxy_of_the_environment_that_cannot_be_used_is_a_message(program: Program) -> None:
    env = {"ALL_PROXY": "socks5://127.0.0.1:9", "RUNGLASS_API_KEY": "nk_x"}
    for command in (program.words(""), ["runs", "list"]):
        done = runglass(*command, env=env)
        assert done.returncode == Exit.USAGE
        assert done.stderr.splitlines()[-1].startswith("error: a proxy or certificates of the environment (")


def test_variables_are_set_and_those_of_the_user_stay(program: Program) -> None:
    names = (
        "OTEL_EXPORTER_OTLP_ENDPOINT",
        "OTEL_EXPORTER_OTLP_PROTOCOL",
        "OTEL_EXPORTER_OTLP_HEADERS",
        "OTEL_SERVICE_NAME",
        "OTEL_SEMCONV_STABILITY_OPT_IN",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT",
        "OPENINFERENCE_HIDE_INPUTS",
        "LANGFUSE_BASE_URL",
        "LANGFUSE_SECRET_KEY",
        "RUNGLASS_API_KEY",
    )
    given = {
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_EXPORTER_OTLP_HEADERS": "x-runglass-flow=desk",
        "LANGFUSE_SECRET_KEY": "sk-lf-mine",
    }
    done = runglass(*program.words(ENVIRONMENT, "--no-content"), *names, env=given)
    told = json.loads(done.stdout)
    key = told["RUNGLASS_API_KEY"]
    assert told == {
        "OTEL_EXPORTER_OTLP_ENDPOINT": told["OTEL_EXPORTER_OTLP_ENDPOINT"],
        "OTEL_EXPORTER_OTLP_PROTOCOL": "http/protobuf",
        "OTEL_EXPORTER_OTLP_HEADERS": f"x-runglass-flow=desk,x-api-key={key}",
        "OTEL_SERVICE_NAME": "shop",
        "OTEL_SEMCONV_STABILITY_OPT_IN": "gen_ai_latest_experimental",
        "OTEL_INSTRUMENTATION_GENAI_CAPTURE_MESSAGE_CONTENT": "NO_CONTENT",
        "OPENINFERENCE_HIDE_INPUTS": "true",
        # A product's variables belong together.
        "LANGFUSE_BASE_URL": None,
        "LANGFUSE_SECRET_KEY": "sk-lf-mine",
        "RUNGLASS_API_KEY": key,
    }
    assert "left as you have set them: OTEL_SERVICE_NAME, LANGFUSE_SECRET_KEY" in done.stderr


def test_an_endpoint_of_the_user_s_gets_no_key_of_ours(program: Program) -> None:
    given = {"OTEL_EXPORTER_OTLP_ENDPOINT": "http://collector.example:4318"}
    words = program.words(ENVIRONMENT)
    done = runglass(*words, "OTEL_EXPORTER_OTLP_ENDPOINT", "OTEL_EXPORTER_OTLP_HEADERS", env=given)
    assert json.loads(done.stdout) == given | {"OTEL_EXPORTER_OTLP_HEADERS": None}
    assert "sends traces to http://collector.example:4318" in done.stderr


def test_the_running_server_of_the_folder_is_used_and_the_keys_end_with_the_program(program: Program) -> None:
    key = fill(program.data)
    with served(program.data, key) as (_, http):
        done = runglass(*program.words(CALL.replace("send(", "send(failed=True, ")))
        assert done.stderr.startswith("✗ my-agent: work  failed, 1 step"), "though its server waits for more"
        [run] = http.get("/flow-runs", params={"q": "flow:my-agent"}).json()["runs"]
        assert done.stderr.rstrip().endswith(f"{http.base_url.copy_with(path='/runs/')}{run['id']}")
        keys = http.get("/keys").json()["keys"]
        assert sorted((each["role"], each["revokedAt"] is None) for each in keys) == [
            ("admin", False),
            ("admin", True),
            ("record", False),
        ]
        env = {"RUNGLASS_DATA": str(program.data), "RUNGLASS_API_KEY": key}
        assert runglass(*program.words_without_folder(CALL), env=env).stderr.startswith("✓ my-agent: work")
        roles = [each["role"] for each in http.get("/keys").json()["keys"]]
        assert roles.count("admin") == 2, "a key that is given is used"


server = server_with()


@pytest.mark.parametrize(
    ("role", "can_only"), [("run", None), ("admin", None), ("record", "send"), ("read", "read")]
)
def test_a_server_that_is_named_records_with_a_key_that_can_send_and_read(
    program: Program, server: RunningServer, role: Role, can_only: str | None
) -> None:
    key = server.make_key("acme", "demo", role)
    done = runglass(
        *program.words_without_folder(CALL),
        env={"RUNGLASS_BASE_URL": server.address, "RUNGLASS_API_KEY": key},
    )
    assert not program.data.exists()
    if can_only is not None:
        assert (done.returncode, f"can only {can_only}" in done.stderr) == (Exit.USAGE, True)
        return
    with Client(server.key, base_url=server.base_url) as client:
        newest = client.runs(limit=1).runs[0].id
    assert done.stderr.rstrip().endswith(f"{server.address}/runs/{newest}")


def test_a_server_that_is_lost_leaves_the_exit_code_alone(program: Program) -> None:
    key = fill(program.data)
    with served(program.data, key) as (server, _):
        done = runglass(*program.words("os.kill(int(sys.argv[1]), 9); sys.exit(5)"), str(server.pid))
    assert done.returncode == 5
    warning = done.stderr.splitlines()[-1]
    assert warning.startswith("warning: what the program sent cannot be shown: GET '/flow-runs")


def test_the_server_of_another_watch_has_a_successor_when_its_program_ends(
    program: Program, tmp_path: Path
) -> None:
    """And what the program of this one goes on with is one run; what is left of the other's ends as well."""
    first_code = """
send((secrets.token_hex(16), secrets.token_hex(8), ""), **{"gen_ai.operation.name": "chat"})
print("first", flush=True)
signal.pause()
"""
    code = """
signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGUSR1})
call = {"gen_ai.operation.name": "chat", "gen_ai.request.model": "m"}
trace_id, top_id = secrets.token_hex(16), secrets.token_hex(8)
send((trace_id, secrets.token_hex(8), top_id), **call)
print("ready", flush=True)
signal.sigwait({signal.SIGUSR1})
import runglass
rec = runglass.Recorder("late", spool=None)
with rec.run("after"):
    pass
assert rec.flush(50)
send((trace_id, top_id, ""), **call)
"""
    other = Program(tmp_path / "other")
    other.data = program.data
    with started(*program.words(first_code)) as first:
        assert first.line() == "first"
        with started(*other.words(code)) as second:
            assert second.line() == "ready"
            assert first.interrupt() == 130
            os.kill(second.pid, signal.SIGUSR1)
            assert second.wait() == 0
            said = second.rest_of_stderr()
    assert [line.split("  ")[0] for line in said] == ["✓ my-agent: work", "✓ late: after"]
    found = [(run["flowSlug"], run["status"], run["stepCount"]) for run in program.runs()]
    assert sorted(found) == [
        ("late", "completed", 1),
        ("my-agent", "completed", 1),
        ("my-agent", "completed", 2),
    ]


@pytest.mark.parametrize(
    ("variable", "value"), [("RUNGLASS_DATA", "{}"), ("RUNGLASS_STORE", "sqlite:///{}/a.db")]
)
def test_it_names_the_folder_in_what_may_be_done_next_also_where_no_option_named_it(
    program: Program, variable: str, value: str
) -> None:
    program.data.mkdir()
    words = program.words_without_folder(CALL, "--project", "acme/shop")
    with watched(*words, env={variable: value.format(program.data)}) as watch:
        shown = watch.terminal_until("look closer: runglass ", then="[^\r\n]*(?=\r)")
        assert watch.wait() == 0
    assert runglass(*shown.split(), env={}).returncode == Exit.OK, shown


def test_on_a_postgresql_it_records_beside_whatever_else_runs_there(program: Program) -> None:
    words = program.words_without_folder(CALL)
    with postgres_database() as address:
        store = {"RUNGLASS_STORE": address}
        done = runglass(*words, env=store, cwd=program.data.parent)
        assert (done.returncode, done.stdout) == (0, "")
        found = runglass("runs", "list", "--store", address.replace(":@", "@"), "--json")
        [run] = json.loads(found.stdout)["runs"]
    assert (run["status"], run["flowSlug"]) == ("completed", "my-agent")
    assert done.stderr.rstrip().endswith(run["id"])


COMPLETE = {
    "opentelemetry-distro": "opentelemetry_configurator",
    "opentelemetry-exporter-otlp-proto-http": "",
}
"""Distributions with the groups of their entry points."""


@pytest.mark.parametrize(
    ("distributions", "options", "out", "missing"),
    [
        (COMPLETE, [], "instrumented\nran\n", None),
        (COMPLETE, ["--no-instrument"], "ran\n", None),
        # Without what sends, a script that instruments is of no use.
        ({}, [], "ran\n", None),
        (
            {"openai": "", "openai-agents": ""},
            [],
            "ran\n",
            "opentelemetry-distro opentelemetry-exporter-otlp-proto-http"
            " opentelemetry-instrumentation-genai-openai-agents opentelemetry-instrumentation-genai-openai",
        ),
        (
            {"openai": "", "openinference-instrumentation-openai": ""},
            [],
            "ran\n",
            "opentelemetry-distro opentelemetry-exporter-otlp-proto-http",
        ),
        ({"openai": "", "logfire": ""}, [], "ran\n", None),
    ],
)
def test_a_program_runs_by_what_instruments_it_or_what_is_missing_is_named(
    tmp_path: Path, distributions: dict[str, str], options: list[str], out: str, missing: str | None
) -> None:
    groups = json.dumps({name: [group] for name, group in distributions.items()})
    scripts = {
        "python": f"""case "$2" in *importlib.metadata*) echo '{groups}';; *) echo ran;; esac""",
        "opentelemetry-instrument": 'echo instrumented; exec "$@"',
    }
    (folder := tmp_path / "bin").mkdir()
    for name, code in scripts.items():
        (folder / name).write_text(f"#!/bin/sh\n{code}\n")
        (folder / name).chmod(0o755)
    done = runglass("watch", "--data", tmp_path / "data", *options, "--", folder / "python", "agent.py")
    assert (done.returncode, done.stdout) == (0, out)
    said = [line for line in done.stderr.splitlines() if "install in" in line]
    assert [line.partition(f"install in {tmp_path}: ")[2] for line in said] == ([missing] if missing else [])
