"""The files in `deploy/` ask of the program what it has, and of a platform what the program needs."""

import json
import re
import tomllib
from collections.abc import Iterator
from operator import attrgetter
from pathlib import Path
from typing import Any, NamedTuple

import click
import httpx2
import pytest
from ruamel.yaml import YAML

from runglass import __version__
from runglass.cli.app import app
from runglass.config.address import has_password
from runglass.config.reader import CLIENT_VARIABLES, read_settings
from runglass.config.settings import Settings
from runglass.testing import running_server
from tests.prove.killing.server import free_port

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
OURS = "runglass"


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
each_process = pytest.mark.parametrize("process", PROCESSES, ids=NAME)
each_pod = pytest.mark.parametrize("pod", PODS.values(), ids=PODS)


def parsed(arguments: list[str]) -> click.Context:
    """The command and its parameters. Raises ClickException for what the command does not take."""
    command: click.Command = app
    name, rest, context = OURS, arguments, click.Context(app)
    while isinstance(command, click.Group):
        name, rest = rest[0], rest[1:]
        found = command.get_command(context, name)
        assert found is not None, name
        command = found
    return command.make_context(name, list(rest))


def settings(process: Process) -> Settings:
    def refuse(warning: str) -> None:
        raise AssertionError(warning)

    flags = {
        key: value
        for key, value in parsed(process.arguments).params.items()
        if key in Settings.__struct_fields__
    }
    return read_settings(flags, environment=process.environment, warn=refuse)


@pytest.fixture(autouse=True)
def _no_settings_of_this_machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.chdir(tmp_path)


def test_servers_workers_and_a_migration_are_in_both() -> None:
    assert sorted(each.arguments[0] for each in PROCESSES) == [
        *("migrate", "migrate"),
        *("serve", "serve", "serve"),
        *("worker", "worker"),
    ]


@each_process
def test_a_process_has_a_command_flags_and_settings_that_there_are(process: Process) -> None:
    found = settings(process)
    assert found.postgres is not None
    assert found.bus_address is not None
    if process.arguments[0] == "serve":
        assert not found.executes_runs


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


@pytest.mark.parametrize("process", [each for each in IN_COMPOSE if each.goes_on], ids=NAME)
def test_a_service_is_asked_on_a_port_of_its_own_whether_it_is_ready(process: Process) -> None:
    check = COMPOSE["services"][process.name]["healthcheck"]["test"][-1]
    assert f"'http://127.0.0.1:{settings(process).metrics_port}/ready'" in check
    for published in COMPOSE["services"][process.name].get("ports", []):
        assert published.startswith("127.0.0.1:")
        assert published.endswith(f":{settings(process).port}")


def test_both_listeners_answer_where_probes_ask() -> None:
    port = free_port()
    with running_server(metrics_port=port) as server:
        for address in (server.address, f"http://127.0.0.1:{port}"):
            for path in ("/health", "/ready"):
                assert httpx2.get(address + path).status_code == 200


@each_process
def test_a_process_has_more_time_to_stop_than_its_steps(process: Process) -> None:
    if process.goes_on:
        assert process.allowed_s is not None
        assert process.allowed_s >= settings(process).stop_grace_s + 10


def test_no_file_has_a_secret() -> None:
    assert set(SECRET["stringData"].values()) == {""}
    for process in PROCESSES:
        assert not has_password(process.environment["RUNGLASS_STORE"])
    for service in COMPOSE["services"].values():
        for variable, value in service.get("environment", {}).items():
            assert "PASSWORD" not in variable or value.startswith("${POSTGRES_PASSWORD:?"), variable
    ignored = (ROOT / ".gitignore").read_text("utf-8").split()
    assert {"/deploy/.env", "/deploy/providers.env", "/deploy/kubernetes/secret.yaml"} <= set(ignored)


