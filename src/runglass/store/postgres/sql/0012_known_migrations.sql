-- The newest migration that the program of a process knows: one that would break it is not applied while the process lives.
-- Programs of the version before do not tell, and know no more than 11.
ALTER TABLE lease ADD COLUMN knows_migration bigint NOT NULL DEFAULT 11;
