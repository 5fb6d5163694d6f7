-- Whether a version of a flow came with an imported run: it is there to be read, and does not run.
ALTER TABLE flow_version ADD COLUMN imported INTEGER NOT NULL DEFAULT 0;
