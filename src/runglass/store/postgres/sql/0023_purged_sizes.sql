-- How much deleting what a purged run has left takes: many small runs go together. NULL where that is not known.
ALTER TABLE purged_run ADD COLUMN events bigint;
ALTER TABLE purged_run ADD COLUMN bytes bigint;
