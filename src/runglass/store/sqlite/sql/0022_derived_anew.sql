-- What follows from a run's log has grown: totals by model, errors, cancelled attempts. Runs that an older version wrote get
-- it by a fold of their logs. Those from before lists of changes (0015) lack some; those after it at most what was cancelled.
UPDATE run SET summary = (
    SELECT folded_summary(run.summary, data) FROM (SELECT data FROM event WHERE run_no = run.no ORDER BY seq))
  WHERE head > 0 AND json_valid(CAST(summary AS TEXT)) AND (change_no = 0 OR EXISTS (
    SELECT 1 FROM step WHERE run_no = run.no AND status = 'failed' AND instr(data, CAST('"CANCELLED"' AS BLOB)) > 0));

-- Then members that were missing were written as null, which is told from their absence: a step had an error that was null.
UPDATE step SET data = without_nulls(data)
  WHERE run_no IN (SELECT no FROM run WHERE change_no = 0) AND instr(data, CAST(':null' AS BLOB)) > 0;
UPDATE step_attempt SET data = without_nulls(data)
  WHERE run_no IN (SELECT no FROM run WHERE change_no = 0) AND instr(data, CAST(':null' AS BLOB)) > 0;
