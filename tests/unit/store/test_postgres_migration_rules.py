"""A migration of PostgreSQL lets programs of the version before go on, as docs/rolling-restart.md asks for.

What a look at its text can find is found here; `make prove ARGS="rolling --from COMMIT"` has the programs.
"""

import re
from collections.abc import Iterator

import pytest

from runglass.store.migration_files import Migration
from runglass.store.postgres.migrations import migrations

FORBIDDEN = {
    r"DROP (TABLE|COLUMN|FUNCTION|SEQUENCE|TYPE|TRIGGER)": "takes away what these programs use",
    r"\bRENAME\b": "takes away a name that these programs use",
    r"ALTER COLUMN \S+ (SET DATA )?TYPE": "rewrites a table, and gives these programs values of another kind",
    r"ALTER COLUMN \S+ SET NOT NULL": "reads a whole table under a lock, and refuses rows of these programs",
    r"ADD COLUMN (?!.*\bDEFAULT\b).*\bNOT NULL\b": "refuses rows of these programs, which do not fill it",
    r"ADD COLUMN .*\bDEFAULT (random|clock_timestamp|gen_random_uuid)": "rewrites a table under a lock",
    r"ADD (CONSTRAINT|CHECK|UNIQUE|PRIMARY|FOREIGN)": "refuses what these programs write",
    r"^(TRUNCATE|LOCK)\b": "keeps these programs from a whole table",
    r"^(UPDATE|DELETE FROM) (run|event|step|step_attempt|checkpoint)\b": "locks the rows of all runs",
}
NEW_TABLE = re.compile(r"^CREATE TABLE (?:IF NOT EXISTS )?(\w+)", re.I)
INDEX = re.compile(r"^CREATE (?:UNIQUE )?INDEX .*?\bON (\w+)", re.I)
FUNCTION = re.compile(r"^CREATE (OR REPLACE )?FUNCTION (\w+) ?\((.*?)\) RETURNS", re.I)
# These have come, and what they do was looked at: the queue and the leases have few rows, and a trigger fills
# `pick` for programs that do not.
ALLOWED = {
    ("0006_queue_order.sql", "ALTER TABLE queue ALTER COLUMN pick SET NOT NULL"),
    ("0006_queue_order.sql", "CREATE INDEX queue_by_project ON queue (project_id, pick, run_no)"),
    ("0006_queue_order.sql", "CREATE INDEX queue_by_pick ON queue (pick, run_no)"),
    # Reads all runs, and has few to sort: those that go on.
    ("0006_queue_order.sql", "CREATE INDEX run_owned_of_project ON run (project_id) WHERE owner IS NOT NULL"),
}


def statements(sql: str) -> Iterator[str]:
    """Each in one line, without comments; bodies of functions are left out."""
    plain = re.sub(r"--.*", "", re.sub(r"\$\$.*?\$\$", "''", sql, flags=re.S))
    yield from filter(None, (" ".join(each.split()) for each in plain.split(";")))


def functions(before: list[Migration]) -> dict[str, str]:
    """The parameters of each function that there is by then."""
    found = (FUNCTION.match(each) for migration in before for each in statements(migration.sql))
    return {match[2]: match[3] for match in found if match}


def faults(migration: Migration, before: list[Migration]) -> list[str]:
    """What of it does not go well beside programs of the version before."""
    found, made, there = [], set[str](), functions(before)
    for each in statements(migration.sql):
        if (migration.name, each) in ALLOWED:
            continue
        if table := NEW_TABLE.match(each):
            made.add(table[1])
        if (index := INDEX.match(each)) and index[1] not in made:
            found.append(f"{each}: keeps writers from a table while the index is made")
        if (function := FUNCTION.match(each)) and there.get(function[2], function[3]) != function[3]:
            found.append(f"{each}: these programs call it with other values; a new one takes a new name")
        found += [f"{each}: {why}" for what, why in FORBIDDEN.items() if re.search(what, each, re.I)]
    return found


@pytest.mark.parametrize("number", range(2, len(migrations()) + 1))
def test_a_migration_lets_programs_of_the_version_before_go_on(number: int) -> None:
    *before, migration = migrations()[:number]
    if not migration.breaks:
        assert faults(migration, before) == []
