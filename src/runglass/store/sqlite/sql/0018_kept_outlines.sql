-- The outlines of large runs that have ended, packed, in parts. The last one that is written is part 0.
CREATE TABLE kept_outline (
  run_no INTEGER NOT NULL,
  part INTEGER NOT NULL,
  data BLOB NOT NULL,
  PRIMARY KEY (run_no, part)
) STRICT;

-- The large runs that have ended and whose outlines are still to be kept.
CREATE TABLE due_outline (
  run_no INTEGER PRIMARY KEY
) STRICT;

INSERT INTO due_outline SELECT no FROM run WHERE ended_at IS NOT NULL AND head >= 20000;
