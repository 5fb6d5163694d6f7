"""What PostgreSQL says in its own way inside of statements that both kinds of store share."""

from runglass.store.dialect import Dialect

_TOTAL = "coalesce((SELECT sum({0}) FROM project_total WHERE project_id = project.id), 0)"

POSTGRES = Dialect(
    project=(
        f"SELECT id, org, name, capture, budget_usd, {_TOTAL.format('spent_usd')}, retention_days,"
        f" content_retention_days, {_TOTAL.format('reserved_usd')}, allowed_models,"
        f" {_TOTAL.format('data_bytes')}::bigint, capture_failed, capture_sample FROM project"
    ),
    new_project="INSERT INTO project_change (project_id, last) VALUES (:project_id, 0)",
    large_value="repeat('0', 10000)",
    changes="SELECT project_id, last FROM project_change",
    moment="CURRENT_TIMESTAMP",
    note_error="",
    # After a standby has taken over without the newest commits a claim may be made anew, and no fence of a
    # claim that was lost may come again: its process lives, and would write into the log of the next one.
    next_fence="fence + 1 + floor(random() * 1000000000)::bigint",
    set_weight=(
        "UPDATE project_change SET weight = :weight WHERE project_id = :project_id AND weight <> :weight"
    ),
    new_import="INSERT INTO importing_run (run_no, owner) VALUES (:run_no, :owner)",
    has_content="has_content",
    forget_runs="DELETE FROM run_setback WHERE run_id = ANY (:ids)",
    # Found where `run` is: a schema that bears the name of the role comes before it, and may be empty.
    tables_of_runs=(
        "SELECT relname, attname FROM pg_class JOIN pg_attribute ON attrelid = pg_class.oid"
        " WHERE relkind IN ('r', 'p') AND NOT relispartition"
        " AND relnamespace = (SELECT relnamespace FROM pg_class WHERE oid = to_regclass('run'))"
        " AND (attname IN ('run_no', 'run_id') OR relname = 'run' AND attname = 'no')"
        " ORDER BY relname, attname"
    ),
    abandoned=(
        "NOT run_no = ANY (:own) AND NOT EXISTS (SELECT 1 FROM lease WHERE lease.owner = importing_run.owner)"
    ),
)
