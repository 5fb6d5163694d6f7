-- Breaks programs that know no more than migration 4.
-- Leases run by the clock of the database, so that those of the processes need not agree. Programs of the version before
-- write times of their own; they ran alone on a database anyway.
ALTER TABLE lease ALTER COLUMN expires_at TYPE timestamptz USING expires_at::timestamptz;

-- What one process at a time does for all: who does it, and until when others leave it to him.
CREATE TABLE maintenance (
  task text COLLATE "C" PRIMARY KEY,
  holder uuid NOT NULL,
  held_until timestamptz NOT NULL
) WITH (fillfactor = 50);

-- The lease under which a run is imported; where that is gone, nobody goes on with the import.
ALTER TABLE importing_run ADD COLUMN owner text COLLATE "C";
