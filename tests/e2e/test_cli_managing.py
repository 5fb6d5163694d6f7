"""Flows managed from the terminal, and budgets."""

import json
from pathlib import Path

import pytest

from runglass.cli.exit_codes import Exit
from tests.e2e.conftest import Printed
from tests.servers import server_with

FLOW = "slug: greet\nname: {}\nsteps: [{{id: keep, type: passthrough}}]\n"
NAME = "acme/shop/greet"


server = server_with()


@pytest.fixture
def shop(alone: None, printed: Printed) -> None:
    """A data folder with an empty project `acme/shop`."""
    printed("projects", "create", "acme/shop", "--data", "here")


@pytest.fixture
def place(shop: None, monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The options that name a place to keep flows in."""
    # A key in the environment does not win over a data folder that is named.
    monkeypatch.setenv("RUNGLASS_API_KEY", "nk_unused")
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9/api/v1")
    return ["--data", "here"]


def test_push_publish_show_and_rollback(place: list[str], tmp_path: Path, printed: Printed) -> None:
    file = tmp_path / "greet.yaml"
    push = ["flow", "push", "greet.yaml", "--to", "acme/shop", *place]
    for number in (1, 2):
        file.write_text(FLOW.format(f"Greeting {number}"))
        assert printed(*push, "--publish").out == f"{NAME}  version {number}\n"
    file.write_text(FLOW.format("Not yet"))
    assert printed(*push).out == f"{NAME}  draft\n"
    assert printed("flow", "rollback", NAME, "1", *place).out == f"{NAME}  version 1\n"

    flow = json.loads(printed("flow", "show", NAME, "--json", *place).out)
    assert (flow["org"], flow["project"], flow["slug"], flow["name"]) == ("acme", "shop", "greet", "Not yet")
    assert (flow["productionVersion"], [each["version"] for each in flow["versions"]]) == (1, [0, 1, 2])
    (listed,) = json.loads(printed("flow", "list", "acme/shop", "--json", *place).out)
    assert flow == listed | {"versions": flow["versions"]}

    lines = printed("flow", "show", NAME, *place).out.splitlines()
    assert lines[0] == f"{NAME}  Not yet"
    assert [line.split()[0] for line in lines[2:]] == ["draft", "version", "version"]
    assert [line.endswith("in production") for line in lines[2:]] == [False, True, False]
    for version, name in (("draft", "Not yet"), ("production", "Greeting 1"), ("2", "Greeting 2")):
        assert json.loads(printed("flow", "show", NAME, "--version", version, *place).out)["name"] == name

    assert printed("flow", "publish", NAME, *place).out == f"{NAME}  version 3\n"


def test_a_flow_is_stored_as_its_file_was_read(place: list[str], tmp_path: Path, printed: Printed) -> None:
    prompt, key = "a \u2028 b\x85  c\x7f \U0001f600", "k" * 1_100
    file = f"slug: greet\nsteps:\n- id: say\n  type: llm\n  model: echo\n  prompt: {json.dumps(prompt)}\n"
    file += f"  output_schema:\n    type: object\n    properties:\n      ? {key}\n      : {{}}\n"
    (tmp_path / "greet.yaml").write_text(file.replace("\x7f", "\\x7f"))
    printed("flow", "push", "greet.yaml", "--to", "acme/shop", *place)
    (step,) = json.loads(printed("flow", "show", NAME, "--version", "draft", *place).out)["steps"]
    assert (step["prompt"], list(step["output_schema"]["properties"])) == (prompt, [key])


def test_what_is_not_there_is_not_found(place: list[str], tmp_path: Path, printed: Printed) -> None:
    (tmp_path / "greet.yaml").write_text(FLOW.format("Hello"))
    printed("flow", "push", "greet.yaml", "--to", "acme/shop", *place)
    for arguments in (
        ["flow", "list", "acme/other"],
        ["flow", "show", "acme/shop/none"],
        ["flow", "show", "acme/other/greet"],
        ["flow", "show", NAME, "--version", "7"],
        ["flow", "publish", "acme/shop/none"],
        ["flow", "rollback", NAME, "7"],
        ["flow", "rollback", "acme/shop/none", "1"],
    ):
        assert printed(*arguments, *place, code=Exit.NOT_FOUND).err.startswith("error: ")
    printed("flow", "rollback", NAME, "0", *place, code=Exit.USAGE)


def test_a_server_without_a_key_is_not_taken_for_a_folder(
    alone: None, monkeypatch: pytest.MonkeyPatch, tmp_path: Path, printed: Printed
) -> None:
    monkeypatch.setenv("RUNGLASS_BASE_URL", "http://127.0.0.1:9")
    (tmp_path / "greet.yaml").write_text(FLOW.format("Hello"))
    for call in (["push", "greet.yaml", "--to", "acme/demo"], ["list", "acme/demo"]):
        assert "RUNGLASS_API_KEY" in printed("flow", *call, code=Exit.USAGE).err
    assert [file.name for file in tmp_path.iterdir()] == ["greet.yaml"]


BUDGET = ["projects", "budget", "acme/shop"]


def test_a_budget_is_set_shown_and_lifted(shop: None, printed: Printed) -> None:
    assert printed(*BUDGET, "--data", "here").out == "acme/shop  no budget, spent $0\n"
    assert printed(*BUDGET, "5.00", "--data", "here").out == "acme/shop  budget $5, spent $0\n"
    assert "budget $8999999.999999999999," in printed(*BUDGET, "8999999.999999999999", "--data", "here").out
    shown = json.loads(printed(*BUDGET, "0.000000000001", "--data", "here", "--json").out)
    assert shown == {
        "org": "acme",
        "project": "shop",
        "budgetUsd": "0.000000000001",
        "spentUsd": "0",
        "reservedUsd": "0",
        "isSpent": False,
    }
    spent = "acme/shop  budget $0, spent $0; nothing more can be run\n"
    assert printed(*BUDGET, "0", "--data", "here").out == spent
    assert printed(*BUDGET, "none", "--data", "here").out == "acme/shop  no budget, spent $0\n"


def test_a_list_of_models_is_set_shown_and_lifted(shop: None, printed: Printed) -> None:
    models = ["projects", "models", "acme/shop"]
    assert printed(*models, "--data", "here").out == "acme/shop  no list of models\n"
    listed = ["openai:*", "local:tiny"]
    assert printed(*models, *listed, "--data", "here").out == "acme/shop  openai:*, local:tiny\n"
    assert "PROVIDER:MODEL" in printed(*models, "tiny", "--data", "here", code=Exit.USAGE).err
    assert json.loads(printed(*models, "--data", "here", "--json").out)["allowedModels"] == listed
    assert printed(*models, "default", "--data", "here").out == "acme/shop  no list of models\n"


@pytest.mark.parametrize(
    "amount", ["five", "", "nan", "inf", "1e99", "1000000000001", f"0.{30 * '0'}1", "1e-999999", "$5"]
)
def test_what_is_no_amount_of_money_is_refused(shop: None, amount: str, printed: Printed) -> None:
    assert "write US dollars" in printed(*BUDGET, amount, "--data", "here", code=Exit.USAGE).err
