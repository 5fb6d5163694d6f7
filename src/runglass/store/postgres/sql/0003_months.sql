-- Partitions of a month: the rows of runs that were created in it. Dropping one gives its space back at once.

-- Attached and not made in place, which would keep readers and writers out.
CREATE FUNCTION make_months(ahead integer) RETURNS void LANGUAGE plpgsql AS $$
DECLARE
  month bigint;
  parent text;
  part text;
BEGIN
  FOR month IN SELECT generate_series(month_of(now()), month_of(now()) + ahead) LOOP
    FOREACH parent IN ARRAY ARRAY['event', 'step', 'step_attempt'] LOOP
      part := format('%s_%s_%s', parent, 2020 + month / 12, lpad((month % 12 + 1)::text, 2, '0'));
      IF to_regclass(part) IS NULL THEN
        EXECUTE format('CREATE TABLE %I (LIKE %I INCLUDING ALL)', part, parent);
        EXECUTE format('ALTER TABLE %I ATTACH PARTITION %I FOR VALUES FROM (%s) TO (%s)',
          parent, part, month << 40, (month + 1) << 40);
      END IF;
    END LOOP;
  END LOOP;
END
$$;

-- Drops the partitions of the month in which this run was created, if that is over for a day and has no run left; false
-- where it is not, or where readers are in the way.
CREATE FUNCTION drop_month_of(run_no bigint) RETURNS boolean LANGUAGE plpgsql AS $$
DECLARE
  month bigint := run_no >> 40;
  parent text;
BEGIN
  IF month >= month_of(now() - interval '1 day')
    OR EXISTS (SELECT FROM run WHERE no >= month << 40 AND no < (month + 1) << 40)
    OR EXISTS (SELECT FROM importing_run AS i WHERE i.run_no >= month << 40 AND i.run_no < (month + 1) << 40)
  THEN
    RETURN false;
  END IF;
  -- Everybody who reads or appends waits for as long as this does.
  SET LOCAL lock_timeout = '100ms';
  FOREACH parent IN ARRAY ARRAY['event', 'step', 'step_attempt'] LOOP
    EXECUTE format('DROP TABLE IF EXISTS %I',
      format('%s_%s_%s', parent, 2020 + month / 12, lpad((month % 12 + 1)::text, 2, '0')));
  END LOOP;
  RETURN true;
EXCEPTION WHEN lock_not_available THEN
  RETURN false;
END
$$;