def test_each_image_has_a_tag_and_ours_is_of_this_version() -> None:
    images = [service["image"] for service in COMPOSE["services"].values()]
    images += [pod["spec"]["containers"][0]["image"] for pod in PODS.values()]
    images += re.findall(r"^FROM (\S+)", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    (ours,) = KUSTOMIZATION["images"]
    assert ours["name"] == OURS
    images.append(f"{OURS}:{ours['newTag']}")
    for image in images:
        name, _, tag = image.partition(":")
        assert re.match(r"v?\d", tag), image
        assert name != OURS or tag == __version__
    named = re.findall(rf"{OURS}:(\d[\w.]*\w)", (DEPLOY / "README.md").read_text("utf-8"))
    assert set(named) == {__version__}


@each_pod
def test_a_pod_has_no_rights_and_bounds(pod: dict[str, Any]) -> None:
    (container,) = pod["spec"]["containers"]
    assert pod["spec"]["securityContext"]["runAsNonRoot"]
    assert f"USER {pod['spec']['securityContext']['runAsUser']}:" in (DEPLOY / "Dockerfile").read_text(
        "utf-8"
    )
    assert container["securityContext"]["readOnlyRootFilesystem"]
    assert container["securityContext"]["capabilities"] == {"drop": ["ALL"]}
    assert not container["securityContext"]["allowPrivilegeEscalation"]
    assert {"cpu", "memory"} == set(container["resources"]["requests"])
    assert "memory" in container["resources"]["limits"]
    assert not pod["spec"]["enableServiceLinks"]
    sources = {next(iter(each)): next(iter(each.values()))["name"] for each in container["envFrom"]}
    (settings_map,) = KUSTOMIZATION["configMapGenerator"]
    assert sources == {"configMapRef": settings_map["name"], "secretRef": SECRET["metadata"]["name"]}


def test_services_budgets_and_deployments_select_pods_that_there_are() -> None:
    labels = [pod["metadata"]["labels"] for pod in PODS.values()]
    kinds = [each["kind"] for each in MANIFESTS]
    assert sorted(kinds) == ["Deployment"] * 2 + ["Job"] + ["PodDisruptionBudget"] * 2 + ["Service"]
    for each in MANIFESTS:
        if each["kind"] != "Job":
            selector = each["spec"]["selector"]
            wanted = selector.get("matchLabels", selector)
            assert labels.count(wanted) == 1, each["metadata"]["name"]
        if each["kind"] == "Deployment":
            assert each["spec"]["template"]["metadata"]["labels"] == each["spec"]["selector"]["matchLabels"]


def test_a_new_version_migrates_before_it_replaces_anything() -> None:
    page = (DEPLOY / "README.md").read_text("utf-8")
    (left_out,) = re.findall(r"--selector 'app.kubernetes.io/component notin \((.+)\)'", page)
    for each in MANIFESTS:
        component = each["metadata"].get("labels", {}).get("app.kubernetes.io/component")
        assert (component in left_out.split(", ")) == (each["kind"] == "Deployment")
    migrations = [each["metadata"]["name"] for each in MANIFESTS if each["kind"] == "Job"]
    assert re.findall(r"^ *kubectl (?:delete job |wait job/)(\S+)", page, re.M) == migrations * 2
    migrate, *replaced = re.findall(
        r"^docker compose (?:run --rm|up --detach --no-deps --wait) (\S+)", page, re.M
    )
    found = {each.name: each.goes_on for each in IN_COMPOSE}
    assert {migrate: False, **dict.fromkeys(replaced, True)} == found


def test_prometheus_and_grafana_find_what_they_show() -> None:
    (prometheus,) = FILES["prometheus.yaml"]
    ((found,),) = [each["dns_sd_configs"] for each in prometheus["scrape_configs"]]
    watched = {each.name for each in IN_COMPOSE if each.goes_on}
    assert set(found["names"]) == watched
    assert {settings(each).metrics_port for each in IN_COMPOSE} == {found["port"]}
    mounts = [
        mount.split(":")
        for each in ("prometheus", "grafana")
        for mount in COMPOSE["services"][each]["volumes"]
    ]
    files = {target: DEPLOY / source for source, target, *_ in mounts if source.startswith("./")}
    assert all(map(Path.is_file, files.values()))
    ((folder,),) = [
        [provider["options"]["path"] for provider in each["providers"]]
        for each in FILES["grafana/dashboards.yaml"]
    ]
    assert [path.name for target, path in files.items() if target.startswith(folder)] == ["runglass.json"]


def pins(lock: str) -> dict[str, str]:
    return dict(re.findall(r"^([\w.-]+)==([^\s;]+)", (ROOT / "requirements" / lock).read_text("utf-8"), re.M))


def test_the_image_has_the_versions_that_the_tests_run_with() -> None:
    image = pins("image.txt")
    assert image.items() <= pins("dev.txt").items()
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text("utf-8"))["project"]["optional-dependencies"]
    needed = {re.split(r"[^\w.-]", each)[0].replace(".", "-") for names in extras.values() for each in names}
    assert needed <= set(image)


def test_what_the_dockerfile_copies_is_sent_to_docker() -> None:
    copied = re.findall(r"^COPY (.+) \S+$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    sources = {source.rstrip("/") for line in copied for source in line.split()}
    ignored = (DEPLOY / "Dockerfile.dockerignore").read_text("utf-8").split()
    assert sources == {each.removeprefix("!") for each in ignored if each.startswith("!")}
    assert all((ROOT / source).exists() for source in sources)


def test_the_image_by_itself_is_a_server_that_others_reach() -> None:
    (command,) = re.findall(r"^CMD (.+)$", (DEPLOY / "Dockerfile").read_text("utf-8"), re.M)
    found = parsed(json.loads(command))
    assert (found.info_name, found.params["host"]) == ("serve", "0.0.0.0")
