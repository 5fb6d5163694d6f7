-- A run that is being imported has rows, and none in "run" until all of them are there: nobody finds it before. What
-- was not finished when the process ended is purged at the next start.
CREATE TABLE importing_run (
  run_no INTEGER PRIMARY KEY
) STRICT;
