"""Flows managed from the terminal, and budgets."""

import asyncio
import json
from collections.abc import Iterator
from decimal import Decimal
from pathlib import Path

import pytest

from runglass.cli import main
from runglass.cli.exit_codes import Exit
from runglass.config.settings import Settings
from runglass.runtime.composition import open_store
from runglass.store.sqlite.store import SqliteStore
from runglass.testing import RunningServer, running_server

FLOW = "slug: greet\nname: {}\nsteps: [{{id: keep, type: passthrough}}]\n"
NAME = "acme/shop/greet"


@pytest.fixture(scope="module")
def server() -> Iterator[RunningServer]:
    with running_server() as running:
        yield running


@pytest.fixture
def place(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> list[str]:
    """The options that name a place to keep flows in; project `acme/shop` is there and empty."""
    monkeypatch.chdir(tmp_path)
    for name in ("RUNGLASS_DATA", "RUNGLASS_STORE", "COLUMNS"):
        monkeypatch.delenv(name, raising=False)
    main(["projects", "create", "acme/shop", "--data", "here"])
    # A key in the environment does not win over a data folder that is named.
    monkeypatch.setenv("RUNGLASS_API_KEY", "nk_unused")
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9/api/v1")
    return ["--data", "here"]


def test_push_publish_show_and_rollback(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    file = tmp_path / "greet.yaml"
    for number in (1, 2):
        file.write_text(FLOW.format(f"Greeting {number}"))
        assert main(["flow", "push", "greet.yaml", "--to", "acme/shop", "--publish", *place]) == Exit.OK
    file.write_text(FLOW.format("Not yet"))
    assert main(["flow", "push", "greet.yaml", "--to", "acme/shop", *place]) == Exit.OK
    assert main(["flow", "rollback", NAME, "1", *place]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()[-4:]
    assert lines == [f"{NAME}  version 1", f"{NAME}  version 2", f"{NAME}  draft", f"{NAME}  version 1"]

    assert main(["flow", "show", NAME, "--json", *place]) == Exit.OK
    flow = json.loads(capsys.readouterr().out)
    assert (flow["org"], flow["project"], flow["slug"], flow["name"]) == ("acme", "shop", "greet", "Not yet")
    assert (flow["productionVersion"], [each["version"] for each in flow["versions"]]) == (1, [0, 1, 2])
    assert main(["flow", "list", "acme/shop", "--json", *place]) == Exit.OK
    (listed,) = json.loads(capsys.readouterr().out)
    assert flow == listed | {"versions": flow["versions"]}

    assert main(["flow", "show", NAME, *place]) == Exit.OK
    lines = capsys.readouterr().out.splitlines()
    assert lines[0] == f"{NAME}  Not yet"
    assert [line.split()[0] for line in lines[2:]] == ["draft", "version", "version"]
    assert [line.endswith("in production") for line in lines[2:]] == [False, True, False]
    for version, name in (("draft", "Not yet"), ("production", "Greeting 1"), ("2", "Greeting 2")):
        assert main(["flow", "show", NAME, "--version", version, *place]) == Exit.OK
        assert json.loads(capsys.readouterr().out)["name"] == name

    assert main(["flow", "publish", NAME, *place]) == Exit.OK
    assert capsys.readouterr().out == f"{NAME}  version 3\n"


def test_a_flow_is_stored_as_its_file_was_read(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    prompt, key = "a \u2028 b\x85  c\x7f \U0001f600", "k" * 1_100
    file = f"slug: greet\nsteps:\n- id: say\n  type: llm\n  model: echo\n  prompt: {json.dumps(prompt)}\n"
    file += f"  output_schema:\n    type: object\n    properties:\n      ? {key}\n      : {{}}\n"
    (tmp_path / "greet.yaml").write_text(file.replace("\x7f", "\\x7f"))
    assert main(["flow", "push", "greet.yaml", "--to", "acme/shop", *place]) == Exit.OK
    capsys.readouterr()
    assert main(["flow", "show", NAME, "--version", "draft", *place]) == Exit.OK
    (step,) = json.loads(capsys.readouterr().out)["steps"]
    assert (step["prompt"], list(step["output_schema"]["properties"])) == (prompt, [key])


def test_what_is_not_there_is_not_found(
    place: list[str], tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    (tmp_path / "greet.yaml").write_text(FLOW.format("Hello"))
    main(["flow", "push", "greet.yaml", "--to", "acme/shop", *place])
    for arguments in (
        ["flow", "list", "acme/other"],
        ["flow", "show", "acme/shop/none"],
        ["flow", "show", "acme/other/greet"],
        ["flow", "show", NAME, "--version", "7"],
        ["flow", "publish", "acme/shop/none"],
        ["flow", "rollback", NAME, "7"],
        ["flow", "rollback", "acme/shop/none", "1"],
    ):
        capsys.readouterr()
        assert main([*arguments, *place]) == Exit.NOT_FOUND, arguments
        assert capsys.readouterr().err.startswith("error: ")
    assert main(["flow", "rollback", NAME, "0", *place]) == Exit.USAGE


def test_a_server_without_a_key_is_not_taken_for_a_folder(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.delenv("RUNGLASS_API_KEY", raising=False)
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "greet.yaml").write_text(FLOW.format("Hello"))
    for call in (["push", "greet.yaml", "--to", "acme/demo"], ["list", "acme/demo"]):
        assert main(["flow", *call]) == Exit.USAGE
        assert "RUNGLASS_API_KEY" in capsys.readouterr().err
    assert [file.name for file in tmp_path.iterdir()] == ["greet.yaml"]


@pytest.fixture
def shop(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> Settings:
    monkeypatch.chdir(tmp_path)
    assert main(["projects", "create", "acme/shop", "--data", "here"]) == Exit.OK
    capsys.readouterr()
    return Settings(data=Path("here"))


BUDGET = ["projects", "budget", "acme/shop"]


def test_a_budget_is_set_shown_and_lifted(shop: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BUDGET, "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  no budget, spent $0\n"
    assert main([*BUDGET, "5.00", "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  budget $5, spent $0\n"
    assert main([*BUDGET, "0.000000000001", "--data", "here", "--json"]) == Exit.OK
    shown = json.loads(capsys.readouterr().out)
    assert shown == {
        "org": "acme",
        "project": "shop",
        "budgetUsd": "0.000000000001",
        "spentUsd": "0",
        "reservedUsd": "0",
        "isSpent": False,
    }
    assert main([*BUDGET, "0", "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  budget $0, spent $0; nothing more can be run\n"
    assert main([*BUDGET, "none", "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  no budget, spent $0\n"


def test_a_list_of_models_is_set_shown_and_lifted(shop: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    models = ["projects", "models", "acme/shop"]
    assert main([*models, "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  no list of models\n"
    assert main([*models, "openai:*", "local:tiny", "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  openai:*, local:tiny\n"
    assert main([*models, "tiny", "--data", "here"]) == Exit.USAGE
    assert "PROVIDER:MODEL" in capsys.readouterr().err
    assert main([*models, "--data", "here", "--json"]) == Exit.OK
    assert json.loads(capsys.readouterr().out)["allowedModels"] == ["openai:*", "local:tiny"]
    assert main([*models, "default", "--data", "here"]) == Exit.OK
    assert capsys.readouterr().out == "acme/shop  no list of models\n"


def test_a_large_budget_is_kept_to_the_last_digit(shop: Settings, capsys: pytest.CaptureFixture[str]) -> None:
    assert main([*BUDGET, "8999999.999999999999", "--data", "here"]) == Exit.OK
    assert "budget $8999999.999999999999," in capsys.readouterr().out

    async def kept() -> Decimal | None:
        async with open_store(shop) as store:
            assert isinstance(store, SqliteStore)
            found = await store.find_project("acme", "shop")
            return None if found is None else found.budget_usd

    assert asyncio.run(kept()) == Decimal("8999999.999999999999")


@pytest.mark.parametrize(
    "amount", ["five", "", "nan", "inf", "1e99", "1000000000001", f"0.{30 * '0'}1", "1e-999999", "$5"]
)
def test_what_is_no_amount_of_money_is_refused(
    shop: Settings, amount: str, capsys: pytest.CaptureFixture[str]
) -> None:
    assert main([*BUDGET, amount, "--data", "here"]) == Exit.USAGE
    assert "write US dollars" in capsys.readouterr().err
