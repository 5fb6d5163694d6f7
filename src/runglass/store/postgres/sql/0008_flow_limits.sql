-- How many runs of a flow may go on is looked at where runs are claimed, so the queue says of which flow each is. Rows that were
-- written before this do not, and count for no flow.
ALTER TABLE queue ADD COLUMN flow_id text COLLATE "C";

CREATE OR REPLACE FUNCTION place_in_queue() RETURNS trigger LANGUAGE plpgsql AS $$
BEGIN
  NEW.flow_id := (SELECT flow_id FROM run WHERE no = NEW.run_no);
  IF NEW.pick IS NULL THEN
    UPDATE project_change SET last_pick = greatest(
      last_pick + 1 / weight,
      coalesce((SELECT min(pick) FROM queue WHERE pick > 0), (SELECT last_value FROM queue_clock))
    ) WHERE project_id = NEW.project_id RETURNING last_pick INTO NEW.pick;
  END IF;
  RETURN NEW;
END
$$;

-- As before, for the same programs; but the run is there before its row in the queue is.
CREATE OR REPLACE FUNCTION create_run(
  written_at text, new_id text, new_project bigint, new_flow text, new_version bigint, new_trigger text,
  new_capture text, new_session text, new_request bytea, new_summary bytea, new_owner text, new_key bigint,
  call_key text, call_digest bytea
) RETURNS SETOF run LANGUAGE plpgsql AS $$
DECLARE
  new_no bigint;
BEGIN
  IF NOT EXISTS (SELECT FROM run WHERE id = new_id) THEN
    IF call_key IS NOT NULL THEN
      INSERT INTO call (project_id, key, digest, run_id, head, created_at)
        VALUES (new_project, call_key, call_digest, new_id, 0, written_at) ON CONFLICT DO NOTHING;
      IF NOT FOUND THEN
        -- The same, sent before and slower, may have committed meanwhile.
        RETURN QUERY SELECT * FROM run WHERE id = new_id;
        RETURN;
      END IF;
    END IF;
    new_no := new_run_no();
    INSERT INTO run_request (run_no, request) VALUES (new_no, new_request);
    PERFORM count_bytes(new_project, length(new_request));
    INSERT INTO run (no, id, project_id, flow_id, version, status, trigger_type, capture, session_id, summary, owner,
        key_id, open_bytes, change_no)
      VALUES (new_no, new_id, new_project, new_flow, new_version, 'pending', new_trigger, new_capture, new_session,
        new_summary, new_owner, new_key, length(new_request), new_changes(new_project, 1))
      ON CONFLICT (id) DO NOTHING;
    IF NOT FOUND THEN
      RAISE serialization_failure USING MESSAGE = 'the run was created meanwhile';
    END IF;
    IF new_owner IS NULL THEN
      INSERT INTO queue (run_no, project_id) VALUES (new_no, new_project);
    END IF;
  END IF;
  RETURN QUERY SELECT * FROM run WHERE id = new_id;
END
$$;
