"""The commands that need no server: projects, keys and flows of a data folder, and what they refuse."""

import json
from pathlib import Path

import pytest

from runglass.cli.exit_codes import MEANINGS, Exit, exit_of
from runglass.config.settings import SettingsError
from runglass.errors import APIConnectionError, APITimeoutError, FlowFileError, StoreError, api_error
from tests.contract.wire import ANYTHING
from tests.e2e.command import MAIN, in_shell, runglass
from tests.e2e.conftest import Printed

NO_USD = f"0.{30 * '0'}1"


pytestmark = pytest.mark.usefixtures("alone")


def test_a_key_is_alone_on_stdout_and_never_shown_again(printed: Printed) -> None:
    create = ["keys", "create", "--create", "acme/shop", "--data", "here", "--role", "run"]
    output = printed(*create)
    key = output.out.strip()
    assert (key[:3], output.out) == ("nk_", f"{key}\n")
    assert "created project acme/shop" in output.err
    assert "is revoked" in printed("keys", "revoke", "acme/shop", "1", "--data", "here").err
    for arguments in (["list", "acme/other"], ["revoke", "acme/shop", "7"]):
        printed("keys", *arguments, "--data", "here", code=Exit.NOT_FOUND)

    (listed,) = json.loads(printed("keys", "list", "acme/shop", "--data", "here", "--json").out)
    assert (listed["id"], listed["role"], listed["hint"]) == (1, "run", key.rpartition("_")[0])
    assert listed["revokedAt"] is not None
    table = printed("keys", "list", "acme/shop", "--data", "here").out
    assert key not in table
    assert table.splitlines()[0].split() == ["id", "key", "role", "created", "revoked"]
    assert printed(*create).err == "", "the project is there"


