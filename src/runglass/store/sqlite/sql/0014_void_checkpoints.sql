-- A run that goes back makes the checkpoints of the steps behind void with one small row for each step; their bytes
-- are deleted bit by bit. `seq` is that of the append which wrote a checkpoint: void are those up to the given one. It
-- stands before the data, so that asking for it reads no megabytes.
ALTER TABLE checkpoint RENAME TO old_checkpoint;
CREATE TABLE checkpoint (
  run_no INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  loop_path TEXT NOT NULL,
  seq INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, step_id, loop_path)
) STRICT;
INSERT INTO checkpoint SELECT run_no, step_id, loop_path, 0, data FROM old_checkpoint;
DROP TABLE old_checkpoint;

CREATE TABLE void_checkpoint (
  run_no INTEGER NOT NULL,
  step_id TEXT NOT NULL,
  seq INTEGER NOT NULL,
  PRIMARY KEY (run_no, step_id)
) STRICT, WITHOUT ROWID;
