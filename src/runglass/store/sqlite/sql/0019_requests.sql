-- The head of a paused run when its next segment was stored, which makes it one that can go on; and why a run is to be
-- cancelled by whoever has it.
ALTER TABLE run ADD COLUMN resume_head INTEGER NOT NULL DEFAULT -1;
ALTER TABLE run ADD COLUMN cancel_reason TEXT;

CREATE INDEX run_resumed ON run (project_id, id) WHERE resume_head >= 0;
