-- Written and taken away again by whoever asks whether the disk takes writes at all.
CREATE TABLE write_check (
  no INTEGER PRIMARY KEY,
  data BLOB NOT NULL
) STRICT;
