-- Budgets and spending are exact decimals, which no integer holds at every price: they are kept as text.
ALTER TABLE project ADD COLUMN budget_usd TEXT;
ALTER TABLE project ADD COLUMN spent_usd TEXT NOT NULL DEFAULT '0';

UPDATE project SET spent_usd = printf('%d.%012d', spent_pico / 1000000000000, spent_pico % 1000000000000);
UPDATE project SET budget_usd = printf('%d.%012d', budget_pico / 1000000000000, budget_pico % 1000000000000)
  WHERE budget_pico IS NOT NULL;

ALTER TABLE project DROP COLUMN budget_pico;
ALTER TABLE project DROP COLUMN spent_pico;

-- What a run adds up to is part of what is told of it, in the names that are sent.
UPDATE run SET summary = CAST(json_set(CAST(summary AS TEXT), '$.totals', json_object(
    'completed', json_extract(CAST(totals AS TEXT), '$.completed'),
    'failed', json_extract(CAST(totals AS TEXT), '$.failed'),
    'retried', json_extract(CAST(totals AS TEXT), '$.retried'),
    'skipped', json_extract(CAST(totals AS TEXT), '$.skipped'),
    'tokens', json_extract(CAST(totals AS TEXT), '$.tokens'),
    'costUsd', json_extract(CAST(totals AS TEXT), '$.cost_usd'),
    'unpricedCalls', json_extract(CAST(totals AS TEXT), '$.unpriced_calls'))) AS BLOB)
  WHERE totals IS NOT NULL;

ALTER TABLE run DROP COLUMN totals;
