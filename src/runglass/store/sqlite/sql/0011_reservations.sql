-- What is held back of a budget for requests to models that are being made, and which models a project may use:
-- a JSON list of patterns, null for none.
ALTER TABLE project ADD COLUMN reserved_usd TEXT NOT NULL DEFAULT '0';
ALTER TABLE project ADD COLUMN allowed_models TEXT;
