"""The files in `deploy/` ask of the program what it has, and of a platform what the program needs."""

import json
import re
import tomllib
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import click
import pytest
from ruamel.yaml import YAML

from runglass.cli.app import app
from runglass.config.address import has_password
from runglass.config.reader import CLIENT_VARIABLES, read_settings
from runglass.config.settings import Settings
from tests.records import there

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OURS = "runglass"
DOCKERFILE = (DEPLOY / "Dockerfile").read_text("utf-8")


def documents(path: Path) -> list[dict[str, Any]]:
    return list(YAML(typ="safe", pure=True).load_all(path.read_text("utf-8")))


FILES = {path.relative_to(DEPLOY).as_posix(): documents(path) for path in sorted(DEPLOY.rglob("*.yaml"))}
(COMPOSE,) = FILES["compose.yaml"]
(KUSTOMIZATION,) = FILES["kubernetes/kustomization.yaml"]
(SECRET,) = FILES["kubernetes/secret.example.yaml"]
MANIFESTS = [each for name in KUSTOMIZATION["resources"] for each in FILES[f"kubernetes/{name}"]]
PODS = {
    each["metadata"]["name"]: each["spec"]["template"] for each in MANIFESTS if "template" in each["spec"]
}
LITERALS = dict(each.split("=", 1) for each in KUSTOMIZATION["configMapGenerator"][0]["literals"])


class Process(NamedTuple):
    """A process of Runglass as a file starts it; `allowed_s` is what it has to stop."""

    name: str
    arguments: list[str]
    environment: dict[str, str]
    allowed_s: float | None

    @property
    def goes_on(self) -> bool:
        return self.arguments[0] != "migrate"


def services() -> Iterator[Process]:
    for name, service in COMPOSE["services"].items():
        if service["image"].startswith(f"{OURS}:"):
            # Of those without a value none is set.
            environment = {key: value for key, value in service["environment"].items() if value is not None}
            allowed = service.get("stop_grace_period")
            yield Process(name, service["command"], environment, allowed and float(allowed.removesuffix("s")))


def pods() -> Iterator[Process]:
    for name, pod in PODS.items():
        (container,) = pod["spec"]["containers"]
        allowed = pod["spec"].get("terminationGracePeriodSeconds")
        if hook := container.get("lifecycle"):
            program, seconds = hook["preStop"]["exec"]["command"]
            assert program == "sleep"
            allowed -= float(seconds)
        yield Process(name, container["args"], LITERALS, allowed)


IN_COMPOSE, IN_PODS = list(services()), list(pods())
PROCESSES = [*IN_COMPOSE, *IN_PODS]
NAME = attrgetter("name")


def parsed(arguments: list[str]) -> click.Context:
    """The command and its parameters. Raises ClickException for what the command does not take."""
    command: click.Command = app
    name: str | None = OURS
    while isinstance(command, click.Group):
        name, found, arguments = command.resolve_command(click.Context(app), arguments)
        command = there(found)
    return command.make_context(name, list(arguments))


def settings(process: Process) -> Settings:
    flags = {
        key: value
        for key, value in parsed(process.arguments).params.items()
        if key in Settings.__struct_fields__
    }
    return read_settings(flags, environment=process.environment, warn=pytest.fail)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("process", PROCESSES, ids=NAME)
def test_a_process_has_settings_that_there_are_and_more_time_to_stop_than_its_steps(process: Process) -> None:
    found = settings(process)
    assert found.postgres is not None
    assert found.bus_address is not None
    if process.arguments[0] == "serve":
        assert not found.executes_runs
    if process.goes_on:
        assert process.allowed_s is not None
        assert process.allowed_s >= found.stop_grace_s + 10


def test_each_variable_and_command_that_is_named_anywhere_is_there() -> None:
    known = {f"RUNGLASS_{field.upper()}" for field in Settings.__struct_fields__} | set(CLIENT_VARIABLES)
    for path in filter(Path.is_file, DEPLOY.rglob("*")):
        assert set(re.findall(r"RUNGLASS_[A-Z_]+", path.read_text("utf-8"))) <= known, path
    page = (DEPLOY / "README.md").read_text("utf-8")
    commands = re.findall(r"^(?:docker compose|kubectl) exec .*\brunglass (.+)$", page, re.M)
    assert len(commands) == 3
    for command in commands:
        parsed(command.split())


@pytest.mark.parametrize("process", [each for each in IN_PODS if each.goes_on], ids=NAME)
def test_a_pod_listens_on_its_ports_and_is_probed_there(process: Process) -> None:
    pod, found = PODS[process.name], settings(process)
    (container,) = pod["spec"]["containers"]
    listens = {"metrics": (found.metrics_host, found.metrics_port)}
    if process.arguments[0] == "serve":
        listens["http"] = (found.host, found.port)
    assert listens == {each["name"]: ("0.0.0.0", each["containerPort"]) for each in container["ports"]}
    assert pod["metadata"]["annotations"]["prometheus.io/port"] == str(found.metrics_port)
    for probe, path in {"startupProbe": "/health", "readinessProbe": "/ready"}.items():
        assert container[probe]["httpGet"]["path"] == path
        assert container[probe]["httpGet"]["port"] in listens


def test_no_file_has_a_secret() -> None:
    assert set(SECRET["stringData"].values()) == {""}
    for process in PROCESSES:
        assert not has_password(process.environment["RUNGLASS_STORE"])
    for service in COMPOSE["services"].values():
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or value.startswith("${POSTGRES_PASSWORD:?"), variable
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {"/deploy/.env", "/deploy/providers.env", "/deploy/kubernetes/secret.yaml"} <= set(ignored)


@pytest.mark.parametrize("pod", PODS.values(), ids=PODS)
def test_a_pod_has_no_rights_and_bounds(pod: dict[str, Any]) -> None:
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in DOCKERFILE
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    assert not pod["spec"]["enableServiceLinks"]
    sources = {next(iter(each)): next(iter(each.values()))["name"] for each in container["envFrom"]}
    (settings_map,) = KUSTOMIZATION["configMapGenerator"]
    assert sources == {"configMapRef": settings_map["name"], "secretRef": SECRET["metadata"]["name"]}


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements" / lock).read_text("utf-8"), re.M))


def test_the_image_has_the_versions_that_the_tests_run_with() -> None:
    image = pins("image.txt")
    assert image.items() <= pins("dev.txt").items()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    needed = {re.split(r"[^\w.-]", each)[0].replace(".", "-") for names in extras.values() for each in names}
    assert needed <= set(image)


def test_what_the_dockerfile_copies_is_sent_to_docker() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", DOCKERFILE, re.M)
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()
    assert sources == {each.removeprefix("!") for each in ignored if each.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_by_itself_is_a_server_that_others_reach() -> None:
    (command,) = re.findall(r"^CMD (.+)$", DOCKERFILE, re.M)
    found = parsed(json.loads(command))
    assert (found.info_name, found.params["host"]) == ("serve", "0.0.0.0")
