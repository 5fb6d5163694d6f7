-- How outputs are kept of a project's runs that fail, and which share of its runs is kept whole; NULL as the server says.
ALTER TABLE project ADD COLUMN capture_failed text;
ALTER TABLE project ADD COLUMN capture_sample double precision;
