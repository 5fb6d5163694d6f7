-- Who holds a lease: for people, who look which processes there are. Programs of the version before tell none of it.
ALTER TABLE lease ADD COLUMN host text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE lease ADD COLUMN pid bigint NOT NULL DEFAULT 0;
ALTER TABLE lease ADD COLUMN version text COLLATE "C" NOT NULL DEFAULT '';
ALTER TABLE lease ADD COLUMN executes_runs boolean NOT NULL DEFAULT true;
ALTER TABLE lease ADD COLUMN since timestamptz NOT NULL DEFAULT now();
