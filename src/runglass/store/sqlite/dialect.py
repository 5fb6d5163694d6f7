"""What SQLite says in its own way inside of statements that both kinds of store share."""

from runglass.store.dialect import Dialect

SQLITE = Dialect(
    project=(
        "SELECT id, org, name, capture, budget_usd, spent_usd, retention_days, content_retention_days,"
        " reserved_usd, allowed_models, data_bytes, capture_failed, capture_sample FROM project"
    ),
    new_project="",
    large_value="zeroblob(10000)",
    changes="SELECT id AS project_id, run_changes AS last FROM project",
    moment="now()",
    note_error="INSERT OR REPLACE INTO run_error SELECT * FROM error_of_run WHERE no = :run_no",
    next_fence="fence + 1",
    set_weight="UPDATE project SET weight = :weight WHERE id = :project_id AND weight <> :weight",
    new_import="INSERT INTO importing_run (run_no) VALUES (:run_no)",
    has_content="has_content = 1",
    forget_runs="UPDATE run_number SET last = max(last, :last)",
    tables_of_runs=(
        "SELECT kept.name, has.name FROM sqlite_schema AS kept JOIN pragma_table_info(kept.name) AS has"
        " WHERE kept.type = 'table' AND (has.name IN ('run_no', 'run_id')"
        " OR kept.name = 'run' AND has.name = 'no') ORDER BY kept.name, has.name"
    ),
    # One process has the file: what it does not import itself, nobody does.
    abandoned="NOT run_no = ANY (:own)",
)
