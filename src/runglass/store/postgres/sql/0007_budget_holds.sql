-- What processes are about to reserve of a budget: decided, and not in the log of its run yet. A hold counts while the run goes
-- on under the fence that it had then: whoever takes the run over sees what its log has, and nothing else was asked of a model.
CREATE TABLE budget_hold (
  id uuid PRIMARY KEY,
  project_id bigint NOT NULL,
  for_run bigint NOT NULL,
  fence bigint NOT NULL,
  usd numeric NOT NULL
);

CREATE INDEX budget_hold_by_project ON budget_hold (project_id);
