-- Budgets and spending are exact decimals, which no integer holds at every price: they are kept as text.
ALTER TABLE project ADD COLUMN budget_usd TEXT;
ALTER TABLE project ADD COLUMN spent_usd TEXT NOT NULL DEFAULT '0';

UPDATE project SET spent_usd = printf('%d.%012d', spent_pico / 1000000000000, spent_pico % 1000000000000);
UPDATE project SET budget_usd = printf('%d.%012d', budget_pico / 1000000000000, budget_pico % 1000000000000)
  WHERE budget_pico IS NOT NULL;

ALTER TABLE project DROP COLUMN budget_pico;
ALTER TABLE project DROP COLUMN spent_pico;

-- What a run adds up to is part of what is told of it, in the names that are sent. A patch leaves out what is null;
-- `plain_usd` is a function of the migration, which writes a decimal without an exponent.
UPDATE run SET summary = CAST(json_patch(CAST(summary AS TEXT), json_object(
    'flowSlug', (SELECT slug FROM flow WHERE flow.id = flow_id),
    'version', version,
    'sessionId', session_id,
    'totals', json(json_patch('{}', json_object(
      'completed', coalesce(json_extract(CAST(totals AS TEXT), '$.completed'), 0),
      'failed', coalesce(json_extract(CAST(totals AS TEXT), '$.failed'), 0),
      'retried', coalesce(json_extract(CAST(totals AS TEXT), '$.retried'), 0),
      'skipped', coalesce(json_extract(CAST(totals AS TEXT), '$.skipped'), 0),
      'tokens', json_extract(CAST(totals AS TEXT), '$.tokens'),
      'costUsd', plain_usd(json_extract(CAST(totals AS TEXT), '$.cost_usd')),
      'unmeteredCalls', 0,
      'unpricedCalls', coalesce(json_extract(CAST(totals AS TEXT), '$.unpriced_calls'), 0)))))) AS BLOB)
  WHERE json_valid(CAST(summary AS TEXT)) AND (totals IS NULL OR json_valid(CAST(totals AS TEXT)));

ALTER TABLE run DROP COLUMN totals;
