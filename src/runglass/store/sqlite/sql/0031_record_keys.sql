-- A key may only send traces. Which roles there are is for whoever makes keys to say; a column loses its check only by
-- another one that takes its place.
ALTER TABLE api_key RENAME COLUMN role TO former_role;
ALTER TABLE api_key ADD COLUMN role TEXT NOT NULL DEFAULT 'read';
UPDATE api_key SET role = former_role;
ALTER TABLE api_key DROP COLUMN former_role;
