-- The jobs of a flow, newest first: among many other runs they must not be looked for one by one.
CREATE INDEX run_job ON run (project_id, flow_id, id) WHERE trigger_type = 'job';
CREATE INDEX run_job_by_status ON run (project_id, flow_id, status, id) WHERE trigger_type = 'job';
