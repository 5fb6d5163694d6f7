"""`runglass open` and `serve --open`: links that sign a browser in, once, on this machine."""

from pathlib import Path

import httpx2
import pytest

from runglass import Client
from runglass.cli.commands.serve import is_this_machine
from runglass.cli.exit_codes import Exit
from runglass.testing import RunningServer
from tests.e2e.command import WAIT_S, started
from tests.e2e.conftest import Printed
from tests.servers import server_with

FLOW = "slug: keep\nsteps: [{id: keep, type: passthrough}]\n"


server = server_with(FLOW)


def signed_in(link: str) -> tuple[str, str]:
    """The page that a link leads a browser to, and the role that it has there."""
    with httpx2.Client(timeout=WAIT_S) as browser:
        page, _, proof = browser.get(link).headers["location"].partition("#proof=")
        me = browser.get(httpx2.URL(link).join("/api/v1/viewer/me"), headers={"X-Viewer-Proof": proof}).json()
        return page, me["role"]


def test_open_prints_a_link_that_signs_in_and_leads_to_the_run(
    server: RunningServer, connected: None, printed: Printed
) -> None:
    with Client(server.key, base_url=server.base_url) as client:
        run_id = client.flow("acme/demo/keep").execute().execution_id
    for arguments, page in (
        ((), "/"),
        (("last",), f"/runs/{run_id}"),
        ((run_id[-8:], "--print"), f"/runs/{run_id}"),
    ):
        link = printed("open", *arguments).out.strip()
        assert link.startswith(f"{server.address}/viewer/ticket/")
        assert signed_in(link) == (page, "admin")


@pytest.mark.parametrize(
    ("host", "expected"),
    [
        ("localhost", True),
        ("127.0.0.1", True),
        ("::1", True),
        ("runs.localhost", True),
        ("10.0.0.1", False),
        ("localhost.example", False),
        ("", False),
    ],
)
def test_a_ticket_is_asked_for_on_this_machine_alone(host: str, expected: bool) -> None:
    assert is_this_machine(host) == expected


def test_serve_prints_a_link_for_each_project_with_a_key(tmp_path: Path, printed: Printed) -> None:
    data = tmp_path / "data"
    with started("serve", "--port", "0", "--data", data, "--open") as server:
        server.line()
        server.line_of_stderr_with("there is no key yet")
        assert server.interrupt() == Exit.OK
    for role in ("read", "admin", "run"):
        printed("keys", "create", "--create", "acme/shop", "--role", role, "--data", data)
    with started("serve", "--port", "0", "--data", data, "--open") as server:
        url = server.line().removeprefix("ready ")
        said = server.line_of_stderr_with("look at acme/shop in a browser")
        link = said.split()[-1]
        assert link.startswith(f"{url}/viewer/ticket/")
        assert signed_in(link) == ("/", "admin")
        assert server.interrupt() == Exit.OK


def test_open_serves_a_folder_until_ctrl_c(tmp_path: Path, alone: None, printed: Printed) -> None:
    (tmp_path / "keep.yaml").write_text(FLOW)
    at = ["--data", str(tmp_path / "here")]
    printed("flow", "push", "keep.yaml", "--to", "acme/shop", "--create", "--publish", *at)
    printed("keys", "create", "acme/shop", *at)
    printed("run", "keep", "-m", "hello", *at)
    with started("open", "last", "--print", *at) as server:
        assert server.line().startswith("ready http://127.0.0.1:")
        page, role = signed_in(server.line_of_stderr_with("look at acme/shop in a browser").split()[-1])
        assert (page.startswith("/runs/01"), role) == (True, "admin")
        assert server.interrupt() == Exit.OK
