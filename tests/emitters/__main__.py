"""`make emitters`: libraries that send traces, each in its environment, against a real server and a ledger.

Exit code 1 where what the runs tell is not what the model server told, but for `shortfalls.toml`.
"""

import argparse
import sys
from pathlib import Path

from runglass.testing import ORG, PROJECT, RunningServer, running_server
from tests.emitters import fixtures
from tests.emitters.capture import flow_of
from tests.emitters.comparison import Shortfall, compare, shortfalls
from tests.emitters.environments import lock, make_environment
from tests.emitters.readback import Api, Told
from tests.emitters.running import Ran, RowFailed, run_row
from tests.emitters.table import ROWS, Row
from tests.process_guard import stand_guard

ROOT = Path(__file__).parents[2]
ENVIRONMENTS = ROOT / ".emitters"
PAGE = ROOT / "docs" / "emitters.md"
HEAD = """# Libraries that send traces

Written by `make emitters`: it runs each library in its own environment against a model server that keeps a
ledger, and sends the library's spans to a real Runglass server. "Tokens reported" is the usage that the model
server reported; the totals of the runs equal it, to the token, except for what the last column says. A call
without reported usage, such as an abandoned stream, is unmetered; so is a failed call that has a span.
[Recorded runs](spec/recording.md) says how totals follow from spans.

| row | libraries | cases | calls | spans | tokens reported | tokens in the runs | unmetered calls | missing |
| --- | --- | --- | --- | --- | --- | --- | --- | --- |
"""


def main() -> int:
    parser = argparse.ArgumentParser("make emitters")
    parser.add_argument("rows", nargs="*", metavar="ROW", help="which rows; all by default")
    parser.add_argument(
        "--record", action="store_true", help="file what they send as fixtures of `make test`"
    )
    parser.add_argument(
        "--lock", action="store_true", help="take the newest versions of all libraries before"
    )
    options = parser.parse_args()
    known = {row.name: row for row in ROWS}
    if unknown := set(options.rows) - set(known):
        parser.error(f"no rows are {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    rows = [known[name] for name in options.rows or known]
    stand_guard()
    for environment in sorted({row.environment for row in rows}):
        if options.lock:
            lock(environment)
        _say(f"{environment}: preparing")
        make_environment(ENVIRONMENTS, environment)
    lines, is_right = [], True
    with running_server(capture="full") as server:
        for row in rows:
            line = _line(row, server, is_recorded=options.record)
            is_right = is_right and line is not None
            lines.append(line or "")
    if is_right and len(rows) == len(ROWS):
        PAGE.write_text(HEAD + "".join(lines), "utf-8")
    _say(HEAD.splitlines()[-2])
    for line in lines:
        _say(line.rstrip())
    return 0 if is_right else 1


def _line(row: Row, server: RunningServer, *, is_recorded: bool) -> str | None:
    """The row's line of the table; None where something is wrong, which is printed."""
    key = server.make_key(ORG, PROJECT, "record")
    try:
        ran = run_row(row, ENVIRONMENTS, target=server.address, key=key)
    except RowFailed as error:
        _say(f"{row.name}: {error}")
        return None
    api, known = Api(server.address, server.key), shortfalls()
    wrong: list[str] = []
    tellings = []
    for case in ran.cases:
        told = api.told(flow_of(row.name, case.name))
        tellings.append(told)
        found = compare(case.name, case.calls, case.refused, told, known.get((row.name, case.name)))
        failed = [case.error] if case.error else []
        wrong += [f"{case.name}: {each}" for each in failed + found]
    _say(f"{row.name}: {len(ran.cases)} cases, {f'{len(wrong)} mistakes' if wrong else 'all right'}")
    for each in wrong:
        _say(f"  {each}")
    if wrong:
        return None
    if is_recorded:
        fixtures.write(row.name, ran)
    return _cells(row, ran, tellings, [each for each in known.values() if each.row == row.name])


def _cells(row: Row, ran: Ran, tellings: list[Told], known: list[Shortfall]) -> str:
    calls = [call for case in ran.cases for call in case.calls if call.status == 200]
    first, *others = ran.versions.items()
    cases: dict[str, list[str]] = {}
    for each in known:
        cases.setdefault(each.reason, []).append(f"`{each.case}`")
    for case, reason in ran.cannot.items():
        cases.setdefault(f"not run: {reason}.", []).append(f"`{case}`")
    cells = (
        row.name,
        f"**{first[0]}** {first[1]}" + "".join(f", {name} {version}" for name, version in others),
        str(len(ran.cases)),
        str(len(calls)),
        str(sum(each.spans for each in tellings)),
        f"{sum(call.told.input + call.told.output for call in calls if call.told):,}",
        f"{sum(each.usage.input + each.usage.output for each in tellings):,}",
        str(sum(each.unmetered for each in tellings)),
        " ".join(f"{', '.join(names)}: {reason}" for reason, names in cases.items()),
    )
    return f"| {' | '.join(cells)} |\n"


def _say(text: str) -> None:
    sys.stdout.write(text + "\n")
    sys.stdout.flush()


if __name__ == "__main__":
    sys.exit(main())
