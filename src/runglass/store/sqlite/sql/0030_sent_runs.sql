-- How far the runs of a project have been sent on as spans: up to the change with this number. "deleted" counts those that
-- were deleted before. Project 0, of which there is no run, says that sending has begun: a project that is made later is
-- sent from its first run on.
CREATE TABLE sent_run (
  project_id INTEGER PRIMARY KEY,
  change_no INTEGER NOT NULL,
  deleted INTEGER NOT NULL DEFAULT 0
) STRICT;
