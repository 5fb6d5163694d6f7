-- Any project may use the id of a session. What is found under it must be of one project alone, and nobody's runs
-- may be gone through for another.
DROP INDEX run_by_session;
CREATE INDEX run_by_session ON run (project_id, session_id, id) WHERE session_id IS NOT NULL;
