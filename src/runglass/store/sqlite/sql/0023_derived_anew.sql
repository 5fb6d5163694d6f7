-- What is derived from a run's log has grown: totals by model, errors, cancelled attempts. Runs that an older version
-- wrote get it by a fold of their logs: those from before 0015 lack all of it, those after it what was cancelled.
UPDATE run SET summary = coalesce((
    SELECT folded_summary(run.summary, data) FROM (SELECT data FROM event WHERE run_no = run.no ORDER BY seq)
  ), summary)
  WHERE head > 0 AND (change_no = 0 OR EXISTS (
    SELECT 1 FROM step WHERE run_no = run.no AND status = 'failed' AND instr(data, CAST('"CANCELLED"' AS BLOB)) > 0));

-- The first versions wrote missing members as null: a completed step seemed to have an error.
UPDATE step SET data = without_nulls(data)
  WHERE run_no IN (SELECT no FROM run WHERE change_no = 0) AND instr(data, CAST(':null' AS BLOB)) > 0;
UPDATE step_attempt SET data = without_nulls(data)
  WHERE run_no IN (SELECT no FROM run WHERE change_no = 0) AND instr(data, CAST(':null' AS BLOB)) > 0;