@pytest.mark.parametrize(
    ("arguments", "code", "message"),
    [
        (["keys", "create", "acme"], Exit.USAGE, "write ORG/PROJECT"),
        (["keys", "create", "acme/.."], Exit.USAGE, "write ORG/PROJECT"),
        (["flow", "push", "missing.yaml", "--to", "acme/shop"], Exit.FAILED, "No such file"),
        (["flow", "check", "missing.yaml"], Exit.FAILED, "No such file"),
        (["flow", "publish", "acme/greet"], Exit.USAGE, "write ORG/PROJECT/SLUG"),
        (["run", "acme/shop/..", "--api-key", "nk_x"], Exit.USAGE, "write ORG/PROJECT/SLUG"),
        (["runs", "show", "some-id"], Exit.DENIED, "RUNGLASS_API_KEY"),
        (["runs", "list", "--api-key", "sk-other"], Exit.DENIED, "nk_"),
        (["runs", "list", "--api-key", "nk_x", "--base-url", "ftp://x"], Exit.USAGE, "ftp://x"),
        (["runs", "list", "--status", "gone"], Exit.USAGE, "gone"),
        (["runs", "step", "id", "s", "--attempt", "0", "--api-key", "nk_x"], Exit.USAGE, "attempt '0'"),
        (["runs", "step", "id", "s", "--loop", "a", "--api-key", "nk_x"], Exit.USAGE, "iteration 'a'"),
        (["run", "acme/shop/x", "--param", "topic"], Exit.USAGE, "NAME=VALUE"),
        (["run", "acme/shop/x", "--version", "old"], Exit.USAGE, "version 'old'"),
        (["flow", "show", "acme/shop/x", "--version", str(2**31), "--data", "d"], Exit.USAGE, "not exist"),
        (["flow", "show", "acme/shop/x", "--version", "9" * 5_000, "--data", "d"], Exit.USAGE, "not exist"),
        (["runs", "step", "id", "s", "--loop", f"0.{2**31}", "--api-key", "nk_x"], Exit.USAGE, "iteration"),
        (["flow", "rollback", "acme/shop/x", str(2**31)], Exit.USAGE, "largest number is 2147483647"),
        (["keys", "revoke", "acme/shop", "--", str(-(2**31))], Exit.USAGE, "largest number is 2147483647"),
        (["audit", "--limit", "9" * 5_000], Exit.USAGE, "is not a valid"),
        (["run", "acme/shop/x", "--message-file", "gone.txt"], Exit.USAGE, "gone.txt"),
        (["run", "acme/shop/x", "-m", "a", "--message-file", __file__], Exit.USAGE, "not both"),
        (["run", "acme/shop/x", "--params-file", "gone.json"], Exit.USAGE, "gone.json"),
        (["run", "acme/shop/x", "--params-file", __file__], Exit.USAGE, "one JSON object"),
        (["run", "acme/shop/x", "-m", "\udcff"], Exit.USAGE, "not UTF-8"),
        (["no-such-command"], Exit.USAGE, "no-such-command"),
        (["serve", "--port", "65536"], Exit.USAGE, "'--port': 65536 is not in the range 0<=x<=65535"),
        (["serve", "--port", "x"], Exit.USAGE, "'--port': 'x' is not a valid whole number"),
        (["serve", "--dat", "x"], Exit.USAGE, "No such option '--dat'. Did you mean '--data'?"),
        (["runs", "list", "--limit", "0"], Exit.USAGE, "'--limit': 0 is not in the range x>=1"),
        (["keys", "create", "a/b", "--role", "king"], Exit.USAGE, "'king' is not one of 'admin', 'run'"),
        *(
            ([*words, "--data", "none"], Exit.NOT_FOUND, "name its folder with --data")
            for words in (
                *(["data", each] for each in ("usage", "vacuum", "check")),
                *(["data", "backup", "copy"], ["migrate"], ["keys", "list", "acme/shop"]),
            )
        ),
        *(
            (["projects", "budget", "acme/shop", amount], Exit.USAGE, "write US dollars")
            for amount in ("five", "", "nan", "inf", "1e99", "1000000000001", NO_USD, "1e-999999", "$5")
        ),
        (["projects", "models", "acme/shop", "tiny"], Exit.USAGE, "PROVIDER:MODEL"),
        *(
            (["runs", "show", "last", "--api-key", "nk_x", *words], Exit.USAGE, message)
            for words, message in (
                (["--json", "--failed"], "--json prints the whole trace"),
                (["--json", "--inside", "s"], "--json prints the whole trace"),
                (["--failed", "--all"], "--all and --inside are for the tree"),
                (["--loop", "1"], "say which step with --inside"),
                (["--slowest", "0"], "0 is not in the range"),
            )
        ),
        *(
            (["runs", "delete", "--yes", "--api-key", "nk_x", *words], Exit.USAGE, message)
            for words, message in (
                ([], "say which runs"),
                (["last", "--flow", "one"], "say which runs"),
                (["--before", "yesterday"], "'yesterday' is no time"),
                (["--older-than", "30"], "'30' is no time"),
                (["status:failed", "last"], "does not name a run"),
                ([" "], "the query is empty"),
            )
        ),
        (["run", "a/b/c", "--timeout", "0"], Exit.USAGE, "'--timeout': 0.0 is not in the range x>0"),
        (["run", "a/b/c", "--timeout", "nan"], Exit.USAGE, "'--timeout': 'nan' is no number"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_message_and_its_exit_code(
    arguments: list[str], code: Exit, message: str, printed: Printed
) -> None:
    output = printed(*arguments, code=code)
    assert message in output.out + output.err
    assert code == Exit.FAILED or output.out == ""
    assert "Traceback" not in output.err
    assert list(Path().iterdir()) == []


def test_check_says_ok_or_where_each_mistake_is(tmp_path: Path, printed: Printed) -> None:
    (tmp_path / "good.yaml").write_text(ANYTHING)
    assert printed("flow", "check", "good.yaml").out == "good.yaml: ok\n"

    (tmp_path / "bad.yaml").write_text(ANYTHING.replace("type: passthrough", "type: pasthrough"))
    good, bad = printed("flow", "check", "good.yaml", "bad.yaml", code=Exit.FAILED).out.splitlines()
    assert good == "good.yaml: ok"
    assert bad.startswith("bad.yaml:2:")
    assert bad.endswith("at steps[0].type")


def test_of_a_huge_flow_file_only_the_first_bytes_are_read(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, printed: Printed
) -> None:
    with (tmp_path / "huge.yaml").open("wb") as file:
        file.truncate(100_000_000_000)
    out = printed("flow", "check", "huge.yaml", code=Exit.FAILED).out
    assert "the file is larger than 1,048,576 characters" in out
    # The limit is in the middle of a character.
    (tmp_path / "large.yaml").write_text("é" * 4_096)
    monkeypatch.setenv("RUNGLASS_FLOW_LIMIT_BYTES", "1024")
    out = printed("flow", "check", "large.yaml", code=Exit.FAILED).out
    assert "the file is larger than 1,024 characters" in out


def test_one_bad_file_or_a_second_one_of_a_flow_keeps_all_from_being_pushed(
    tmp_path: Path, printed: Printed
) -> None:
    (tmp_path / "good.yaml").write_text(ANYTHING)
    (tmp_path / "bad.yaml").write_text("slug: [")
    output = printed("flow", "push", "good.yaml", "bad.yaml", "--to", "acme/shop", code=Exit.FAILED)
    assert output.out == ""
    assert "bad.yaml:1:" in output.err
    output = printed("flow", "push", "good.yaml", "good.yaml", "--to", "acme/shop", code=Exit.USAGE)
    assert "good.yaml holds the flow 'anything', as another one does" in output.err
    assert not (tmp_path / "runglass-data").exists()


def test_every_exit_code_is_documented_and_every_error_has_one() -> None:
    assert set(MEANINGS) == set(Exit)
    assert exit_of(api_error("RUN_NOT_FOUND", "")) == Exit.NOT_FOUND
    assert exit_of(api_error("UNAUTHENTICATED", "")) == exit_of(api_error("FORBIDDEN", "")) == Exit.DENIED
    assert exit_of(api_error("STEP_FAILED", "")) == exit_of(api_error("INVALID_REQUEST", "")) == Exit.FAILED
    assert exit_of(APIConnectionError()) == exit_of(APITimeoutError()) == Exit.UNREACHABLE
    assert exit_of(FlowFileError([])) == exit_of(StoreError()) == Exit.FAILED
    assert exit_of(SettingsError()) == Exit.USAGE


def test_without_the_servers_libraries_one_sentence_says_what_to_install() -> None:
    done = runglass("--help", program=f"import sys; sys.modules['click'] = None; {MAIN}")
    assert done.returncode == 1
    assert 'pip install "runglass[server]"' in done.stderr
    assert done.stderr.count("\n") == 1


@pytest.mark.parametrize("closed", [">&-", "<&- >&- 2>&-"])
def test_a_command_does_its_work_without_its_streams(closed: str) -> None:
    done = runglass("keys", "create", "--create", "acme/shop", inside=in_shell("", after=closed))
    assert (done.returncode, "Traceback" in done.stderr) == (Exit.OK, False)
