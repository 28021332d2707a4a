CREATE SCHEMA ledger;

COMMENT ON SCHEMA ledger IS 'functions sha256:...';

CREATE FUNCTION ledger.add_low_marks(p_project text, p_kinds text[], p_returning boolean, INOUT mark_kinds text[], INOUT mark_priorities integer[], INOUT mark_runs uuid[], INOUT mark_dues timestamp with time zone[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
  WITH mark AS MATERIALIZED (
    SELECT place.* FROM unnest(p_kinds) AS named (kind)
    CROSS JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark
    CROSS JOIN LATERAL (
      SELECT named.kind, waiting.priority, waiting.run, NULL::timestamptz AS due
      FROM unnest(mark.priorities, mark.runs) AS waiting (priority, run)
      UNION ALL
      SELECT named.kind, back.priority, NULL, back.due
      FROM unnest(mark.back_priorities, mark.dues) AS back (priority, due) WHERE p_returning
    ) AS place
  )
  SELECT mark_kinds || array_agg(mark.kind), mark_priorities || array_agg(mark.priority),
    mark_runs || array_agg(mark.run), mark_dues || array_agg(mark.due)
  INTO mark_kinds, mark_priorities, mark_runs, mark_dues FROM mark;
END $$;

CREATE FUNCTION ledger.advance_schedule(p_project text, p_name text, p_updated_at timestamp with time zone, p_seen timestamp with time zone, p_next_at timestamp with time zone, p_last_due timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{schedule}');
BEGIN
  checked := ledger.check_given('p_next_at', p_next_at IS NOT NULL);
  checked := ledger.check_times(ARRAY[p_next_at, p_last_due]);
  PERFORM FROM ledger.schedule AS known
  WHERE known.project_id = p_project AND known.name = p_name AND NOT known.paused
    AND known.updated_at = p_updated_at AND known.next_at = p_seen
  FOR UPDATE SKIP LOCKED;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE ledger.schedule AS known SET next_at = p_next_at, last_due = p_last_due
  WHERE known.project_id = p_project AND known.name = p_name;
  RETURN true;
END $$;

CREATE FUNCTION ledger.append(p_project text, p_actor text, p_runs uuid[], p_tokens integer[], p_types text[], p_schema_versions integer[] DEFAULT NULL::integer[], p_names text[] DEFAULT NULL::text[], p_error_codes text[] DEFAULT NULL::text[], p_bodies text[] DEFAULT NULL::text[], p_costs numeric[] DEFAULT NULL::numeric[], p_steps integer[] DEFAULT NULL::integer[], p_expected integer[] DEFAULT NULL::integer[], p_keys text[] DEFAULT NULL::text[], p_workers text[] DEFAULT NULL::text[]) RETURNS TABLE(run_id uuid, version integer, hash bytea)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit,decide}' END::text[], ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL
    OR num_nonnulls(VARIADIC p_tokens) = cardinality(p_runs)); -- else the lease's worker
  checked := ledger.check_given('p_runs', p_runs IS NOT NULL);
  p_schema_versions := coalesce(p_schema_versions, array_fill(1, ARRAY[cardinality(p_runs)]));
  checked := ledger.check_given('p_schema_versions',
    num_nonnulls(VARIADIC p_schema_versions) = cardinality(p_runs));
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_types(p_types, p_schema_versions);
  checked := ledger.check_content(p_bodies);
  checked := ledger.check_costs(p_costs);
  checked := ledger.check_corrections(p_tokens, p_costs, p_steps);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.lock_runs(p_project, p_runs);
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- the commands, in the order of the locks
    SELECT given.*, CASE WHEN given.body IS NOT NULL
      THEN sha256(seed || uuid_send(given.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_types, p_schema_versions, p_names, p_error_codes, p_bodies,
      p_costs::numeric(18, 6)[], p_steps, p_expected, p_keys, p_workers)
      AS given (run_id, token, type, schema_version, name, error_code, body, cost, steps, expected,
        key, worker)
    -- Types that move a lease or a state have functions of their own, which know their rules.
    WHERE split_part(given.type, '.', 1) NOT IN ('run', 'lease', 'tool', 'approval', 'cancel',
      'write', 'payload')
    ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those whose run allows them
    SELECT asked.*, run.version, run.hash, run.updated_at, run.worker_id FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.worker_id
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        AND (asked.token IS NULL AND split_part(asked.type, '.', 1) <> 'step'
          OR run.token = asked.token AND run.lease_credential = writer
            AND run.worker_id IS NOT DISTINCT FROM asked.worker)
        AND ledger.legal(asked.type, run.state, NULL)
        AND (asked.expected IS NULL OR run.version = asked.expected)
        AND (asked.key IS NULL OR NOT EXISTS (
          SELECT FROM ledger.command AS used WHERE used.project_id = p_project
            AND used.key = asked.key OFFSET 0))
        AND run.cost_usd + coalesce(asked.cost, 0) BETWEEN 0 AND 999999999999
          AND run.step_count::bigint + coalesce(asked.steps, 0) BETWEEN 0 AND 2147483647
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event that each makes
    SELECT locked.*, locked.version + 1 AS new_version,
      greatest(ledger.now(), locked.updated_at) AS recorded_at,
      coalesce(p_actor, CASE WHEN locked.token IS NOT NULL THEN locked.worker_id END) AS who,
      ledger.payload_hash(locked.salt, locked.body) AS payload_hash
    FROM locked
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  )
  INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type,
    schema_version, actor, name, token, cost_usd, step_count, error_code, key, payload_hash,
    credential, hash)
  SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.schema_version,
    next.who, next.name, next.token, next.cost, next.steps, next.error_code, next.key,
    next.payload_hash, writer,
    ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
      next.type, next.who, next.schema_version, name => next.name, token => next.token,
      cost_usd => next.cost, step_count => next.steps, error_code => next.error_code,
      key => next.key, payload_hash => next.payload_hash, credential => writer)
  FROM next
  RETURNING appended.run_id, appended.version, appended.hash;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.record_keys(p_project, p_runs, p_keys, ARRAY(
      SELECT ledger.command_text(given.run_id, given.type, false, given.name,
        given.error_code, given.body, given.cost, given.steps, NULL, NULL, NULL)
      FROM unnest(p_runs, p_types, p_names, p_error_codes, p_bodies, p_costs, p_steps)
        WITH ORDINALITY AS given (run_id, type, name, error_code, body, cost, steps, ordinal)
      ORDER BY given.ordinal), seed);
  END IF;
END $$;

CREATE FUNCTION ledger.append_control(p_list text, p_type text, p_subject text, p_facts text, p_actor text, p_reason text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  head ledger.control_head;
  new_number bigint;
  new_hash bytea;
  moment timestamptz;
BEGIN
  PERFORM ledger.lock_control(p_list);
  SELECT * INTO head FROM ledger.control_head AS list_head WHERE list_head.project_id = p_list;
  new_number := coalesce(head.number, 0) + 1;
  moment := greatest(ledger.now(), (SELECT newest.recorded_at FROM ledger.control_event AS newest
    WHERE newest.project_id = p_list AND newest.number = head.number));
  new_hash := ledger.control_hash(coalesce(head.hash, ''::bytea), new_number, moment, p_list,
    writer, p_type, p_subject, p_facts, p_actor, p_reason);
  INSERT INTO ledger.control_event (project_id, number, recorded_at, credential, type, subject,
    facts, actor, reason, hash)
  VALUES (p_list, new_number, moment, writer, p_type, p_subject, p_facts, p_actor, p_reason,
    new_hash)
  ON CONFLICT DO NOTHING; -- a snapshot older than the newest event: a serialization failure
  IF NOT FOUND THEN
    RAISE EXCEPTION 'event % of the control history of % is there already', new_number, p_list
      USING ERRCODE = '40001';
  END IF;
  UPDATE ledger.control_head AS list_head SET number = new_number, hash = new_hash
  WHERE list_head.project_id = p_list;
  IF NOT FOUND THEN
    INSERT INTO ledger.control_head (project_id, number, hash)
    VALUES (p_list, new_number, new_hash);
  END IF;
END $$;

CREATE FUNCTION ledger.attach_partition(p_month timestamp without time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  partition text := 'event_' || to_char(p_month, 'YYYY_MM');
  unsampled name;
BEGIN
  EXECUTE format('ALTER TABLE ledger.event ATTACH PARTITION ledger.%I FOR VALUES FROM (%L) TO (%L)',
    partition, ledger.uuid7_floor(p_month), ledger.uuid7_floor(p_month + '1 month'));
  EXECUTE format('CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.%I '
    'EXECUTE FUNCTION ledger.refuse_change()', partition);
  EXECUTE format('CREATE TRIGGER refuse_insert BEFORE INSERT ON ledger.%I '
    'EXECUTE FUNCTION ledger.refuse_change()', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER refuse_truncate', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ALWAYS TRIGGER refuse_insert', partition);
  EXECUTE format('ALTER TABLE ledger.%I ENABLE ROW LEVEL SECURITY', partition);
  EXECUTE format('REVOKE ALL ON ledger.%I FROM PUBLIC', partition);
  FOR unsampled IN -- see access/statistics
    SELECT attribute.attname FROM pg_attribute AS attribute
    WHERE attribute.attrelid = 'ledger.event'::regclass AND attribute.attnum > 0
      AND attribute.attstattarget = 0
  LOOP
    EXECUTE format('ALTER TABLE ledger.%I ALTER COLUMN %I SET STATISTICS 0', partition, unsampled);
  END LOOP;
  EXECUTE format('ANALYZE ledger.%I', partition);
END $$;

CREATE FUNCTION ledger.await_kinds(p_project text, p_kinds text[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
BEGIN
  PERFORM FROM ledger.kind_event AS held
  WHERE held.project_id = p_project AND held.kind = ANY (p_kinds) AND held.number = 1
  ORDER BY held.kind FOR UPDATE;
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END $$;

CREATE FUNCTION ledger.await_turn(p_turn bigint) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '1s'
    AS $$
BEGIN
  FOR other IN 1..31 LOOP -- the last five bits of the key are the number of the turn
    IF pg_try_advisory_xact_lock(p_turn # other) THEN
      RETURN;
    END IF;
  END LOOP;
  PERFORM pg_advisory_xact_lock(p_turn);
EXCEPTION WHEN lock_not_available OR deadlock_detected THEN
  NULL;
END $$;

CREATE FUNCTION ledger.begin_session(p_credential text, p_sha256 bytea, p_user_changed_at timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  IF p_sha256 IS NULL OR octet_length(p_sha256) <> 32 THEN
    RAISE EXCEPTION 'a session has a SHA-256 of 32 bytes' USING ERRCODE = '22023';
  END IF;
  DELETE FROM ledger.web_session AS session WHERE session.session_id IN (
    SELECT ended.session_id FROM ledger.web_session AS ended
    WHERE ended.credential = p_credential AND (
      ended.ended_at < moment - interval '30 days' OR ended.expires_at < moment - interval '30 days'
      OR ended.session_id IN (SELECT own.session_id FROM ledger.web_session AS own
        WHERE own.credential = p_credential ORDER BY own.created_at DESC OFFSET 50))
    FOR UPDATE SKIP LOCKED);
  INSERT INTO ledger.web_session (session_id, sha256, credential, created_at, expires_at,
    last_used_at, user_changed_at)
  VALUES (left(replace(gen_random_uuid()::text, '-', ''), 12), p_sha256, p_credential, moment,
    moment + interval '12 hours', moment, p_user_changed_at);
END $$;

CREATE FUNCTION ledger.begin_work(p_name text, p_shared boolean) RETURNS bigint
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '5s'
    AS $$
DECLARE
  checked boolean;
  new_key CONSTANT bigint :=
    ('x' || left(replace(gen_random_uuid()::text, '-', ''), 16))::bit(64)::bigint;
  holder text;
BEGIN
  checked := ledger.check_access('*', '{read}');
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_shared', p_shared IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_name], 200, true);
  IF p_name = 'archive' AND NOT p_shared
    AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
    RAISE EXCEPTION 'only the owner of the ledger changes its archive' USING ERRCODE = '42501';
  END IF;
  -- Only upgrades write this table, so no login can hold it; the lock of at_work is for upgrades.
  BEGIN
    LOCK TABLE ledger.alembic_version IN SHARE ROW EXCLUSIVE MODE;
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'a transaction that began or upgraded something is left open by %',
      ledger.holders('ledger.alembic_version', NULL) USING ERRCODE = '55P03';
  END;
  DELETE FROM ledger.at_work AS work WHERE NOT EXISTS (
    SELECT FROM pg_locks AS lock
    WHERE lock.locktype = 'advisory' AND lock.objsubid = 1 AND lock.granted AND lock.pid = work.pid
      AND lock.database = (SELECT this_database.oid FROM pg_database AS this_database
        WHERE this_database.datname = current_database())
      AND (lock.classid::bigint << 32 | lock.objid::bigint) = work.key);
  SELECT format('process %s, login %s', work.pid, session.usename) INTO holder
  FROM ledger.at_work AS work LEFT JOIN pg_stat_activity AS session ON session.pid = work.pid
  WHERE work.name = p_name AND NOT (work.shared AND p_shared) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION '% is at work on %', holder, p_name USING ERRCODE = '55P03';
  END IF;
  PERFORM pg_advisory_lock(new_key);
  INSERT INTO ledger.at_work (name, shared, pid, key)
  VALUES (p_name, p_shared, pg_backend_pid(), new_key);
  RETURN new_key;
END $$;

CREATE FUNCTION ledger.cancel(p_project text, p_actor text, p_runs uuid[], p_body text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, version integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  checked boolean;
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_content(ARRAY[p_body]);
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each run once, in the order of the locks
    SELECT DISTINCT given.run_id FROM unnest(p_runs) AS given (run_id) ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that have not ended
    SELECT asked.run_id, run.*, run.token IS NOT NULL AS held, run.token IS NOT NULL
      AND run.cancel_requested_at IS NOT NULL AS repeated
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.token, run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id AND run.completed_at IS NULL
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event of each that was not asked before
    SELECT timed.*, timed.version + 1 AS new_version,
      CASE WHEN timed.held THEN 'cancel.requested' ELSE 'run.cancelled' END AS type,
      CASE WHEN NOT timed.held THEN 'cancelled' END AS state,
      ledger.payload_hash(timed.salt, p_body) AS payload_hash
    FROM (
      SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at,
        CASE WHEN p_body IS NOT NULL THEN sha256(seed || uuid_send(locked.run_id)) END AS salt
      FROM locked WHERE NOT locked.repeated
    ) AS timed
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, p_body::json FROM next
      WHERE p_body IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type, actor,
      state, payload_hash, credential, hash)
    SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, p_actor,
      next.state, next.payload_hash, writer,
      ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
        next.type, p_actor, state => next.state, payload_hash => next.payload_hash,
        credential => writer)
    FROM next
    RETURNING appended.run_id, appended.version
  )
  SELECT appended.run_id, appended.version FROM appended
  UNION ALL
  SELECT locked.run_id, locked.version FROM locked WHERE locked.repeated;
END $$;

CREATE FUNCTION ledger.cancels(p_project text, p_kind text, p_after bigint) RETURNS TABLE(run_id uuid, moved_position bigint, updated_at timestamp with time zone)
    LANGUAGE sql STABLE
    AS $$
  SELECT run.run_id, run.moved_position, run.updated_at FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind
    AND (run.cancel_requested_at IS NOT NULL) = true AND run.moved_position > p_after
    AND run.token IS NULL AND run.completed_at IS NULL
  ORDER BY run.project_id, run.kind, (run.cancel_requested_at IS NOT NULL), run.moved_position
$$;

CREATE FUNCTION ledger.change_access(p_project text, p_actor text, p_credential text, p_rights text[], p_actors text[], p_until timestamp with time zone, p_reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
  had_rights boolean;
  speaks_for text[] := coalesce(p_actors, ARRAY[p_credential, p_credential || ':*']);
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_credential', p_credential IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_credential] || speaks_for, 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_times(ARRAY[p_until]);
  IF p_rights IS NULL OR cardinality(speaks_for) NOT BETWEEN 1 AND 100 THEN
    RAISE EXCEPTION 'a grant has rights, and 1 to 100 actors' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control(p_project);
  had_rights := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
  INSERT INTO ledger.access_grant (credential, project_id, rights, actors, until, actor, reason)
  VALUES (p_credential, p_project,
    ARRAY(SELECT DISTINCT asked FROM unnest(p_rights) AS asked ORDER BY asked), speaks_for, p_until,
    p_actor, p_reason)
  ON CONFLICT (credential, project_id) DO UPDATE SET rights = excluded.rights,
    actors = excluded.actors, until = excluded.until, actor = excluded.actor,
    reason = excluded.reason;
  IF had_rights OR cardinality(p_rights) > 0 THEN -- else its right to connect is not ours
    PERFORM ledger.change_connect(p_credential);
    PERFORM ledger.limit_login(p_project, p_actor, p_credential, p_reason);
  END IF;
EXCEPTION WHEN check_violation THEN -- the table's constraint lists the rights
  RAISE EXCEPTION 'rights % are not all known', array_to_string(p_rights, ', ')
    USING ERRCODE = '22023';
END $$;

CREATE FUNCTION ledger.change_connect(p_credential text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  database CONSTANT text := current_database();
  has_rights CONSTANT boolean := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
BEGIN
  IF NOT EXISTS (SELECT FROM pg_roles AS login
      WHERE login.rolname = p_credential AND login.rolcanlogin)
    OR NOT (SELECT pg_has_role(current_user, this_database.datdba, 'USAGE')
      FROM pg_database AS this_database WHERE this_database.datname = database)
    OR has_rights = EXISTS (
      SELECT FROM pg_database AS this_database, aclexplode(this_database.datacl) AS entry
      WHERE this_database.datname = database AND entry.privilege_type = 'CONNECT'
        AND entry.grantee = (SELECT login.oid FROM pg_roles AS login
          WHERE login.rolname = p_credential)) THEN
    RETURN;
  END IF;
  IF has_rights THEN
    EXECUTE format('GRANT CONNECT ON DATABASE %I TO %I', database, p_credential);
  ELSE
    EXECUTE format('REVOKE CONNECT ON DATABASE %I FROM %I', database, p_credential);
  END IF;
EXCEPTION WHEN lock_not_available OR internal_error THEN -- held, or just changed, by another
  IF NOT has_rights THEN
    RAISE WARNING '% has no right any more, but may still connect: another change of who may '
      'connect is at work', p_credential;
    RETURN;
  END IF;
  RAISE EXCEPTION 'the logins that may connect are being changed by %', CASE
      WHEN ledger.is_owner() THEN ledger.holders('ledger.access_grant', NULL)
      ELSE 'another session: try again when its transaction has ended' END
    USING ERRCODE = '55P03';
END $$;

CREATE FUNCTION ledger.change_kind(p_project text, p_actor text, p_kind text, p_type text, p_max_running integer DEFAULT NULL::integer, p_reason text DEFAULT NULL::text, p_ahead boolean DEFAULT false) RETURNS TABLE(kind text, number integer, paused boolean, max_running integer, updated_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_kind', p_kind IS NOT NULL);
  checked := ledger.check_given('p_type', p_type IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_kind], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF p_type NOT IN ('kind.paused', 'kind.resumed', 'kind.limited') OR p_max_running < 1
    OR p_max_running IS NOT NULL AND p_type <> 'kind.limited' THEN
    RAISE EXCEPTION 'a kind is paused, resumed, or limited to at least one run at a time'
      USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_kind(p_project, p_kind, p_ahead);
  PERFORM ledger.lock_control(p_project);
  INSERT INTO ledger.kind_event (project_id, kind, number, recorded_at, actor, type, max_running,
    reason)
  SELECT p_project, p_kind, coalesce(max(change.number), 0) + 1,
    greatest(ledger.now(), max(change.recorded_at)), p_actor, p_type,
    p_max_running, p_reason
  FROM ledger.kind_event AS change WHERE change.project_id = p_project AND change.kind = p_kind;
  RETURN QUERY
  SELECT state.kind, state.number, state.paused, state.max_running, state.updated_at
  FROM ledger.kind_state AS state
  WHERE state.project_id = p_project AND state.kind = p_kind;
END $$;

CREATE FUNCTION ledger.change_role(p_project text, p_actor text, p_type text, p_role text, p_member text, p_reason text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_role', p_role IS NOT NULL);
  checked := ledger.check_given('p_member', p_member IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_role, p_member], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF (p_type IN ('role.granted', 'role.revoked')) IS NOT TRUE THEN
    RAISE EXCEPTION 'a role is granted or revoked' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control(p_project);
  INSERT INTO ledger.role_event (project_id, number, recorded_at, type, role, member, actor, reason)
  SELECT p_project, (SELECT coalesce(max(recorded.number), 0) + 1 FROM ledger.role_event AS recorded
      WHERE recorded.project_id = p_project),
    ledger.now(), p_type, p_role, p_member, p_actor, p_reason
  WHERE p_type = 'role.granted' OR EXISTS (SELECT FROM ledger.role_member AS membership
    WHERE membership.project_id = p_project AND membership.role = p_role
      AND membership.member = p_member)
  ON CONFLICT DO NOTHING; -- a snapshot older than the newest event: a serialization failure
  RETURN FOUND;
END $$;

CREATE FUNCTION ledger.change_schedule(p_project text, p_actor text, p_name text, p_change text, p_next_at timestamp with time zone, p_reason text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
  known ledger.schedule;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_reason', btrim(p_reason) <> '');
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_times(ARRAY[p_next_at]);
  IF (p_change IN ('pause', 'resume', 'run')) IS NOT TRUE
    OR (p_next_at IS NOT NULL) <> (p_change = 'resume') THEN
    RAISE EXCEPTION 'a schedule is paused, run, or resumed from a time' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  SELECT schedule.* INTO known FROM ledger.schedule
  WHERE schedule.project_id = p_project AND schedule.name = p_name;
  IF NOT FOUND THEN
    RETURN false;
  ELSIF p_change = 'run' THEN
    PERFORM ledger.append_control(p_project, 'schedule.run',
      ledger.control_subject('schedule', 'project_id name', to_jsonb(known)),
      (to_jsonb(known) - '{next_at,last_due,updated_at}'::text[])::text, p_actor, p_reason);
  ELSIF known.paused <> (p_change = 'pause') THEN
    UPDATE ledger.schedule SET paused = p_change = 'pause', actor = p_actor,
      reason = p_reason, next_at = coalesce(p_next_at, schedule.next_at)
    WHERE schedule.project_id = p_project AND schedule.name = p_name;
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.change_token(p_actor text, p_token text, p_sha256 bytea, p_name text, p_lifetime interval, p_reason text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access('*', '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_token', p_token IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL OR p_sha256 IS NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_token], 40, true);
  checked := ledger.check_texts(ARRAY[p_name]);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.lock_control('*');
  IF p_sha256 IS NULL THEN
    UPDATE ledger.api_token AS token SET revoked_at = ledger.now(), actor = p_actor,
      reason = p_reason
    WHERE token.token_id = p_token AND token.revoked_at IS NULL;
    RETURN FOUND;
  END IF;
  IF octet_length(p_sha256) <> 32 OR p_lifetime IS NULL
    OR p_lifetime NOT BETWEEN '0' AND '3650 days' THEN
    RAISE EXCEPTION 'a token has a SHA-256 of 32 bytes, and ends within ten years'
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.api_token (token_id, sha256, name, created_at, expires_at, actor, reason)
  VALUES (p_token, p_sha256, p_name, ledger.now(), ledger.now() + p_lifetime, p_actor, p_reason);
  INSERT INTO ledger.credential_use (credential) VALUES ('token:' || p_token)
  ON CONFLICT DO NOTHING;
  RETURN true;
END $$;

CREATE FUNCTION ledger.change_user(p_actor text, p_name text, p_change text, p_method text, p_salt bytea, p_key_sha256 bytea, p_issuer text, p_subject text, p_reason text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  checked boolean;
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  checked := ledger.check_access('*', '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  checked := ledger.check_texts(ARRAY[p_method], 60);
  checked := ledger.check_given('p_change', p_change IS NOT NULL);
  IF p_method !~ '^argon2id t=([1-9]|10) m=[1-9][0-9]{0,5} p=[1-4]$'
    OR substring(p_method FROM 'm=([0-9]+)')::int > 262144
  THEN
    RAISE EXCEPTION 'a key takes at most 10 passes, 262144 KiB and 4 lanes, as in "argon2id t=3 '
      'm=65536 p=1": %', p_method USING ERRCODE = '22023';
  END IF;
  IF p_change NOT IN ('add', 'password', 'disable', 'enable') OR p_name IS NULL
    OR p_name !~ '^[a-z0-9][a-z0-9._@-]{0,99}$'
    OR p_key_sha256 IS NOT NULL AND (octet_length(p_key_sha256) <> 32 OR p_method IS NULL
      OR coalesce(octet_length(p_salt), 0) NOT BETWEEN 16 AND 64)
    OR (p_key_sha256 IS NOT NULL)
      <> (p_change = 'password' OR p_change = 'add' AND p_subject IS NULL)
    OR (p_issuer IS NULL) <> (p_subject IS NULL)
  THEN
    RAISE EXCEPTION 'a user has a name of a-z, 0-9, ".", "_", "@" and "-", and a password or a '
      'subject of an issuer' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.lock_control('*');
  IF p_change = 'add' THEN
    checked := ledger.check_texts(ARRAY[p_issuer], 500);
    checked := ledger.check_texts(ARRAY[p_subject], 255);
    INSERT INTO ledger.user_account (name, issuer, subject, created_at, changed_at, actor, reason)
    VALUES (p_name, p_issuer, p_subject, moment, moment, p_actor, p_reason)
    ON CONFLICT DO NOTHING;
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    INSERT INTO ledger.credential_use (credential) VALUES ('user:' || p_name)
    ON CONFLICT DO NOTHING;
  ELSE
    UPDATE ledger.user_account AS account SET changed_at = moment, actor = p_actor,
      reason = p_reason, disabled_at = CASE p_change WHEN 'disable' THEN moment
        WHEN 'enable' THEN NULL ELSE account.disabled_at END
    WHERE account.name = p_name AND (p_change = 'password'
      OR (p_change = 'disable') = (account.disabled_at IS NULL));
    IF NOT FOUND THEN
      RETURN false;
    END IF;
    PERFORM ledger.note_use('user:' || p_name, NULL);
  END IF;
  IF p_key_sha256 IS NOT NULL THEN
    INSERT INTO ledger.user_password (name, method, salt, key_sha256)
    VALUES (p_name, p_method, p_salt, p_key_sha256)
    ON CONFLICT (name) DO UPDATE SET method = excluded.method, salt = excluded.salt,
      key_sha256 = excluded.key_sha256;
  END IF;
  RETURN true;
END $_$;

CREATE FUNCTION ledger.change_view(p_project text, p_actor text, p_name text, p_query text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  checked boolean;
  changed boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  checked := ledger.check_texts(ARRAY[p_query], 1000, true);
  IF p_query IS NULL THEN
    DELETE FROM ledger.saved_view AS view WHERE view.project_id = p_project AND view.name = p_name;
    changed := FOUND;
  ELSE
    IF (SELECT count(*) FROM ledger.saved_view AS view
        WHERE view.project_id = p_project AND view.name <> p_name) >= 50 THEN
      RAISE EXCEPTION 'the project has 50 views: remove one' USING ERRCODE = '22023';
    END IF;
    INSERT INTO ledger.saved_view AS view (project_id, name, query, actor)
    VALUES (p_project, p_name, p_query, p_actor)
    ON CONFLICT (project_id, name) DO UPDATE SET query = excluded.query, actor = excluded.actor
    WHERE view.query <> excluded.query;
    changed := FOUND;
  END IF;
  INSERT INTO ledger.view_event (project_id, name, number, recorded_at, query, actor, credential)
  SELECT p_project, p_name, (SELECT coalesce(max(recorded.number), 0) + 1
      FROM ledger.view_event AS recorded
      WHERE recorded.project_id = p_project AND recorded.name = p_name),
    ledger.now(), p_query, p_actor, ledger.credential()
  WHERE changed
  ON CONFLICT DO NOTHING; -- with a snapshot from before the newest, a serialization failure
  RETURN changed;
END $$;

CREATE FUNCTION ledger.change_webhook(p_project text, p_actor text, p_webhook text, p_action text, p_url text, p_events text[], p_kinds text[], p_secret bytea, p_from_now boolean, p_reason text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $_$
DECLARE
  checked boolean;
  new_id CONSTANT text := 'wh_' || left(replace(gen_random_uuid()::text, '-', ''), 12);
  remote CONSTANT text := '^[hH][tT][tT][pP][sS]://[^/?#@]+([/?#]|$)';
  loopback CONSTANT text := E'^http://(localhost|127\\.0\\.0\\.1|\\[::1\\])(:[0-9]+)?([/?#]|$)';
  checkpoint_now text := (SELECT feed.generation || '/' || feed.moment || '//0'
    FROM ledger.feed_now() AS feed);
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_action', p_action IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_webhook], 40, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.lock_row('ledger.webhook', 'webhook_id', p_project, p_webhook);
  IF p_action IN ('pause', 'resume') THEN
    UPDATE ledger.webhook SET is_paused = p_action = 'pause', actor = p_actor,
      reason = p_reason, checkpoint = CASE WHEN p_from_now THEN checkpoint_now
        ELSE webhook.checkpoint END
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook
      AND webhook.is_paused = (p_action = 'resume');
    RETURN CASE WHEN FOUND THEN p_webhook END;
  END IF;
  IF p_action = 'remove' THEN
    -- The control history records the row as it was removed, so the row must name who removes it.
    UPDATE ledger.webhook SET actor = p_actor, reason = p_reason
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook;
    DELETE FROM ledger.webhook
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook;
    RETURN CASE WHEN FOUND THEN p_webhook END;
  END IF;
  checked := ledger.check_texts(ARRAY[p_url], 2000, true);
  checked := ledger.check_given('p_events', num_nulls(VARIADIC p_events) = 0);
  checked := ledger.check_given('p_kinds', num_nulls(VARIADIC p_kinds) = 0);
  checked := ledger.check_types(p_events, array_fill(1, ARRAY[cardinality(p_events)]));
  checked := ledger.check_texts(p_kinds, 200, true);
  IF p_action <> 'add' OR p_webhook IS NOT NULL
    OR p_url IS NULL OR p_url !~ remote AND p_url !~ loopback OR p_url !~ '^[!-~]+$'
    OR coalesce(octet_length(p_secret), 0) NOT BETWEEN 24 AND 64
    OR cardinality(p_events) > 100 OR cardinality(p_kinds) > 100 THEN
    RAISE EXCEPTION 'a new webhook has an https URL without a password, a secret of 24 to 64 '
      'bytes, at most 100 types and kinds, and no id yet' USING ERRCODE = '22023';
  END IF;
  IF EXISTS (SELECT FROM unnest(p_events) AS named (type) WHERE NOT ledger.is_type(named.type)) THEN
    RAISE EXCEPTION '% are not all types of events', array_to_string(p_events, ', ')
      USING ERRCODE = '22023';
  END IF;
  IF (SELECT count(*) FROM ledger.webhook WHERE webhook.project_id = p_project) >= 50 THEN
    RAISE EXCEPTION 'project % has 50 webhooks already: remove one', p_project
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.webhook
    (project_id, webhook_id, url, events, kinds, checkpoint, actor, reason)
  VALUES (p_project, new_id, p_url, p_events, p_kinds, checkpoint_now, p_actor, p_reason);
  INSERT INTO ledger.webhook_secret (webhook_id, secret) VALUES (new_id, p_secret);
  RETURN new_id;
END $_$;

CREATE FUNCTION ledger.channel(p_project text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  allowed CONSTANT text[] := ledger.projects_with();
BEGIN
  RETURN (SELECT project.channel FROM ledger.project
    WHERE project.project_id = p_project AND (allowed IS NULL OR p_project = ANY (allowed)));
END $$;

CREATE FUNCTION ledger.check_access(p_project text, p_rights text[], p_actors text[] DEFAULT NULL::text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
  speaks_for text[];
  place text; -- a project with a grant of its own exists
BEGIN
  IF ledger.is_owner() THEN
    RETURN p_project = '*' OR ledger.check_project(p_project);
  END IF;
  IF current_setting('transaction_isolation') <> 'read committed'
    AND current_setting('transaction_read_only') = 'off' THEN
    PERFORM ledger.check_snapshot();
  END IF;
  -- Without sub-selects, which would cost every call even where they are not evaluated. Where there
  -- is a grant for the project and one for all projects, either may be found; if that one does not
  -- suffice, ledger.check_grants looks at all of them.
  SELECT granted.actors, granted.project_id INTO speaks_for, place
  FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND granted.project_id IN (p_project, '*')
    AND p_rights && granted.rights AND (granted.until IS NULL OR granted.until > ledger.now());
  -- Names that are granted literally need no query.
  IF FOUND AND (p_actors IS NULL OR '*' = ANY (speaks_for)
    OR array_remove(p_actors, NULL) <@ speaks_for) THEN
    RETURN place = p_project OR ledger.check_project(p_project);
  END IF;
  IF NOT FOUND OR EXISTS (
    SELECT FROM unnest(p_actors) AS asked
    WHERE asked IS NOT NULL AND NOT EXISTS (
      SELECT FROM unnest(speaks_for) AS known
      WHERE asked = known OR right(known, 1) = '*'
        AND starts_with(asked, left(known, length(known) - 1)))) THEN
    PERFORM ledger.check_grants(p_project, p_rights, p_actors);
  END IF;
  RETURN place = p_project OR ledger.check_project(p_project);
END $$;

CREATE FUNCTION ledger.check_checkpoint(p_checkpoint text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  moment CONSTANT text := '[0-9]{1,19}:[0-9]{1,19}:[0-9,]*@[0-9]{1,19}(?:@[0-9a-f]{16})?';
  parts CONSTANT text[] := regexp_match(p_checkpoint,
    concat('^([0-9]{1,9})/(', moment, ')/(', moment, ')?/([0-9]{1,18})$'));
BEGIN
  IF parts IS NULL OR greatest(split_part(parts[2], '@', 2)::numeric,
      nullif(split_part(parts[3], '@', 2), '')::numeric, parts[4]::numeric)
    > (SELECT newest.last_value FROM ledger.event_position AS newest) THEN
    RAISE EXCEPTION 'the checkpoint is not from this feed' USING ERRCODE = '22023';
  END IF;
  PERFORM ledger.check_moment(parts[1]::int, parts[2]);
  IF parts[3] IS NOT NULL THEN
    PERFORM ledger.check_moment(parts[1]::int, parts[3]);
  END IF;
  RETURN true;
END $_$;

CREATE FUNCTION ledger.check_cluster() RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  this ledger.feed_generation;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the feed cannot be read on a standby' USING ERRCODE = 'RF411';
  END IF;
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.end_position IS NULL;
  IF this.system_identifier <> (
    SELECT cluster.system_identifier FROM pg_control_system() AS cluster)
    OR EXISTS (
      -- Events of an earlier generation may keep higher ids. Those that their cluster still appends
      -- have the highest, so it is enough to look at a few.
      SELECT FROM (
        SELECT ahead.txid, ahead.position FROM ledger.event AS ahead
        WHERE ahead.txid >= pg_snapshot_xmax(pg_current_snapshot())
        ORDER BY ahead.txid DESC, ahead.position DESC LIMIT 100
      ) AS newest
      WHERE newest.position > split_part(this.start, '@', 2)::bigint
        AND newest.txid IS DISTINCT FROM pg_current_xact_id_if_assigned()) THEN
    RAISE EXCEPTION 'the events were restored into another cluster' USING ERRCODE = 'RF410';
  END IF;
END $$;

CREATE FUNCTION ledger.check_content(p_bodies text[]) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  joined text;
  doubtful boolean;
  body text;
  problem text;
BEGIN
  IF pg_column_size(p_bodies) > 268435456 THEN
    RAISE EXCEPTION 'more than 256 MB of content in one call' USING ERRCODE = '54000';
  END IF;
  joined := array_to_string(p_bodies, '');
  doubtful := joined ~ E'\\\\u|[0-9][eE][+]?[0-9]{3}';
  FOREACH body IN ARRAY coalesce(p_bodies, '{}') LOOP
    CONTINUE WHEN body IS NULL OR NOT doubtful AND left(body, 1) = '{' AND (
      octet_length(body) < 66
      OR octet_length(body) <= 16777216
        AND length(body) - length(translate(body, '[{', '')) <= 33
        AND (octet_length(body) < 250 OR body !~ '[0-9]{250}')
    );
    problem := ledger.content_problem(body);
    IF problem IS NOT NULL THEN
      RAISE EXCEPTION 'content % %', quote_literal(left(body, 40)), problem USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_corrections(p_tokens integer[], p_costs numeric[], p_steps integer[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
BEGIN
  IF 0 > ANY (p_costs) OR 0 > ANY (p_steps) THEN -- this test comes first because a query costs more
    IF EXISTS (SELECT FROM unnest(p_tokens, p_costs, p_steps) AS given (token, cost, steps)
      WHERE given.token IS NULL AND (given.cost < 0 OR given.steps < 0)) THEN
      RAISE EXCEPTION 'a cost or steps may be below zero only from the holder of the lease'
        USING ERRCODE = '22023';
    END IF;
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_costs(p_costs numeric[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE PARALLEL SAFE
    AS $$
DECLARE
  odd numeric;
BEGIN
  -- NaN is greater than all numbers. This test comes first because a query costs more.
  IF 1000000000 < ANY (p_costs) OR -1000000000 > ANY (p_costs) THEN
    SELECT given.cost INTO odd FROM unnest(p_costs) AS given (cost)
    WHERE given.cost > 1000000000 OR given.cost < -1000000000 LIMIT 1;
    RAISE EXCEPTION 'a cost is a finite number of US dollars, at most 1000000000, not %',
      left(odd::text, 40) USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_count(p_count integer) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
  IF p_count > 10000 THEN
    RAISE EXCEPTION '% commands in one call: 10000 at most', p_count USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_derived(p_expression text, p_columns text[]) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  words CONSTANT text[] := ARRAY['and', 'between', 'bigint', 'case', 'date', 'else', 'end', 'false',
    'float8', 'in', 'int', 'interval', 'is', 'like', 'not', 'null', 'numeric', 'or', 'text', 'then',
    'timestamptz', 'true', 'when', 'abs', 'ceil', 'coalesce', 'floor', 'greatest', 'least',
    'ledger.now', 'length', 'lower', 'nullif', 'round', 'upper'];
  rest text := regexp_replace(p_expression, '''[^'']*''', '''''', 'g');
  token text[];
BEGIN
  rest := regexp_replace(rest, E'extract\\s*\\(\\s*epoch\\s+from\\s', 'abs(', 'gi');
  rest := regexp_replace(rest, E'distinct\\s+from\\s', '= ', 'gi');
  IF p_expression IS NULL OR length(p_expression) > 1000 OR strpos(p_expression, E'\\') > 0
    OR rest ~ E'[^A-Za-z0-9_.,()+*/<>=|''\\s:-]|--|/\\*' THEN
    RAISE EXCEPTION 'a derived column must be an expression over the row, not %', p_expression
      USING ERRCODE = '22023';
  END IF;
  FOR token IN SELECT regexp_matches(rest, E'([A-Za-z0-9_.]+)\\s*(\\(?)', 'g') LOOP
    CONTINUE WHEN token[1] ~ E'^[0-9]+(\\.[0-9]+)?$' OR lower(token[1]) = ANY (words);
    IF token[1] <> ALL (p_columns) OR token[2] <> '' OR EXISTS (
      SELECT FROM pg_get_keywords() AS keyword
      WHERE keyword.word = token[1] AND keyword.catcode IN ('R', 'T')) THEN
      RAISE EXCEPTION '% may not be in a derived column: %', token[1], p_expression
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN p_expression;
END $_$;

CREATE FUNCTION ledger.check_due_keys(p_project text, p_keys text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  IF EXISTS (
    SELECT FROM unnest(p_keys) AS asked (key) WHERE starts_with(asked.key, 'schedule:')
  ) AND NOT ledger.has_right(p_project, '{schedule}') THEN
    RAISE EXCEPTION '% lacks the right schedule, which a key that begins with schedule: takes',
      ledger.credential() USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_given(p_name text, p_is_given boolean) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
  IF p_is_given IS NOT TRUE THEN
    RAISE EXCEPTION '% must be given, and must hold a value for every command', p_name
      USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_grants(p_project text, p_rights text[], p_actors text[]) RETURNS void
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  writer text := ledger.credential();
  place CONSTANT text :=
    CASE WHEN p_project = '*' THEN 'all projects' ELSE 'project ' || p_project END;
  held text[] := '{}';
  speaks_for text[] := '{}';
  given record;
  stranger text;
BEGIN
  IF session_user ~ '^(token|user):' THEN
    RAISE EXCEPTION 'login % has a name that is reserved for API tokens and users', session_user
      USING ERRCODE = 'RF403';
  END IF;
  FOR given IN
    SELECT granted.rights, granted.actors FROM ledger.access_grant AS granted
    WHERE granted.credential = writer AND granted.project_id IN (p_project, '*')
      AND (granted.until IS NULL OR granted.until > ledger.now())
  LOOP
    held := held || given.rights;
    IF p_rights && given.rights THEN
      speaks_for := speaks_for || given.actors;
    END IF;
  END LOOP;
  IF held = '{}' AND p_project <> '*' THEN
    RAISE EXCEPTION 'project % does not exist, or % has no access to it', p_project, writer
      USING ERRCODE = 'RF404';
  END IF;
  IF NOT p_rights && held THEN
    RAISE EXCEPTION '% lacks the right % in %', writer, array_to_string(p_rights, ' or '), place
      USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
  SELECT actor INTO stranger FROM unnest(p_actors) AS actor
  WHERE actor IS NOT NULL AND NOT EXISTS (
    SELECT FROM unnest(speaks_for) AS known
    WHERE actor = known
      OR right(known, 1) = '*' AND starts_with(actor, left(known, length(known) - 1)))
  LIMIT 1;
  IF stranger IS NOT NULL THEN
    RAISE EXCEPTION '% may not speak for % in %, only for %', writer, stranger, place,
      array_to_string(speaks_for, ', ') USING ERRCODE = 'RF403', DETAIL = 'access';
  END IF;
END $$;

CREATE FUNCTION ledger.check_kind(p_project text, p_kind text, p_ahead boolean) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
  IF p_ahead IS NOT TRUE
    AND NOT EXISTS (SELECT FROM ledger.kind AS known
      WHERE known.project_id = p_project AND known.kind = p_kind)
    AND NOT EXISTS (SELECT FROM ledger.kind_state AS known
      WHERE known.project_id = p_project AND known.kind = p_kind)
    AND NOT EXISTS (SELECT FROM ledger.schedule AS known
      WHERE known.project_id = p_project AND known.kind = p_kind) THEN
    RAISE EXCEPTION 'no run of kind % was ever submitted', p_kind
      USING ERRCODE = 'RF407', DETAIL = p_kind, HINT = 'p_ahead allows a kind that has no run yet';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_moment(p_generation integer, p_moment text) RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  this ledger.feed_generation;
  newest xid8;
  hash text;
BEGIN
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  IF p_moment IN (this.start, '9223372036854775807:9223372036854775807:@' || this.end_position) THEN
    RETURN;
  END IF;
  newest := (pg_snapshot_xmax(split_part(p_moment, '@', 1)::pg_snapshot)::text::bigint - 1)::text;
  -- The newest event is the last of its transaction: one probe of the index, however many it has.
  SELECT left(encode(event.hash, 'hex'), 16) INTO hash FROM ledger.event AS event
  WHERE event.txid = newest AND event.position > split_part(this.start, '@', 2)::bigint
    AND event.position <= coalesce(this.end_position, 9223372036854775807)
  ORDER BY event.position DESC LIMIT 1;
  IF hash IS NOT NULL AND split_part(p_moment, '@', 3) IN (hash, '')
    OR EXISTS (SELECT FROM ledger.archive AS archived WHERE archived.detached
      AND archived.generation >= p_generation AND archived.last_txid >= newest) THEN
    RETURN;
  END IF;
  RAISE EXCEPTION 'the checkpoint %/% belongs to a history that this database does not have',
    p_generation, p_moment
    USING ERRCODE = 'RF413', DETAIL = p_generation || '/' || p_moment;
END $$;

CREATE FUNCTION ledger.check_months_read(p_generation integer, p_moment text) RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  missed text;
BEGIN
  -- its snapshot would still show a month that was archived since
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'the feed is read in transactions at READ COMMITTED'
      USING ERRCODE = 'invalid_transaction_state';
  END IF;
  SELECT string_agg(archived.month, ', ' ORDER BY archived.month) INTO missed
  FROM ledger.archive AS archived
  WHERE archived.detached AND NOT ledger.feed_passed(p_generation, p_moment,
    archived.generation, archived.last_position, archived.last_txid);
  IF missed IS NOT NULL THEN
    RAISE EXCEPTION 'the events of % are archived, and were not read before', missed
      USING ERRCODE = 'RF412', DETAIL = missed;
  END IF;
END $$;

CREATE FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) RETURNS void
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  PERFORM ledger.check_access(p_project, ARRAY[p_right], ARRAY[p_actor]);
END $$;

CREATE FUNCTION ledger.check_project(p_project text) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
  IF NOT EXISTS (SELECT FROM ledger.project AS project WHERE project.project_id = p_project) THEN
    PERFORM ledger.check_given('p_project', p_project IS NOT NULL);
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_projection_name(p_what text, p_name text, p_pattern text DEFAULT '[a-z][a-z0-9_]{0,40}'::text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
  IF p_name IS NULL OR p_name !~ ('^(' || p_pattern || ')$') THEN
    RAISE EXCEPTION '% % is not valid', p_what, coalesce(quote_literal(p_name), 'NULL')
      USING ERRCODE = '22023',
        HINT = 'Use 1 to 41 lower-case letters, digits and _, starting with a letter.';
  END IF;
  RETURN p_name;
END $_$;

CREATE FUNCTION ledger.check_request(p_body text) RETURNS integer
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  content CONSTANT json := p_body::json;
  checked CONSTANT boolean := ledger.check_texts(ARRAY[content ->> 'role']);
  wrong text;
BEGIN
  SELECT format('%s %s', part.name, part.value) INTO wrong FROM json_each(content)
    AS part (name, value)
  WHERE json_typeof(part.value) <> 'null' AND CASE
    WHEN part.name IN ('prompt', 'role', 'shown_sha256') THEN json_typeof(part.value) <> 'string'
    WHEN part.name = 'other_person' THEN json_typeof(part.value) <> 'boolean'
    WHEN part.name = 'based_on' THEN json_typeof(part.value) <> 'number'
    WHEN part.name = 'approvals' THEN part.value::text !~ '^([1-9]|10)$'
  END;
  IF wrong IS NOT NULL THEN
    RAISE EXCEPTION 'a request has a prompt, a role and a digest, which are texts, other_person, '
      'which is true or false, based_on, a version, and approvals from 1 to 10, not %',
      left(wrong, 80) USING ERRCODE = '22023';
  END IF;
  RETURN nullif((content ->> 'approvals')::int, 1);
END $_$;

CREATE FUNCTION ledger.check_snapshot() RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  secret CONSTANT text := coalesce(current_setting('runfold.token', true), '');
BEGIN
  PERFORM FROM ledger.access_grant AS granted WHERE granted.credential = writer FOR SHARE NOWAIT;
  IF secret <> '' THEN
    PERFORM FROM ledger.api_token AS token WHERE 'token:' || token.token_id = writer
    FOR SHARE NOWAIT;
    PERFORM FROM ledger.user_account AS account WHERE 'user:' || account.name = writer
    FOR SHARE NOWAIT;
    PERFORM FROM ledger.web_session AS session
    WHERE session.sha256 = sha256(convert_to(secret, 'UTF8')) FOR SHARE NOWAIT;
  END IF;
  RAISE EXCEPTION 'nothing was changed' USING ERRCODE = 'RF000';
EXCEPTION
  WHEN SQLSTATE 'RF000' THEN
    RETURN;
  WHEN lock_not_available THEN
    RAISE EXCEPTION 'the rights of % are being changed: try again', writer
      USING ERRCODE = '40001';
END $$;

CREATE FUNCTION ledger.check_tags(p_tags text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  literal text;
  checked boolean;
BEGIN
  FOREACH literal IN ARRAY coalesce(p_tags, '{}') LOOP
    checked := ledger.check_texts(literal::text[]);
    IF cardinality(literal::text[]) > 50 THEN
      RAISE EXCEPTION 'at most 50 tags to a run' USING ERRCODE = '22023';
    END IF;
    IF array_position(literal::text[], NULL) IS NOT NULL THEN
      RAISE EXCEPTION 'a tag must be text' USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_texts(p_values text[], p_limit integer DEFAULT 200, p_trimmed boolean DEFAULT false) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  blank constant text := E'[ \\u00a0\\u1680\\u2000-\\u200a\\u2028\\u2029\\u202f\\u205f\\u3000]';
  control constant text :=
    E'[\\u0001-\\u001f\\u007f-\\u009f\\u200b\\u202a-\\u202e\\u2066-\\u2069\\ufeff]';
  joined text;
  doubtful boolean;
  value text;
BEGIN
  IF cardinality(p_values) > 40000 THEN
    RAISE EXCEPTION 'a call takes at most 10,000 commands: split it' USING ERRCODE = '22023';
  END IF;
  IF array_ndims(p_values) > 1 OR array_lower(p_values, 1) <> 1 THEN
    RAISE EXCEPTION '% must be a plain list that begins at 1',
      quote_literal(left(p_values::text, 80)) USING ERRCODE = '22023';
  END IF;
  -- One test of all, joined by a character of private use: it may suspect more than are wrong.
  joined := array_to_string(p_values, E'\uE000');
  doubtful := joined ~ control
    OR p_trimmed AND joined ~ (E'(^|\\ue000)' || blank || '|' || blank || E'(\\ue000|$)');
  FOREACH value IN ARRAY coalesce(p_values, '{}') LOOP
    CONTINUE WHEN value IS NULL OR NOT doubtful AND length(value) BETWEEN 1 AND p_limit;
    IF length(value) NOT BETWEEN 1 AND p_limit THEN
      RAISE EXCEPTION '% must have 1 to % characters, not %',
        quote_literal(left(value, 80)), p_limit, length(value) USING ERRCODE = '22023';
    END IF;
    IF value ~ control THEN
      RAISE EXCEPTION '% must not contain control characters', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
    IF p_trimmed AND value ~ ('^' || blank || '|' || blank || '$') THEN
      RAISE EXCEPTION '% must not begin or end with a blank', quote_literal(value)
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $_$;

CREATE FUNCTION ledger.check_times(p_times timestamp with time zone[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
DECLARE
  odd timestamptz;
BEGIN
  FOREACH odd IN ARRAY p_times LOOP
    IF odd < '1970-01-01Z' OR odd >= '9001-01-01Z' THEN
      RAISE EXCEPTION 'a time is between the years 1970 and 9000, not %', odd
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $$;

CREATE FUNCTION ledger.check_types(p_types text[], p_versions integer[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
BEGIN
  -- Of another list an index below would find nothing.
  IF array_ndims(p_types) > 1 OR array_lower(p_types, 1) <> 1
    OR array_ndims(p_versions) > 1 OR array_lower(p_versions, 1) <> 1 THEN
    RAISE EXCEPTION 'event types and versions: each is a plain list that begins at 1'
      USING ERRCODE = '22023';
  END IF;
  FOR number IN 1 .. coalesce(cardinality(p_types), 0) LOOP
    IF length(p_types[number]) > 80 OR p_types[number] !~ E'^[a-z][a-z0-9_]*(\\.[a-z][a-z0-9_]*)+$'
    THEN
      RAISE EXCEPTION 'event type %: use lower-case words joined by dots',
        quote_literal(left(p_types[number], 80)) USING ERRCODE = '22023';
    END IF;
    IF p_types[number] IN ('note.added', 'step.completed', 'step.failed', 'signal.received')
      AND p_versions[number] IS DISTINCT FROM 1
    THEN
      RAISE EXCEPTION 'event type % has no schema version %', p_types[number], p_versions[number]
        USING ERRCODE = '22023';
    END IF;
  END LOOP;
  RETURN true;
END $_$;

CREATE FUNCTION ledger.check_workers(p_tokens integer[], p_workers text[]) RETURNS boolean
    LANGUAGE plpgsql IMMUTABLE
    AS $$
BEGIN
  IF num_nonnulls(VARIADIC p_tokens) > coalesce(num_nonnulls(VARIADIC p_workers), 0) THEN
    RAISE EXCEPTION 'a lease is named by its run, its token and its worker: p_workers lacks one'
      USING ERRCODE = '22023';
  END IF;
  RETURN true;
END $$;

CREATE FUNCTION ledger.claim(p_project text, p_worker text, p_kinds text[], p_limit integer, p_ttl interval, p_mark_kinds text[] DEFAULT '{}'::text[], p_mark_priorities integer[] DEFAULT '{}'::integer[], p_mark_runs uuid[] DEFAULT '{}'::uuid[], p_mark_dues timestamp with time zone[] DEFAULT '{}'::timestamp with time zone[]) RETURNS TABLE(run_id uuid, token integer, attempt integer, kind text, priority integer, max_attempts integer, lease_until timestamp with time zone, cancel_requested boolean, input text, due_at timestamp with time zone)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  checked boolean; -- never read: an assignment runs a check without a query, PERFORM with one
  of_kinds record;
  ranges record;
  moment timestamptz; -- a variable, because an index is not searched for a volatile function
  knows_returning boolean := coalesce(num_nonnulls(VARIADIC p_mark_dues) > 0, false);
  wanted int := p_limit;
  taken int;
  turn CONSTANT bigint := hashtextextended(concat_ws(' ', 'ledger.claim', p_project, p_kinds), 0)
    # (pg_backend_pid() % 32);
BEGIN
  checked := ledger.check_access(p_project, '{work}', ARRAY[p_worker]);
  checked := ledger.check_given('p_worker', p_worker IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_worker] || p_kinds, 200, true);
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000
    OR p_ttl IS NULL OR p_ttl <= '0' OR p_ttl > '1 day' THEN
    RAISE EXCEPTION 'a claim takes 1 to 10000 runs, for a time that is positive, at most a day'
      USING ERRCODE = '22023';
  END IF;
  IF NOT pg_try_advisory_xact_lock(turn) THEN
    PERFORM ledger.await_turn(turn);
  END IF;
  moment := ledger.now(); -- after the wait, so that what came due meanwhile is taken
  IF cardinality(p_mark_kinds) = 0 THEN
    PERFORM ledger.move_low_water(p_project, coalesce(p_kinds, ARRAY(
      SELECT DISTINCT known.kind FROM ledger.kind AS known WHERE known.project_id = p_project)),
      '1 second');
  END IF;
  of_kinds := ledger.kind_rooms(p_project, p_kinds, knows_returning, moment);
  IF of_kinds.places > 0 AND (of_kinds.places > 1 OR cardinality(p_mark_kinds) = 0) THEN
    SELECT low.* INTO p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues
    FROM ledger.add_low_marks(p_project, of_kinds.kinds, of_kinds.has_returning, p_mark_kinds,
      p_mark_priorities, p_mark_runs, p_mark_dues) AS low;
  END IF;
  ranges := ledger.claim_ranges(p_project, of_kinds.kinds, of_kinds.has_returning, p_limit, moment,
    of_kinds.limited, of_kinds.rooms, p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues);
  FOR round IN 1..2 LOOP -- the second only where other claims were in the way
    taken := 0;
    IF ranges.counted > 0 THEN
      RETURN QUERY
      WITH leases AS MATERIALIZED ( -- each lease; its token is the version of the event
        SELECT timed.*, timed.version + 1 AS token,
          timed.attempt_count + (timed.state = 'pending')::int AS attempt,
          timed.recorded_at + p_ttl AS lease_until
        FROM ( -- time never goes back within a run
          SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
          FROM ( -- the oldest that no other claim holds
            SELECT run.*
            FROM unnest(ranges.kinds, ranges.priorities, ranges.belows, ranges.runs, ranges.dues,
              ranges.quotas) AS range (kind, priority, below, run, due, quota)
            CROSS JOIN LATERAL (
              SELECT waiting.* FROM (
                SELECT run.run_id, run.version, run.hash, run.kind, run.priority, run.state,
                  run.attempt_count, run.max_attempts, run.updated_at, run.cancel_requested_at,
                  NULL::timestamptz AS due_at
                FROM ledger.run_state AS run
                WHERE range.due IS NULL AND run.project_id = p_project AND run.kind = range.kind
                  AND run.available_at <= run.created_at
                  AND (run.priority, run.run_id) >= (range.priority, range.run)
                  AND run.priority < range.below
                ORDER BY run.priority, run.run_id
                LIMIT range.quota
                FOR UPDATE SKIP LOCKED
              ) AS waiting
              UNION ALL
              SELECT back.* FROM (
                SELECT run.run_id, run.version, run.hash, run.kind, run.priority, run.state,
                  run.attempt_count, run.max_attempts, run.updated_at, run.cancel_requested_at,
                  run.available_at AS due_at
                FROM ledger.run_state AS run
                WHERE range.due IS NOT NULL AND run.project_id = p_project AND run.kind = range.kind
                  AND run.available_at > run.created_at AND run.priority = range.priority
                  AND (run.available_at, run.run_id) >= (range.due, range.run)
                  AND run.available_at <= moment
                ORDER BY run.available_at, run.run_id
                LIMIT range.quota
                FOR UPDATE SKIP LOCKED
              ) AS back
            ) AS run
            WHERE range.quota > 0
            ORDER BY run.priority, run.run_id
            LIMIT wanted
          ) AS locked
        ) AS timed
      ), appended AS (
        INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state,
          attempt, worker_id, token, lease_until, credential, hash)
        SELECT p_project, leases.run_id, leases.token, leases.recorded_at, 'lease.acquired',
          p_worker, 'running', leases.attempt, p_worker, leases.token, leases.lease_until, writer,
          ledger.event_hash(leases.hash, p_project, leases.run_id, leases.token, leases.recorded_at,
            'lease.acquired', p_worker, state => 'running', attempt => leases.attempt,
            worker_id => p_worker, token => leases.token, lease_until => leases.lease_until,
            credential => writer)
        FROM leases
      )
      SELECT leases.run_id, leases.token, leases.attempt, leases.kind, leases.priority,
        leases.max_attempts, leases.lease_until, leases.cancel_requested_at IS NOT NULL,
        input.body::text, leases.due_at
      FROM leases
      LEFT JOIN LATERAL (
        SELECT input.body FROM ledger.payload AS input
          WHERE input.project_id = p_project AND input.run_id = leases.run_id AND input.version = 1
          OFFSET 0
      ) AS input ON true;
      GET DIAGNOSTICS taken = ROW_COUNT;
    END IF;
    wanted := wanted - taken;
    EXIT WHEN wanted = 0 OR round = 2;
    IF taken = 0 AND cardinality(of_kinds.busy) > 0 AND cardinality(of_kinds.limited) = 0 THEN
      PERFORM ledger.await_kinds(p_project, of_kinds.busy);
      of_kinds := ledger.kind_rooms(p_project, p_kinds, knows_returning, moment);
      ranges := ledger.claim_ranges(p_project, of_kinds.kinds, of_kinds.has_returning, p_limit,
        moment, of_kinds.limited, of_kinds.rooms, p_mark_kinds, p_mark_priorities, p_mark_runs,
        p_mark_dues);
    ELSIF cardinality(ranges.kinds) > 1 AND ranges.counted = p_limit THEN
      ranges := ledger.claim_rest(p_project, wanted, moment, of_kinds.limited, ranges.kinds,
        ranges.priorities, ranges.belows, ranges.runs, ranges.dues);
    ELSE
      EXIT;
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION ledger.claim_ranges(p_project text, p_kinds text[], p_returning boolean, p_limit integer, p_moment timestamp with time zone, p_limited text[], p_rooms integer[], p_mark_kinds text[], p_mark_priorities integer[], p_mark_runs uuid[], p_mark_dues timestamp with time zone[], OUT kinds text[], OUT priorities integer[], OUT belows integer[], OUT runs uuid[], OUT dues timestamp with time zone[], OUT quotas integer[], OUT counted integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
  beginning constant uuid := '00000000-0000-0000-0000-000000000000';
BEGIN
  counted := p_limit;
  IF cardinality(p_kinds) = 1 AND NOT p_returning AND cardinality(p_limited) = 0
    AND (cardinality(p_mark_kinds) = 0 OR cardinality(p_mark_kinds) = 1
      AND p_mark_kinds[1] = p_kinds[1] AND p_mark_priorities[1] = 0 AND p_mark_runs[1] IS NOT NULL)
  THEN -- the common case, without a query
    kinds := p_kinds;
    priorities := '{0}';
    belows := '{2147483647}';
    runs := ARRAY[coalesce(p_mark_runs[1], beginning)];
    dues := '{NULL}';
    quotas := ARRAY[p_limit];
    RETURN;
  END IF;

  WITH RECURSIVE kind AS MATERIALIZED (
    SELECT named.kind, p_rooms[array_position(p_limited, named.kind)] AS room
    FROM unnest(p_kinds) AS named (kind)
  ), start AS ( -- of each index the beginning, and the marks
    SELECT kind.kind, kind.room, 0 AS priority,
      beginning AS run, first.due
    FROM kind CROSS JOIN (VALUES (NULL), ('-infinity'::timestamptz)) AS first (due)
    UNION ALL
    SELECT kind.kind, kind.room, mark.priority, mark.run, mark.due
    FROM unnest(p_mark_kinds, p_mark_priorities, p_mark_runs, p_mark_dues)
      AS mark (kind, priority, run, due)
    JOIN kind ON kind.kind = mark.kind
    WHERE num_nonnulls(mark.run, mark.due) = 1
  ), part AS MATERIALIZED ( -- from each start to the next
    SELECT part.* FROM (
      SELECT start.*, lead(start.priority, 1, 2147483647) OVER (PARTITION BY start.kind,
        start.due IS NULL ORDER BY start.priority, start.due, start.run) AS below
      FROM start
    ) AS part
    WHERE part.priority < part.below
  ), level AS ( -- the priorities with runs that were put off or given back: one probe for each
    SELECT part.kind, part.room, part.below, found.priority,
      CASE WHEN found.priority = part.priority THEN part.due ELSE '-infinity' END AS due
    FROM part
    CROSS JOIN LATERAL (
      SELECT run.priority FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.kind = part.kind
        AND run.available_at > run.created_at
        AND (run.priority, run.available_at) >= (part.priority, part.due)
        AND run.priority < part.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS found
    WHERE part.due IS NOT NULL AND p_returning
    UNION ALL
    SELECT level.kind, level.room, level.below, next.priority, '-infinity'
    FROM level
    CROSS JOIN LATERAL (
      SELECT run.priority FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.kind = level.kind
        AND run.available_at > run.created_at
        AND run.priority > level.priority AND run.priority < level.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS next
  ), range AS (
    SELECT part.kind, part.room, part.priority, part.below, part.run, part.due
    FROM part WHERE part.due IS NULL
    UNION ALL
    SELECT level.kind, level.room, level.priority, level.priority + 1,
      beginning, level.due
    FROM level
  )
  SELECT array_agg(range.kind), array_agg(range.priority), array_agg(range.below),
    array_agg(range.run), array_agg(range.due), array_agg(least(range.room, p_limit))
  INTO kinds, priorities, belows, runs, dues, quotas
  FROM range;
  IF kinds IS NULL THEN
    counted := 0;
  END IF;

  IF cardinality(kinds) > 1 THEN
    WITH candidate AS MATERIALIZED (
      SELECT range.place, range.kind, run.priority, run.run_id
      FROM unnest(kinds, priorities, belows, runs, dues, quotas) WITH ORDINALITY
        AS range (kind, priority, below, run, due, quota, place)
      CROSS JOIN LATERAL ledger.claimable(p_project, range.kind, range.priority, range.below,
        range.run, range.due, p_moment, range.quota) AS run
    ), allowed AS ( -- a limited kind may have more than one range
      SELECT candidate.place, candidate.priority, candidate.run_id
      FROM candidate WHERE candidate.kind <> ALL (p_limited)
      UNION ALL
      SELECT ranked.place, ranked.priority, ranked.run_id FROM (
        SELECT candidate.*, row_number() OVER (PARTITION BY candidate.kind
          ORDER BY candidate.priority, candidate.run_id) AS rank
        FROM candidate WHERE candidate.kind = ANY (p_limited)
      ) AS ranked
      WHERE ranked.rank <= p_rooms[array_position(p_limited, ranked.kind)]
    ), taken AS (
      SELECT oldest.place, count(*)::int AS quota FROM (
        SELECT allowed.place FROM allowed ORDER BY allowed.priority, allowed.run_id LIMIT p_limit
      ) AS oldest
      GROUP BY oldest.place
    )
    SELECT array_agg(coalesce(taken.quota, 0) ORDER BY range.place), coalesce(sum(taken.quota), 0)
    INTO quotas, counted
    FROM unnest(kinds) WITH ORDINALITY AS range (kind, place)
    LEFT JOIN taken ON range.place = taken.place;
  END IF;
END $$;

CREATE FUNCTION ledger.claim_rest(p_project text, p_limit integer, p_moment timestamp with time zone, p_limited text[], p_kinds text[], p_priorities integer[], p_belows integer[], p_runs uuid[], p_dues timestamp with time zone[], OUT kinds text[], OUT priorities integer[], OUT belows integer[], OUT runs uuid[], OUT dues timestamp with time zone[], OUT quotas integer[], OUT counted integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
  SELECT array_agg(locked.kind), array_agg(locked.priority), array_agg(locked.priority + 1),
    array_agg(locked.run_id), array_agg(locked.due), array_agg(1), count(*)
  INTO kinds, priorities, belows, runs, dues, quotas, counted
  FROM (
    SELECT oldest.kind, oldest.priority, oldest.run_id, locked.due FROM (
      SELECT range.kind, run.priority, run.run_id
      FROM unnest(p_kinds, p_priorities, p_belows, p_runs, p_dues)
        AS range (kind, priority, below, run, due)
      CROSS JOIN LATERAL ledger.claimable(p_project, range.kind, range.priority, range.below,
        range.run, range.due, p_moment, 2 * p_limit) AS run
      WHERE range.kind <> ALL (p_limited)
      ORDER BY run.priority, run.run_id OFFSET 0
    ) AS oldest
    CROSS JOIN LATERAL (
      SELECT CASE WHEN run.available_at > run.created_at THEN run.available_at END AS due
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = oldest.run_id
        AND run.available_at IS NOT NULL
      FOR UPDATE SKIP LOCKED
    ) AS locked
    LIMIT p_limit
  ) AS locked;
END $$;

CREATE FUNCTION ledger.claimable(p_project text, p_kind text, p_priority integer, p_below integer, p_run uuid, p_due timestamp with time zone, p_moment timestamp with time zone, p_most integer) RETURNS TABLE(priority integer, run_id uuid)
    LANGUAGE sql STABLE
    AS $$
  (SELECT run.priority, run.run_id FROM ledger.run_state AS run
    WHERE p_due IS NULL AND run.project_id = p_project AND run.kind = p_kind
      AND run.available_at <= run.created_at
      AND (run.priority, run.run_id) >= (p_priority, p_run) AND run.priority < p_below
    ORDER BY run.priority, run.run_id LIMIT p_most)
  UNION ALL
  (SELECT run.priority, run.run_id FROM ledger.run_state AS run
    WHERE p_due IS NOT NULL AND run.project_id = p_project AND run.kind = p_kind
      AND run.available_at > run.created_at AND run.priority = p_priority
      AND (run.available_at, run.run_id) >= (p_due, p_run) AND run.available_at <= p_moment
    ORDER BY run.available_at, run.run_id LIMIT p_most)
$$;

CREATE FUNCTION ledger.clock() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$ SELECT clock_timestamp() $$;

CREATE FUNCTION ledger.closings(p_project text, p_runs uuid[], p_tokens integer[]) RETURNS TABLE(run_id uuid, version integer, hash bytea, type text, state text, error_code text, cost_usd numeric, step_count integer, output_sha256 bytea, body text, worker_id text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean := ledger.check_access(p_project, '{work}');
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  RETURN QUERY
  SELECT closing.run_id, closing.version, closing.hash, closing.type::text, closing.state::text,
    closing.error_code::text, closing.cost_usd, closing.step_count, closing.output_sha256,
    content.body::text, acquired.worker_id::text
  FROM unnest(p_runs, p_tokens) AS lease (run_id, token)
  CROSS JOIN LATERAL (
    SELECT event.worker_id FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = lease.run_id
      AND event.version = lease.token AND event.type = 'lease.acquired'
      AND event.credential = writer OFFSET 0
  ) AS acquired
  CROSS JOIN LATERAL (
    SELECT event.* FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = lease.run_id
      AND event.version > lease.token
      AND (
        event.type IN (
          'run.completed', 'run.failed', 'run.cancelled', 'run.timed_out', 'run.retried',
          'approval.rejected', 'approval.expired', 'lease.released', 'lease.expired'
        )
        OR (event.type IN ('tool.requested', 'approval.requested') AND event.token IS NULL)
      )
    ORDER BY event.version LIMIT 1
  ) AS closing
  LEFT JOIN LATERAL (
    SELECT payload.body FROM ledger.payload AS payload
    WHERE payload.project_id = p_project AND payload.run_id = closing.run_id
      AND payload.version = closing.version OFFSET 0
  ) AS content ON true
  WHERE closing.actor = acquired.worker_id;
END $$;

CREATE FUNCTION ledger.command_text(run_id uuid, what text, park boolean, name text, error_code text, body text, cost numeric, steps integer, output bytea, wait interval, wait_outcome text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  SELECT jsonb_build_array(run_id, what, coalesce(park, false), name, error_code,
    body, cost::numeric(18, 6), steps,
    encode(output, 'hex'), extract(epoch FROM wait), wait_outcome)::text
$$;

CREATE FUNCTION ledger.commands(p_project text, p_runs uuid[], p_whats text[], p_parks boolean[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_sha256s bytea[], p_waits interval[], p_wait_outcomes text[], p_keys text[]) RETURNS TABLE(key text, run_id uuid, version integer, hash bytea, same boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,submit,decide}');
BEGIN
  checked := ledger.check_count(greatest(cardinality(p_runs), cardinality(p_keys)));
  checked := ledger.check_costs(p_costs);
  RETURN QUERY
  SELECT asked.key, known.run_id, known.version, known.hash,
    known.hash IS NOT NULL AND (known.salt IS NULL
      OR known.content_hash = ledger.payload_hash(known.salt, ledger.command_text(asked.run_id,
        asked.what, asked.park, asked.name, asked.error_code, asked.body, asked.cost, asked.steps,
        asked.sha256, asked.wait, asked.wait_outcome)))
  FROM unnest(p_runs, p_whats, p_parks, p_names, p_error_codes, p_bodies, p_costs, p_steps,
    p_sha256s, p_waits, p_wait_outcomes, p_keys)
    AS asked (run_id, what, park, name, error_code, body, cost, steps, sha256, wait, wait_outcome,
      key)
  CROSS JOIN LATERAL (
    SELECT command.* FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known;
END $$;

CREATE FUNCTION ledger.content_part(p_body json, p_name text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE STRICT PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  RETURN (p_body -> p_name)::text;
EXCEPTION WHEN data_exception OR program_limit_exceeded THEN
  RETURN 'cannot be read: ' || SQLERRM;
END $$;

CREATE FUNCTION ledger.content_problem(p_body text) RETURNS text
    LANGUAGE plpgsql IMMUTABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  content jsonb;
  problem text;
BEGIN
  IF octet_length(p_body) > 16777216 THEN
    RETURN 'is more than 16,777,216 bytes';
  END IF;
  BEGIN
    content := p_body::jsonb;
  EXCEPTION WHEN statement_too_complex THEN
    RETURN 'is nested deeper than 32 levels';
  END;
  IF jsonb_typeof(content) <> 'object' THEN
    RETURN 'is not an object of names and values';
  END IF;
  WITH RECURSIVE part (value, depth) AS (
    SELECT content, 0
    UNION ALL
    SELECT member.value, part.depth + 1
    FROM part
    CROSS JOIN LATERAL (
      SELECT named.value FROM jsonb_each(
        CASE jsonb_typeof(part.value) WHEN 'object' THEN part.value ELSE '{}' END) AS named
      UNION ALL
      SELECT listed.value FROM jsonb_array_elements(
        CASE jsonb_typeof(part.value) WHEN 'array' THEN part.value ELSE '[]' END) AS listed
    ) AS member
    WHERE part.depth < 34
  )
  SELECT CASE
      WHEN part.depth > 32 AND jsonb_typeof(part.value) IN ('object', 'array')
        THEN 'is nested deeper than 32 levels'
      ELSE 'has a number of more than 1,024 bits'
    END INTO problem
  FROM part
  WHERE part.depth > 32 AND jsonb_typeof(part.value) IN ('object', 'array')
    OR jsonb_typeof(part.value) = 'number' AND abs(part.value::numeric) >= 2::numeric ^ 1024
  LIMIT 1;
  RETURN problem;
END $$;

CREATE FUNCTION ledger.control_hash(previous bytea, number bigint, recorded_at timestamp with time zone, project_id text, credential text, type text, subject text, facts text, actor text, reason text) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT sha256(E'\\x00'::bytea || convert_to(concat(
    E'runfold/control/v1\nprevious:', encode(previous, 'hex'), E'\n',
    'number:' || number || E'\n',
    'recorded_at:' || encode(timestamptz_send(recorded_at), 'hex') || E'\n',
    'project_id:' || length(project_id) || ':' || project_id || E'\n',
    'credential:' || length(credential) || ':' || credential || E'\n',
    'type:' || length(type) || ':' || type || E'\n',
    'subject:' || length(subject) || ':' || subject || E'\n',
    'facts:' || length(facts) || ':' || facts || E'\n',
    'actor:' || length(actor) || ':' || actor || E'\n',
    'reason:' || length(reason) || ':' || reason || E'\n'
  ), 'UTF8'))
$$;

CREATE FUNCTION ledger.control_subject(p_noun text, p_keys text, p_row jsonb) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT p_noun || ':' || string_agg(p_row ->> key_column.key, ':' ORDER BY key_column.place)
  FROM unnest(string_to_array(p_keys, ' ')) WITH ORDINALITY AS key_column (key, place)
$$;

CREATE FUNCTION ledger.credential() RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  SELECT CASE
    WHEN pg_catalog.current_setting('runfold.token', true) OPERATOR(pg_catalog.<>) ''
    THEN ledger.token_credential(pg_catalog.current_setting('runfold.token', true))
    -- A login may have any name, and must not pass for a token or a user.
    WHEN pg_catalog.starts_with(session_user::text, 'token:')
      OR pg_catalog.starts_with(session_user::text, 'user:')
    THEN pg_catalog.concat('login:', session_user::text)
    ELSE session_user::text END
$$;

CREATE FUNCTION ledger.decide(p_project text, p_actor text, p_run uuid, p_type text, p_request integer, p_shown text DEFAULT NULL::text, p_meaning text DEFAULT NULL::text, p_body text DEFAULT NULL::text, p_key text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, version integer, hash bytea, from_state text, refused text, detail text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  writer CONSTANT text := ledger.credential();
  seed CONSTANT bytea := ledger.salt_seed();
  grants CONSTANT boolean := p_type = 'approval.granted';
  checked boolean;
  run ledger.run_state;
  asked record;
  problem record;
  made ledger.event;
  salt bytea;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed' THEN
    RAISE EXCEPTION 'an approval is decided only in a read committed transaction: '
      'an older snapshot may show rights and roles that were revoked' USING ERRCODE = '25001';
  END IF;
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  IF p_type NOT IN ('approval.granted', 'approval.rejected')
    OR num_nulls(p_actor, p_run, p_type, p_request) > 0
  THEN
    RAISE EXCEPTION 'a decision is approval.granted or approval.rejected, and names its actor, '
      'its run and the version of the event that asked' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_key]);
  checked := ledger.check_texts(ARRAY[p_meaning], 80);
  checked := ledger.check_content(ARRAY[p_body]);
  IF EXISTS (SELECT FROM json_each(p_body::json) AS part (name, value)
    WHERE part.name NOT IN ('reason', 'output')
      OR part.name = 'reason' AND json_typeof(part.value) NOT IN ('string', 'null'))
  THEN -- no reader would take an event with other content for a decision
    RAISE EXCEPTION 'the content of a decision is a reason, which is text, and an output'
      USING ERRCODE = '22023';
  END IF;
  SELECT state.* INTO run FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run FOR UPDATE;
  IF NOT FOUND THEN
    RETURN;
  END IF;
  -- The lock may have been waited for, and the right been revoked meanwhile.
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  run_id := p_run;
  from_state := run.state;
  PERFORM FROM ledger.command AS used WHERE used.project_id = p_project AND used.key = p_key;
  IF FOUND THEN
    refused := 'key';
    RETURN NEXT;
    RETURN;
  END IF;
  made.recorded_at := greatest(ledger.now(), run.updated_at);
  problem := ledger.decision_problem(p_project, p_run, p_actor, p_request, p_shown,
    grants, made.recorded_at);
  IF problem.why IS NOT NULL THEN
    refused := problem.why;
    detail := problem.detail;
    IF ledger.newest_request(p_project, p_run) IS NOT NULL THEN
      PERFORM ledger.note_refusal(p_project, p_actor, p_run, concat('decision refused, ',
        CASE WHEN grants THEN 'yes: ' ELSE 'no: ' END, detail,
        ' (the reason given: ' || left(p_body::json ->> 'reason', 2000) || ')'));
    END IF;
    RETURN NEXT;
    RETURN;
  END IF;
  made.version := run.version + 1;
  SELECT event.shown_sha256, event.approvals INTO asked FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = p_request;
  IF grants THEN
    made.approvals := asked.approvals;
    made.approved := CASE WHEN asked.approvals IS NOT NULL THEN 1 + (
      SELECT count(*) FROM ledger.event AS event
      WHERE event.project_id = p_project AND event.run_id = p_run AND event.version > p_request
        AND event.type = 'approval.signed') END;
  END IF;
  made.type := CASE WHEN made.approved < made.approvals THEN 'approval.signed' ELSE p_type END;
  IF grants THEN -- a lease that is held goes on
    made.worker_id := run.worker_id;
    made.token := run.token;
    made.lease_until := run.lease_until;
  END IF;
  IF made.type = 'approval.rejected' THEN
    made.state := 'cancelled';
  ELSIF made.type = 'approval.signed' THEN
    made.wait_until := run.wait_until;
    made.wait_outcome := run.wait_outcome;
  ELSIF run.token IS NULL THEN
    made.available_at := made.recorded_at;
  ELSE
    made.state := 'running';
  END IF;
  made.request := p_request;
  made.shown_sha256 := asked.shown_sha256;
  made.meaning := coalesce(p_meaning, CASE WHEN grants THEN 'approved' ELSE 'rejected' END);
  IF p_body IS NOT NULL THEN
    salt := sha256(seed || uuid_send(p_run));
    made.payload_hash := ledger.payload_hash(salt, p_body);
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    VALUES (p_project, p_run, made.version, salt, p_body::json);
  END IF;
  made.hash := ledger.event_hash(run.hash, p_project, p_run, made.version, made.recorded_at,
    made.type, p_actor, state => made.state, worker_id => made.worker_id, token => made.token,
    lease_until => made.lease_until, available_at => made.available_at,
    wait_until => made.wait_until, wait_outcome => made.wait_outcome, key => p_key,
    payload_hash => made.payload_hash, credential => writer, shown_sha256 => made.shown_sha256,
    request => made.request, meaning => made.meaning, approvals => made.approvals,
    approved => made.approved);
  INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, worker_id,
    token, lease_until, available_at, wait_until, wait_outcome, key, payload_hash, credential,
    shown_sha256, request, meaning, approvals, approved, hash)
  VALUES (p_project, p_run, made.version, made.recorded_at, made.type, p_actor, made.state,
    made.worker_id, made.token, made.lease_until, made.available_at, made.wait_until,
    made.wait_outcome, p_key, made.payload_hash,
    writer, made.shown_sha256, made.request, made.meaning, made.approvals, made.approved,
    made.hash);
  IF p_key IS NOT NULL THEN
    PERFORM ledger.record_keys(p_project, ARRAY[p_run], ARRAY[p_key],
      ARRAY[ledger.command_text(p_run, p_type, false, p_actor, p_meaning, p_body, NULL, p_request,
        NULL, NULL, NULL)], seed);
  END IF;
  version := made.version;
  hash := made.hash;
  RETURN NEXT;
END $$;

CREATE FUNCTION ledger.decider_problem(p_project text, p_run uuid, p_request integer, p_actor text, p_grants boolean) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  -- null for the owner's, and null equals no credential
  writer CONSTANT text := CASE WHEN NOT ledger.is_owner() THEN ledger.credential() END;
  person CONSTANT text := ledger.person(p_actor);
  asked record;
  lease record;
  problem text;
BEGIN
  SELECT event.role, event.other_person, event.actor, event.credential INTO asked
  FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = p_request;
  SELECT event.worker_id, event.credential INTO lease FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
    AND event.version < p_request AND event.type = 'lease.acquired'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1;
  IF person IN (ledger.person(asked.actor), ledger.person(lease.worker_id))
    OR writer IN (asked.credential, lease.credential)
  THEN
    RETURN 'asker';
  END IF;
  IF asked.other_person THEN
    problem := ledger.submitter_problem(p_project, p_run, person, writer);
    IF problem IS NOT NULL THEN
      RETURN problem;
    END IF;
  END IF;
  IF asked.role IS NOT NULL AND NOT EXISTS (
    SELECT FROM ledger.role_member AS holds
    WHERE holds.project_id = p_project AND holds.role = asked.role AND holds.member = p_actor
  ) THEN
    RETURN 'role';
  END IF;
  IF p_grants AND EXISTS (SELECT FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = p_run AND event.version > p_request
      AND event.type = 'approval.signed'
      AND (ledger.person(event.actor) = person OR event.credential = writer))
  THEN
    RETURN 'twice';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.decision_problem(p_project text, p_run uuid, p_actor text, p_request integer, p_shown text, p_grants boolean, p_moment timestamp with time zone, OUT why text, OUT detail text) RETURNS record
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  newest CONSTANT int := ledger.newest_request(p_project, p_run);
  run ledger.run_state;
  asked record;
BEGIN
  SELECT state.* INTO run FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run;
  SELECT event.shown_sha256, event.role INTO asked FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.version = newest;
  why := CASE
    WHEN run.state <> 'waiting_approval' THEN 'state'
    WHEN p_request <> newest THEN 'request'
    WHEN run.available_at IS NOT NULL THEN 'answered'
    WHEN p_shown <> coalesce(asked.shown_sha256, '') THEN 'shown'
    WHEN run.wait_until <= p_moment THEN 'late'
    ELSE ledger.decider_problem(p_project, p_run, newest, p_actor, p_grants)
  END;
  detail := CASE why
    WHEN 'state' THEN 'it waits for no approval'
    WHEN 'request'
      THEN format('the decision is for another request; it waits for request %s', newest)
    WHEN 'answered'
      THEN format('it was answered before and waits for a worker (version %s)', run.version)
    WHEN 'shown' THEN format('request %s showed something else than what was decided', newest)
    WHEN 'late' THEN 'the time for an answer is over; the reaper''s next sweep ends the wait'
    WHEN 'asker' THEN format('%s or its credential asked: another person must decide', p_actor)
    WHEN 'submitter' THEN format('%s submitted it, and another person must decide', p_actor)
    WHEN 'unread' THEN format('%s may have submitted it: that is archived or erased, and another '
      'person must decide', p_actor)
    WHEN 'twice' THEN format('%s approved request %s before, and another person must', p_actor,
      newest)
    WHEN 'role' THEN format('%s does not have the role %s', p_actor, quote_literal(asked.role))
  END;
END $$;

CREATE FUNCTION ledger.drop_projection_tables(p_name text, p_all boolean DEFAULT false) RETURNS SETOF text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  dropped text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  IF p_all THEN
    PERFORM FROM ledger.projection WHERE projection.name = p_name FOR UPDATE;
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  FOR dropped IN
    SELECT relation.relname FROM pg_class AS relation
    LEFT JOIN ledger.rebuild ON rebuild.projection = p_name AND relation.relname IN (
      format('rebuild_%s_of_%s', rebuild.rebuild_id, p_name),
      format('replaced_%s_of_%s', rebuild.rebuild_id, p_name))
    WHERE relation.relnamespace = 'projection'::regnamespace AND relation.relkind = 'r'
      AND (rebuild.finished_at IS NOT NULL OR p_all
        AND (rebuild.rebuild_id IS NOT NULL
          OR relation.relname ~ ('^' || p_name || '_v[0-9]{1,5}$')))
    ORDER BY rebuild.rebuild_id NULLS FIRST, relation.relname
  LOOP
    EXECUTE format('DROP TABLE projection.%I', dropped);
    DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = 'projection.' || dropped;
    RETURN NEXT 'projection.' || dropped;
  END LOOP;
  IF p_all THEN
    DELETE FROM ledger.projection_aside AS aside WHERE aside.name = p_name;
    DELETE FROM ledger.projection_skip AS skipped WHERE skipped.name = p_name;
    DELETE FROM ledger.rebuild_range AS part USING ledger.rebuild
    WHERE part.rebuild_id = rebuild.rebuild_id AND rebuild.projection = p_name
      AND rebuild.project_id IS NULL;
    DELETE FROM ledger.rebuild WHERE rebuild.projection = p_name AND rebuild.project_id IS NULL;
    DELETE FROM ledger.projection WHERE projection.name = p_name;
  END IF;
END $_$;

CREATE FUNCTION ledger.drop_reads(p_project text, p_actor text, p_before timestamp with time zone, p_reason text DEFAULT NULL::text) RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
  checked boolean;
  dropped int;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_before', p_before IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  IF p_before > clock_timestamp() - interval '184 days' THEN
    RAISE EXCEPTION 'records of reads are kept for 184 days, and % is later', p_before
      USING ERRCODE = '22023';
  END IF;
  -- By their place, the fastest way, and safe because these rows are never changed.
  DELETE FROM ledger.payload_read AS noted WHERE noted.ctid = ANY (ARRAY(
    SELECT past.ctid FROM ledger.payload_read AS past
    WHERE past.project_id = p_project AND past.read_at < p_before
    ORDER BY past.read_at LIMIT 10000));
  GET DIAGNOSTICS dropped = ROW_COUNT;
  IF dropped > 0 THEN
    PERFORM ledger.append_control(p_project, 'reads.dropped', 'reads:' || p_project,
      jsonb_build_object('before', p_before, 'count', dropped)::text, p_actor, p_reason);
  END IF;
  RETURN dropped;
END $$;

CREATE FUNCTION ledger.drop_schedule(p_project text, p_actor text, p_name text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name], 200, true);
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  -- The row that is removed names who removes it: the control history takes it from there.
  UPDATE ledger.schedule AS known SET actor = p_actor, reason = NULL
  WHERE known.project_id = p_project AND known.name = p_name AND known.actor <> p_actor;
  DELETE FROM ledger.schedule AS known WHERE known.project_id = p_project AND known.name = p_name;
  RETURN FOUND;
END $$;

CREATE FUNCTION ledger.due_deliveries(p_project text, p_webhook text, p_limit integer, p_lease interval) RETURNS TABLE(run_id uuid, version integer, type text, body text, attempts integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  -- a variable, because an index is not searched for a volatile function
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  IF (p_lease BETWEEN '0' AND '1 day' AND p_limit BETWEEN 1 AND 10000) IS NOT TRUE THEN
    RAISE EXCEPTION 'at most 10,000 deliveries are taken, for a day at most'
      USING ERRCODE = '22023';
  END IF;
  IF NOT EXISTS (SELECT FROM ledger.webhook WHERE webhook.project_id = p_project
    AND webhook.webhook_id = p_webhook AND NOT webhook.is_paused) THEN
    RETURN;
  END IF;
  RETURN QUERY UPDATE ledger.delivery SET next_at = moment + p_lease
  FROM (
    SELECT waiting.run_id, waiting.version FROM ledger.delivery AS waiting
    WHERE waiting.webhook_id = p_webhook AND NOT waiting.follows AND waiting.next_at <= moment
    ORDER BY waiting.next_at LIMIT p_limit FOR UPDATE SKIP LOCKED
  ) AS due
  WHERE delivery.webhook_id = p_webhook AND delivery.run_id = due.run_id
    AND delivery.version = due.version
  RETURNING delivery.run_id, delivery.version, delivery.type::text, delivery.body,
    delivery.attempts;
END $$;

CREATE FUNCTION ledger.end_session(p_secret text, p_session text) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  checked boolean;
BEGIN
  IF p_secret IS NULL THEN
    checked := ledger.check_access('*', '{admin}');
  END IF;
  UPDATE ledger.web_session AS session SET ended_at = ledger.now()
  WHERE session.ended_at IS NULL AND session.expires_at > ledger.now()
    AND (session.sha256 = sha256(convert_to(p_secret, 'UTF8'))
      OR p_secret IS NULL AND session.session_id = p_session);
  RETURN FOUND;
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION 'another transaction holds the session: disable the user or revoke the token, '
    'which waits for nobody' USING ERRCODE = '55P03';
END $$;

CREATE FUNCTION ledger.end_work(p_key bigint) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  DELETE FROM ledger.at_work AS work WHERE work.key = p_key AND work.pid = pg_backend_pid();
  IF FOUND THEN
    PERFORM pg_advisory_unlock(p_key);
  END IF;
END $$;

CREATE FUNCTION ledger.ensure_months(p_first uuid, p_last uuid) RETURNS boolean
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  IF to_regclass('ledger.event_' || to_char(ledger.uuid7_month(p_first), 'YYYY_MM')) IS NOT NULL
    AND to_regclass('ledger.event_' || to_char(ledger.uuid7_month(p_last), 'YYYY_MM')) IS NOT NULL
  THEN
    RETURN true;
  END IF;
  BEGIN
    PERFORM ledger.make_partitions();
  EXCEPTION WHEN insufficient_privilege THEN
    RAISE EXCEPTION 'no partition takes the events of this month, and none can be made: %', SQLERRM
      USING ERRCODE = '23514', DETAIL = p_last,
        HINT = 'run `runfold db upgrade` as the owner, and keep a reaper running';
  END;
  RETURN false;
END $$;

CREATE FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer DEFAULT 1, state text DEFAULT NULL::text, name text DEFAULT NULL::text, kind text DEFAULT NULL::text, priority integer DEFAULT NULL::integer, max_attempts integer DEFAULT NULL::integer, deadline timestamp with time zone DEFAULT NULL::timestamp with time zone, tags text[] DEFAULT NULL::text[], attempt integer DEFAULT NULL::integer, worker_id text DEFAULT NULL::text, token integer DEFAULT NULL::integer, lease_until timestamp with time zone DEFAULT NULL::timestamp with time zone, available_at timestamp with time zone DEFAULT NULL::timestamp with time zone, late_ms integer DEFAULT NULL::integer, wait_until timestamp with time zone DEFAULT NULL::timestamp with time zone, wait_outcome text DEFAULT NULL::text, cost_usd numeric DEFAULT NULL::numeric, step_count integer DEFAULT NULL::integer, error_code text DEFAULT NULL::text, output_sha256 bytea DEFAULT NULL::bytea, compensates integer DEFAULT NULL::integer, key text DEFAULT NULL::text, payload_hash bytea DEFAULT NULL::bytea, credential text DEFAULT NULL::text, role text DEFAULT NULL::text, other_person boolean DEFAULT NULL::boolean, shown_sha256 text DEFAULT NULL::text, request integer DEFAULT NULL::integer, meaning text DEFAULT NULL::text, based_on integer DEFAULT NULL::integer, approvals integer DEFAULT NULL::integer, approved integer DEFAULT NULL::integer) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  SELECT sha256(E'\\x00'::bytea || convert_to(concat(
    E'runfold/event/v1\nprevious:', encode(previous, 'hex'), E'\n',
    'project_id:' || length(project_id) || ':' || project_id || E'\n',
    'run_id:' || run_id || E'\n',
    'version:' || version || E'\n',
    'recorded_at:' || encode(timestamptz_send(recorded_at), 'hex') || E'\n',
    'type:' || length(type) || ':' || type || E'\n',
    'schema_version:' || schema_version || E'\n',
    'actor:' || length(actor) || ':' || actor || E'\n',
    'state:' || length(state) || ':' || state || E'\n',
    'name:' || length(name) || ':' || name || E'\n',
    'kind:' || length(kind) || ':' || kind || E'\n',
    'priority:' || priority || E'\n',
    'max_attempts:' || max_attempts || E'\n',
    'deadline:' || encode(timestamptz_send(deadline), 'hex') || E'\n',
    'tags:' || array_to_json(tags)::text || E'\n',
    'attempt:' || attempt || E'\n',
    'worker_id:' || length(worker_id) || ':' || worker_id || E'\n',
    'token:' || token || E'\n',
    'lease_until:' || encode(timestamptz_send(lease_until), 'hex') || E'\n',
    'available_at:' || encode(timestamptz_send(available_at), 'hex') || E'\n',
    'late_ms:' || late_ms || E'\n',
    'wait_until:' || encode(timestamptz_send(wait_until), 'hex') || E'\n',
    'wait_outcome:' || length(wait_outcome) || ':' || wait_outcome || E'\n',
    'cost_usd:' || cost_usd || E'\n',
    'step_count:' || step_count || E'\n',
    'error_code:' || length(error_code) || ':' || error_code || E'\n',
    'output_sha256:' || encode(output_sha256, 'hex') || E'\n',
    'compensates:' || compensates || E'\n',
    'key:' || length(key) || ':' || key || E'\n',
    'payload_hash:' || encode(payload_hash, 'hex') || E'\n',
    'credential:' || length(credential) || ':' || credential || E'\n',
    'role:' || length(role) || ':' || role || E'\n',
    'other_person:' || other_person || E'\n',
    'shown_sha256:' || length(shown_sha256) || ':' || shown_sha256 || E'\n',
    'request:' || request || E'\n',
    'meaning:' || length(meaning) || ':' || meaning || E'\n',
    'based_on:' || based_on || E'\n',
    'approvals:' || approvals || E'\n',
    'approved:' || approved || E'\n'
  ), 'UTF8'))
$$;

CREATE FUNCTION ledger.exchange_projection_table(p_name text, p_version integer, p_rebuild integer) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  live text;
  next CONSTANT text := format('%s_v%s', p_name, p_version);
  shadow CONSTANT text := format('rebuild_%s_of_%s', p_rebuild, p_name);
  replaced CONSTANT text := format('replaced_%s_of_%s', p_rebuild, p_name);
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  SELECT format('%s_v%s', projection.name, projection.version) INTO live
  FROM ledger.projection WHERE projection.name = p_name FOR UPDATE;
  -- The view first, as its readers do: they hold it while they wait for its table.
  IF to_regclass(format('projection.%I', p_name)) IS NOT NULL THEN
    EXECUTE format('LOCK TABLE projection.%I', p_name);
  END IF;
  IF live IS DISTINCT FROM next THEN
    EXECUTE format('DROP VIEW IF EXISTS projection.%I', p_name);
  END IF;
  EXECUTE format('ALTER TABLE IF EXISTS projection.%I RENAME TO %I', live, replaced);
  EXECUTE format('ALTER TABLE projection.%I RENAME TO %I', shadow, next);
  DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = 'projection.' || live;
  UPDATE ledger.projection_aside AS aside SET relation = 'projection.' || next
  WHERE aside.relation = 'projection.' || shadow;
  RETURN 'projection.' || replaced;
END $$;

CREATE FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) RETURNS pg_snapshot
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT concat_ws(':', least(pg_snapshot_xmin(p_snapshot), cut.id), cut.id,
    (SELECT coalesce(string_agg(open.id::text, ',' ORDER BY open.id), '')
      FROM pg_snapshot_xip(p_snapshot) AS open (id) WHERE open.id < cut.id)
  )::pg_snapshot
  FROM least(p_before, pg_snapshot_xmax(p_snapshot)) AS cut (id)
$$;

CREATE FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  base bigint := split_part(p_start, '@', 2);
  -- Events of earlier generations may have any id: none below this generation's first is read.
  least xid8 := pg_snapshot_xmin(split_part(p_start, '@', 1)::pg_snapshot);
  newest record;
  archived xid8;
BEGIN
  SELECT event.txid, left(encode(event.hash, 'hex'), 16) AS hash INTO newest
  FROM ledger.event AS event
  WHERE event.txid >= least AND event.txid < pg_snapshot_xmax(p_snapshot) AND event.position > base
    AND pg_visible_in_snapshot(event.txid, p_snapshot)
  ORDER BY event.txid DESC, event.position DESC LIMIT 1;
  SELECT max(month.last_txid) INTO archived FROM ledger.archive AS month
  WHERE month.detached AND month.last_position > base;
  IF archived IS NOT NULL AND (newest.txid IS NULL OR newest.txid < archived) THEN
    SELECT archived AS txid, NULL AS hash INTO newest;
  END IF;
  IF newest.txid IS NULL THEN
    RETURN p_start;
  END IF;
  RETURN ledger.feed_cut(p_snapshot,
    (newest.txid::text::bigint + 1)::text::xid8)::text || '@' || p_position
    || coalesce('@' || newest.hash, '');
END $$;

CREATE FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) RETURNS TABLE(generation integer, moment text, target text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  this ledger.feed_generation;
  seen pg_snapshot := split_part(p_moment, '@', 1);
  visible pg_snapshot;
  candidate pg_snapshot;
  target text;
  high bigint;
  base bigint;
  cut xid8;
  size bigint := p_limit;
BEGIN
  PERFORM ledger.credential(); -- else a reader that waits would not learn that its token ended
  LOCK TABLE ledger.event IN ACCESS SHARE MODE;
  PERFORM ledger.check_moment(p_generation, p_moment);
  PERFORM ledger.check_months_read(p_generation, p_moment);
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  WHILE this.end_position IS NOT NULL LOOP
    IF p_moment NOT LIKE '9223372036854775807:%' THEN
      RETURN QUERY SELECT this.generation, p_moment,
        '9223372036854775807:9223372036854775807:@' || this.end_position;
      RETURN;
    END IF;
    SELECT * INTO this FROM ledger.feed_generation AS known
    WHERE known.generation = this.generation + 1;
    p_moment := this.start;
    seen := split_part(p_moment, '@', 1);
  END LOOP;
  PERFORM ledger.check_cluster();
  visible := pg_current_snapshot();
  candidate := visible;
  -- After the snapshot was taken.
  SELECT sequence.last_value INTO high FROM ledger.event_position AS sequence;
  base := split_part(this.start, '@', 2);
  LOOP
    SELECT event.txid INTO cut FROM ledger.event AS event
    WHERE event.txid >= pg_snapshot_xmax(seen) AND event.txid < pg_snapshot_xmax(visible)
      AND event.position > base
    ORDER BY event.txid OFFSET size LIMIT 1;
    EXIT WHEN cut IS NULL;
    IF NOT EXISTS (SELECT FROM ledger.event AS event WHERE event.txid >= pg_snapshot_xmax(seen)
      AND event.txid < cut AND event.position > base) THEN
      cut := (cut::text::bigint + 1)::text; -- a single transaction has more than p_limit
    END IF;
    candidate := ledger.feed_cut(visible, cut);
    EXIT WHEN NOT EXISTS (
      SELECT FROM (
        SELECT delivered.project_id, delivered.run_id, delivered.version,
          lag(delivered.version) OVER (
            PARTITION BY delivered.project_id, delivered.run_id ORDER BY delivered.version
          ) AS before
        FROM (
          SELECT event.project_id, event.run_id, event.version FROM ledger.event AS event
          WHERE event.txid >= pg_snapshot_xmax(seen) AND event.txid < cut AND event.position > base
            AND pg_visible_in_snapshot(event.txid, candidate)
          UNION ALL
          SELECT event.project_id, event.run_id, event.version FROM ledger.event AS event
          WHERE event.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))) AND event.position > base
            AND pg_visible_in_snapshot(event.txid, candidate)
        ) AS delivered
      ) AS step
      CROSS JOIN LATERAL (
        SELECT FROM ledger.event AS previous
        WHERE previous.project_id = step.project_id AND previous.run_id = step.run_id
          AND previous.version = step.version - 1 AND previous.position > base
          AND NOT pg_visible_in_snapshot(previous.txid, seen) OFFSET 0
      ) AS unseen
      WHERE step.version > 1 AND step.before IS DISTINCT FROM step.version - 1);
    size := size * 2 + 1;
    candidate := visible;
  END LOOP;
  target := ledger.feed_moment(this.start, candidate, high);
  IF (split_part(target, '@', 1), split_part(target, '@', 3)) IS DISTINCT
    FROM (split_part(p_moment, '@', 1), split_part(p_moment, '@', 3)) THEN
    RETURN QUERY SELECT this.generation, p_moment, target;
  END IF;
END $$;

CREATE FUNCTION ledger.feed_now() RETURNS TABLE(generation integer, moment text)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  PERFORM ledger.check_cluster();
  -- The snapshot is older than the reading of the sequence: STABLE takes the caller's.
  RETURN QUERY SELECT this.generation,
    ledger.feed_moment(this.start, pg_current_snapshot(), sequence.last_value)
  FROM ledger.feed_generation AS this, ledger.event_position AS sequence
  WHERE this.end_position IS NULL;
END $$;

CREATE SEQUENCE ledger.event_position
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1;

CREATE TABLE ledger.event (
    project_id text NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    "position" bigint DEFAULT nextval('ledger.event_position'::regclass) NOT NULL,
    txid xid8 DEFAULT pg_current_xact_id() NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    type character varying(80) NOT NULL,
    schema_version integer DEFAULT 1 NOT NULL,
    actor character varying(200) NOT NULL,
    state text,
    name character varying(200),
    kind character varying(200),
    priority integer,
    max_attempts integer,
    deadline timestamp with time zone,
    tags text[],
    attempt integer,
    worker_id character varying(200),
    token integer,
    lease_until timestamp with time zone,
    available_at timestamp with time zone,
    late_ms integer,
    wait_until timestamp with time zone,
    wait_outcome text,
    cost_usd numeric(18,6),
    step_count integer,
    error_code character varying(200),
    output_sha256 bytea,
    compensates integer,
    key character varying(200),
    payload_hash bytea,
    credential character varying(200),
    role character varying(200),
    other_person boolean,
    shown_sha256 character varying(64),
    request integer,
    meaning character varying(80),
    based_on integer,
    approvals integer,
    approved integer,
    hash bytea NOT NULL
)
PARTITION BY RANGE (run_id);
ALTER TABLE ONLY ledger.event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN wait_outcome SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN error_code SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN key SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN role SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN shown_sha256 SET STATISTICS 0;
ALTER TABLE ONLY ledger.event ALTER COLUMN meaning SET STATISTICS 0;

CREATE FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text DEFAULT NULL::text, p_types text[] DEFAULT NULL::text[], p_without text[] DEFAULT NULL::text[], p_kinds text[] DEFAULT NULL::text[], p_states text[] DEFAULT NULL::text[]) RETURNS SETOF ledger.event
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  this ledger.feed_generation;
  seen pg_snapshot := split_part(p_moment, '@', 1);
  target pg_snapshot := split_part(p_target, '@', 1);
  after bigint;
  seen_up_to bigint := split_part(p_moment, '@', 2);
  up_to bigint := split_part(p_target, '@', 2);
  allowed CONSTANT text[] := ledger.projects_with('read', 'audit');
BEGIN
  IF p_project <> ALL (allowed) THEN
    PERFORM ledger.check_access(coalesce(p_project, '*'), '{read,audit}');
  END IF;
  LOCK TABLE ledger.event IN ACCESS SHARE MODE;
  PERFORM ledger.check_moment(p_generation, p_moment), ledger.check_moment(p_generation, p_target);
  PERFORM ledger.check_months_read(p_generation, p_moment);
  SELECT * INTO this FROM ledger.feed_generation AS known WHERE known.generation = p_generation;
  after := greatest(p_position, split_part(this.start, '@', 2)::bigint);
  IF p_target LIKE '9223372036854775807:%' THEN
    -- The generation has ended. Ids at later positions than the moment's may be another
    -- cluster's, and say nothing of the moment.
    RETURN QUERY SELECT event.* FROM ledger.event AS event
    WHERE event.position > after AND event.position <= up_to
      AND (event.position > seen_up_to OR NOT pg_visible_in_snapshot(event.txid, seen))
      AND (p_project IS NULL OR event.project_id = p_project)
      AND (allowed IS NULL OR event.project_id = ANY (allowed))
      AND (p_types IS NULL OR event.type = ANY (p_types))
      AND (p_without IS NULL OR event.type <> ALL (p_without))
      AND (p_states IS NULL OR event.state = ANY (p_states))
      AND (p_kinds IS NULL OR EXISTS (
        SELECT FROM ledger.event AS submitted
        WHERE submitted.project_id = event.project_id AND submitted.run_id = event.run_id
          AND submitted.version = 1 AND submitted.kind = ANY (p_kinds) OFFSET 0))
    ORDER BY event.position LIMIT p_limit;
    RETURN;
  END IF;
  -- Two arms, because the index (txid, position) would not be used for a single condition.
  RETURN QUERY SELECT event.* FROM (
    SELECT later.* FROM ledger.event AS later
    WHERE later.txid >= pg_snapshot_xmax(seen) AND later.txid < pg_snapshot_xmax(target)
      AND later.position > after
    UNION ALL
    SELECT opened.* FROM ledger.event AS opened
    WHERE opened.txid = ANY (ARRAY(SELECT pg_snapshot_xip(seen))) AND opened.position > after
  ) AS event
  WHERE event.position <= up_to AND pg_visible_in_snapshot(event.txid, target)
    AND (p_project IS NULL OR event.project_id = p_project)
    AND (allowed IS NULL OR event.project_id = ANY (allowed))
    AND (p_types IS NULL OR event.type = ANY (p_types))
    AND (p_without IS NULL OR event.type <> ALL (p_without))
    AND (p_states IS NULL OR event.state = ANY (p_states))
    AND (p_kinds IS NULL OR EXISTS (
      SELECT FROM ledger.event AS submitted
      WHERE submitted.project_id = event.project_id AND submitted.run_id = event.run_id
        AND submitted.version = 1 AND submitted.kind = ANY (p_kinds) OFFSET 0))
  ORDER BY event.position LIMIT p_limit;
END $$;

CREATE FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT split_part(p_moment, '@', 2)::bigint >= p_last_position AND CASE
    WHEN p_generation < p_of_generation THEN p_moment LIKE '9223372036854775807:%'
    WHEN p_generation = p_of_generation AND p_last_txid IS NOT NULL
      THEN pg_snapshot_xmin(split_part(p_moment, '@', 1)::pg_snapshot) > p_last_txid
    ELSE true
  END
$$;

CREATE FUNCTION ledger.feed_rebase() RETURNS integer
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  this ledger.feed_generation;
  high bigint;
BEGIN
  IF pg_is_in_recovery() THEN
    RAISE EXCEPTION 'the feed cannot be rebased on a standby' USING ERRCODE = 'RF411';
  END IF;
  DELETE FROM ledger.low_water; -- of another cluster; before the lock, as a sweep has it
  LOCK TABLE ledger.event IN SHARE ROW EXCLUSIVE MODE;
  SELECT * INTO this FROM ledger.feed_generation AS known
  WHERE known.end_position IS NULL FOR UPDATE;
  SELECT greatest(CASE WHEN sequence.is_called THEN sequence.last_value ELSE 0 END,
    (SELECT max(event.position) FROM ledger.event AS event),
    (SELECT max(archived.last_position) FROM ledger.archive AS archived)) INTO high
  FROM ledger.event_position AS sequence;
  IF high > 0 THEN
    PERFORM setval('ledger.event_position', high);
  END IF;
  PERFORM setval('ledger.rebuild_rebuild_id_seq', last.number)
  FROM (SELECT max(entry.rebuild_id) AS number FROM ledger.rebuild AS entry) AS last,
    ledger.rebuild_rebuild_id_seq AS sequence WHERE last.number >= sequence.last_value;
  PERFORM setval('ledger.newest_time', last.newest)
  FROM (SELECT (extract(epoch FROM max(event.recorded_at)) * 1000000)::bigint AS newest
    FROM ledger.event AS event) AS last,
    ledger.newest_time AS sequence WHERE last.newest > sequence.last_value;
  UPDATE ledger.feed_generation AS known SET end_position = high
  WHERE known.generation = this.generation;
  -- Cut at this transaction, which is in the write-ahead log when it has committed: no id up to
  -- it comes back after a crash.
  INSERT INTO ledger.feed_generation (generation, start, system_identifier)
  SELECT this.generation + 1,
    ledger.feed_cut(pg_current_snapshot(), pg_current_xact_id())::text || '@' || high,
    cluster.system_identifier
  FROM pg_control_system() AS cluster;
  RETURN this.generation + 1;
END $$;

CREATE TABLE ledger.run_state (
    project_id text NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    hash bytea NOT NULL,
    kind text NOT NULL,
    state text NOT NULL,
    priority integer NOT NULL,
    attempt_count integer NOT NULL,
    max_attempts integer NOT NULL,
    worker_id text,
    token integer,
    lease_credential character varying(200),
    moved_position bigint,
    lease_until timestamp with time zone,
    heartbeat_at timestamp with time zone,
    available_at timestamp with time zone,
    started_at timestamp with time zone,
    completed_at timestamp with time zone,
    created_at timestamp with time zone NOT NULL,
    updated_at timestamp with time zone NOT NULL,
    deadline timestamp with time zone,
    wait_until timestamp with time zone,
    wait_outcome text,
    approvals integer,
    approved integer,
    cancel_requested_at timestamp with time zone,
    cost_usd numeric(18,6) NOT NULL,
    step_count integer NOT NULL,
    error_code text,
    outcome_version integer,
    output_sha256 bytea,
    tags text[] NOT NULL,
    key text,
    CONSTRAINT lease_matches_state CHECK (
CASE
    WHEN (token IS NULL) THEN ((worker_id IS NULL) AND (lease_until IS NULL) AND (state <> 'running'::text))
    ELSE ((worker_id IS NOT NULL) AND (lease_until IS NOT NULL) AND (available_at IS NULL) AND (state = ANY (ARRAY['running'::text, 'waiting_tool'::text, 'waiting_approval'::text])))
END),
    CONSTRAINT totals_are_not_negative CHECK (((cost_usd >= (0)::numeric) AND (step_count >= 0)))
)
WITH (fillfactor='70', autovacuum_vacuum_scale_factor='0.02');
ALTER TABLE ONLY ledger.run_state ALTER COLUMN lease_credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.run_state ALTER COLUMN wait_outcome SET STATISTICS 0;
ALTER TABLE ONLY ledger.run_state ALTER COLUMN error_code SET STATISTICS 0;
ALTER TABLE ONLY ledger.run_state ALTER COLUMN key SET STATISTICS 0;

CREATE FUNCTION ledger.fold_events(p_events json) RETURNS SETOF ledger.run_state
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  SELECT event.project_id, event.run_id,
    max(event.version) AS version,
    (array_agg(event.hash ORDER BY event.version DESC) FILTER (WHERE event.hash IS NOT NULL))[1] AS
      hash,
    max(event.kind) FILTER (WHERE event.type = 'run.submitted') AS kind,
    (array_agg(event.state ORDER BY event.version DESC) FILTER (WHERE event.state IS NOT NULL))[1]
      AS state,
    max(event.priority) FILTER (WHERE event.type = 'run.submitted') AS priority,
    coalesce((array_agg(event.attempt ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.expired', 'lease.released') AND event.attempt IS NOT NULL))[1], 0)
      AS attempt_count,
    max(event.max_attempts) FILTER (WHERE event.type = 'run.submitted') AS max_attempts,
    (array_agg(event.worker_id ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS worker_id,
    (array_agg(event.token ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS token,
    (array_agg(event.credential ORDER BY event.version DESC) FILTER (WHERE event.type =
      'lease.acquired' AND event.credential IS NOT NULL))[1] AS lease_credential,
    (array_agg(event.position ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AND event.position
      IS NOT NULL))[1] AS moved_position,
    (array_agg(event.lease_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
      'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1]
      AS lease_until,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.heartbeat') AND event.recorded_at IS NOT NULL))[1] AS heartbeat_at,
    (array_agg(event.available_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.submitted', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested')))[1] AS available_at,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'lease.acquired' AND event.recorded_at IS NOT NULL))[1] AS started_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out') AND event.recorded_at IS NOT NULL))[1] AS completed_at,
    max(event.recorded_at) FILTER (WHERE event.type = 'run.submitted') AS created_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.recorded_at IS NOT
      NULL))[1] AS updated_at,
    max(event.deadline) FILTER (WHERE event.type = 'run.submitted') AS deadline,
    (array_agg(event.wait_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS wait_until,
    (array_agg(event.wait_outcome ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS
      wait_outcome,
    (array_agg(event.approvals ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approvals,
    (array_agg(event.approved ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approved,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'cancel.requested' AND event.recorded_at IS NOT NULL))[1] AS cancel_requested_at,
    coalesce(sum(event.cost_usd), 0) AS cost_usd,
    (coalesce(sum(event.step_count), 0))::int AS step_count,
    (array_agg(event.error_code ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out')))[1] AS error_code,
    (array_agg(event.version ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out') AND event.version IS NOT NULL))[1] AS
      outcome_version,
    (array_agg(event.output_sha256 ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out')))[1] AS output_sha256,
    max(event.tags) FILTER (WHERE event.type = 'run.submitted') AS tags,
    max(event.key) FILTER (WHERE event.type = 'run.submitted') AS key
  FROM json_populate_recordset(NULL::ledger.event, p_events) AS event
  GROUP BY event.project_id, event.run_id
$$;

CREATE FUNCTION ledger.fold_kind_state() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  change ledger.kind_event;
  folded int;
BEGIN
  FOR change IN
    SELECT fresh.* FROM new_events AS fresh ORDER BY fresh.project_id, fresh.kind, fresh.number
  LOOP
    INSERT INTO ledger.kind_state AS state
      (project_id, kind, number, paused, max_running, updated_at)
    VALUES (change.project_id, change.kind, change.number, change.type = 'kind.paused',
      change.max_running, change.recorded_at)
    ON CONFLICT (project_id, kind) DO UPDATE SET
      number = change.number,
      paused = CASE change.type WHEN 'kind.paused' THEN true WHEN 'kind.resumed' THEN false
        ELSE state.paused END,
      max_running = CASE change.type WHEN 'kind.limited' THEN change.max_running
        ELSE state.max_running END,
      updated_at = change.recorded_at
    WHERE state.number = change.number - 1
    RETURNING state.number INTO folded;
    IF folded IS NULL OR (folded > 1) <> EXISTS (
      SELECT FROM ledger.kind_event AS before WHERE before.project_id = change.project_id
        AND before.kind = change.kind AND before.number = change.number - 1
    ) THEN
      RAISE EXCEPTION 'event % of kind % does not follow the one before it: its events or its '
        'settings were damaged, and `runfold verify` names the damage',
        change.number, change.kind USING ERRCODE = 'RF001';
    END IF;
  END LOOP;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.fold_run_state() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  wanted bigint;
  starts bigint;
  tagged bigint;
  folded bigint := 0;
  updated bigint := 0;
BEGIN
  SELECT count(*), count(*) FILTER (WHERE version = 1),
    count(*) FILTER (WHERE version = 1 AND tags <> '{}') INTO wanted, starts, tagged
  FROM new_events;
  IF starts > 0 THEN
  INSERT INTO ledger.run_state (project_id, run_id, version, hash, kind, state, priority,
    attempt_count, max_attempts, worker_id, token, lease_credential, moved_position, lease_until,
    heartbeat_at, available_at, started_at, completed_at, created_at, updated_at, deadline,
    wait_until, wait_outcome, approvals, approved, cancel_requested_at, cost_usd, step_count,
    error_code, outcome_version, output_sha256, tags, key)
  SELECT event.project_id, event.run_id,
    greatest(NULL, event.version),
    coalesce(event.hash, NULL),
    coalesce(NULL, CASE WHEN true THEN event.kind END),
    coalesce(event.state, NULL),
    coalesce(NULL, CASE WHEN true THEN event.priority END),
    coalesce(CASE WHEN false THEN event.attempt END, 0),
    coalesce(NULL, CASE WHEN true THEN event.max_attempts END),
    CASE WHEN false THEN event.worker_id ELSE NULL END,
    CASE WHEN false THEN event.token ELSE NULL END,
    coalesce(CASE WHEN false THEN event.credential END, NULL),
    coalesce(CASE WHEN false THEN event.position END, NULL),
    CASE WHEN false THEN event.lease_until ELSE NULL END,
    coalesce(CASE WHEN false THEN event.recorded_at END, NULL),
    CASE WHEN true THEN event.available_at ELSE NULL END,
    coalesce(NULL, CASE WHEN false THEN event.recorded_at END),
    coalesce(CASE WHEN false THEN event.recorded_at END, NULL),
    coalesce(NULL, CASE WHEN true THEN event.recorded_at END),
    coalesce(event.recorded_at, NULL),
    coalesce(NULL, CASE WHEN true THEN event.deadline END),
    CASE WHEN false THEN event.wait_until ELSE NULL END,
    CASE WHEN false THEN event.wait_outcome ELSE NULL END,
    CASE WHEN false THEN event.approvals ELSE NULL END,
    CASE WHEN false THEN event.approved ELSE NULL END,
    coalesce(NULL, CASE WHEN false THEN event.recorded_at END),
    0 + coalesce(event.cost_usd, 0),
    0 + coalesce(event.step_count, 0),
    CASE WHEN false THEN event.error_code ELSE NULL END,
    coalesce(CASE WHEN false THEN event.version END, NULL),
    CASE WHEN false THEN event.output_sha256 ELSE NULL END,
    coalesce(NULL, CASE WHEN true THEN event.tags END),
    coalesce(NULL, CASE WHEN true THEN event.key END)
  FROM new_events AS event
  WHERE event.version = 1 AND event.type = 'run.submitted' AND event.state = 'pending';
  GET DIAGNOSTICS folded = ROW_COUNT;
  END IF;
  IF tagged > 0 THEN
  INSERT INTO ledger.run_tag (project_id, tag, kind, run_id)
  SELECT event.project_id, each.tag, event.kind, event.run_id
  FROM new_events AS event
  CROSS JOIN LATERAL (SELECT DISTINCT unnest(event.tags) AS tag) AS each
  WHERE event.version = 1;
  END IF;
  IF wanted > starts THEN
  -- The target row is found by a correlated lookup and updated by tuple id: no join order is left
  -- to choose. Whether an event is of a set of types (on_leased ...) is found once, not once for
  -- each column.
  UPDATE ledger.run_state AS run SET
    version = greatest(run.version, event.version),
    hash = coalesce(event.hash, run.hash),
    state = coalesce(event.state, run.state),
    attempt_count = coalesce(CASE WHEN event.on_counted THEN event.attempt END, run.attempt_count),
    worker_id = CASE WHEN event.on_leased THEN event.worker_id ELSE run.worker_id END,
    token = CASE WHEN event.on_leased THEN event.token ELSE run.token END,
    lease_credential = coalesce(CASE WHEN event.on_lease_acquired THEN event.credential END,
      run.lease_credential),
    moved_position = coalesce(CASE WHEN event.on_leased THEN event.position END,
      run.moved_position),
    lease_until = CASE WHEN event.on_extended THEN event.lease_until ELSE run.lease_until END,
    heartbeat_at = coalesce(CASE WHEN event.on_beaten THEN event.recorded_at END, run.heartbeat_at),
    available_at = CASE WHEN event.on_leased THEN event.available_at ELSE run.available_at END,
    started_at = coalesce(run.started_at, CASE WHEN event.on_lease_acquired THEN event.recorded_at
      END),
    completed_at = coalesce(CASE WHEN event.on_ended THEN event.recorded_at END, run.completed_at),
    updated_at = coalesce(event.recorded_at, run.updated_at),
    wait_until = CASE WHEN event.on_leased THEN event.wait_until ELSE run.wait_until END,
    wait_outcome = CASE WHEN event.on_leased THEN event.wait_outcome ELSE run.wait_outcome END,
    approvals = CASE WHEN event.on_leased THEN event.approvals ELSE run.approvals END,
    approved = CASE WHEN event.on_leased THEN event.approved ELSE run.approved END,
    cancel_requested_at = coalesce(run.cancel_requested_at, CASE WHEN event.on_cancel_requested THEN
      event.recorded_at END),
    cost_usd = run.cost_usd + coalesce(event.cost_usd, 0),
    step_count = run.step_count + coalesce(event.step_count, 0),
    error_code = CASE WHEN event.on_outcome THEN event.error_code ELSE run.error_code END,
    outcome_version = coalesce(CASE WHEN event.on_outcome THEN event.version END,
      run.outcome_version),
    output_sha256 = CASE WHEN event.on_ended THEN event.output_sha256 ELSE run.output_sha256 END
  FROM (
    SELECT fresh.approvals, fresh.approved, fresh.attempt, fresh.available_at, fresh.cost_usd,
      fresh.credential, fresh.error_code, fresh.hash, fresh.lease_until, fresh.output_sha256,
      fresh.position, fresh.recorded_at, fresh.state, fresh.step_count, fresh.token, fresh.type,
      fresh.version, fresh.wait_outcome, fresh.wait_until, fresh.worker_id, place.tid,
      fresh.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
        'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
        'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
        'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AS
        on_extended,
      fresh.type IN ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
        'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
        'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
        'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AS on_leased,
      fresh.type IN ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled',
        'run.completed', 'run.failed', 'run.retried', 'run.timed_out') AS on_outcome,
      fresh.type IN ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed',
        'run.failed', 'run.timed_out') AS on_ended,
      fresh.type = 'cancel.requested' AS on_cancel_requested,
      fresh.type = 'lease.acquired' AS on_lease_acquired,
      fresh.type IN ('lease.acquired', 'lease.expired', 'lease.released') AS on_counted,
      fresh.type IN ('lease.acquired', 'lease.heartbeat') AS on_beaten
    FROM new_events AS fresh
    CROSS JOIN LATERAL (
      SELECT found.ctid AS tid FROM ledger.run_state AS found
      WHERE found.project_id = fresh.project_id AND found.run_id = fresh.run_id OFFSET 0
    ) AS place
    WHERE fresh.version > 1 OFFSET 0
  ) AS event
  WHERE run.ctid = event.tid AND run.version = event.version - 1
    AND ledger.legal(event.type, run.state, event.state);
  GET DIAGNOSTICS updated = ROW_COUNT;
  END IF;
  IF folded + updated <> wanted THEN
    RAISE EXCEPTION 'only % of % events are legal next events of their runs; nothing was appended',
      folded + updated, wanted
      USING ERRCODE = 'RF001',
        HINT = 'Append through the functions of schema ledger, which lock and check the run first.';
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.forget_aside(p_relation text, p_project_id text, p_run_id uuid) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_given('p_relation', p_relation IS NOT NULL);
  PERFORM ledger.check_given('p_project_id', p_run_id IS NULL OR p_project_id IS NOT NULL);
  IF p_run_id IS NULL THEN
    DELETE FROM ledger.projection_aside AS aside
    WHERE aside.relation = p_relation AND aside.first_position = 0;
  ELSE -- by its key: a retry of many calls this for each
    DELETE FROM ledger.projection_aside AS aside WHERE aside.relation = p_relation
      AND aside.project_id = p_project_id AND aside.run_id = p_run_id;
  END IF;
END $$;

CREATE FUNCTION ledger.forget_deliveries(p_project text) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked CONSTANT boolean := ledger.check_access(p_project, '{read}');
  -- a variable, because an index is not searched for a volatile function
  before CONSTANT timestamptz := ledger.now() - interval '30 days';
  forgotten int;
BEGIN
  DELETE FROM ledger.delivery USING (
    SELECT ended.webhook_id, ended.run_id, ended.version FROM ledger.webhook CROSS JOIN LATERAL (
      SELECT sent.webhook_id, sent.run_id, sent.version FROM ledger.delivery AS sent
      WHERE sent.webhook_id = webhook.webhook_id
        AND sent.created_at < before AND sent.next_at IS NULL
      ORDER BY sent.created_at LIMIT 100
    ) AS ended WHERE webhook.project_id = p_project
  ) AS old
  WHERE delivery.webhook_id = old.webhook_id AND delivery.run_id = old.run_id
    AND delivery.version = old.version AND delivery.next_at IS NULL;
  GET DIAGNOSTICS forgotten = ROW_COUNT;
  RETURN forgotten;
END $$;

CREATE FUNCTION ledger.has_right(p_project text, p_rights text[]) RETURNS boolean
    LANGUAGE plpgsql STABLE
    AS $$
BEGIN
  IF ledger.is_owner() THEN
    RETURN true;
  END IF;
  PERFORM FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND granted.project_id IN (p_project, '*')
    AND p_rights && granted.rights AND (granted.until IS NULL OR granted.until > ledger.now());
  RETURN FOUND;
END $$;

CREATE FUNCTION ledger.heartbeat(p_project text, p_runs uuid[], p_tokens integer[], p_ttls interval[], p_workers text[] DEFAULT NULL::text[]) RETURNS TABLE(run_id uuid, lease_until timestamp with time zone, late_ms integer, cancel_requested boolean)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, '{work}');
  IF EXISTS (SELECT FROM unnest(p_ttls) AS given (ttl)
    WHERE given.ttl <= '0' OR given.ttl > '1 day') THEN
    RAISE EXCEPTION 'a lease must end within a day, and not at once' USING ERRCODE = '22023';
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each lease once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.* FROM unnest(p_runs, p_tokens, p_ttls, p_workers)
      AS given (run_id, token, ttl, worker) ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that are current
    SELECT asked.run_id, asked.token, asked.ttl, run.* FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.worker_id, run.lease_until AS was_until,
        run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        -- No equality: the planner would search the index of leased runs for it, and many runs
        -- have the same token.
        AND asked.token IS NOT NULL AND run.token IS NOT DISTINCT FROM asked.token
        AND run.lease_credential = writer
        AND run.worker_id IS NOT DISTINCT FROM asked.worker
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the beat of each; a lease is never shortened
    SELECT timed.*, greatest(timed.was_until, timed.recorded_at + timed.ttl) AS lease_until,
      CASE WHEN timed.recorded_at > timed.was_until
        THEN least(floor(extract(epoch FROM timed.recorded_at - timed.was_until) * 1000),
          2147483647)::int END AS late_ms
    FROM (SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
      FROM locked) AS timed
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, token,
      lease_until, late_ms, credential, hash)
    SELECT p_project, next.run_id, next.version + 1, next.recorded_at, 'lease.heartbeat',
      next.worker_id, next.token, next.lease_until, next.late_ms, writer,
      ledger.event_hash(next.hash, p_project, next.run_id, next.version + 1, next.recorded_at,
        'lease.heartbeat', next.worker_id, token => next.token, lease_until => next.lease_until,
        late_ms => next.late_ms, credential => writer)
    FROM next
  )
  SELECT next.run_id, next.lease_until, next.late_ms, next.cancel_requested_at IS NOT NULL
    FROM next;
END $$;

CREATE TABLE ledger.payload (
    project_id text NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    salt bytea NOT NULL,
    body json NOT NULL
);

CREATE VIEW ledger.entry WITH (security_invoker='true') AS
 SELECT event.project_id,
    event.run_id,
    event.version,
    event."position",
    event.txid,
    event.recorded_at,
    event.type,
    event.schema_version,
    event.actor,
    event.state,
    event.name,
    event.kind,
    event.priority,
    event.max_attempts,
    event.deadline,
    event.tags,
    event.attempt,
    event.worker_id,
    event.token,
    event.lease_until,
    event.available_at,
    event.late_ms,
    event.wait_until,
    event.wait_outcome,
    event.cost_usd,
    event.step_count,
    event.error_code,
    event.output_sha256,
    event.compensates,
    event.key,
    event.payload_hash,
    event.credential,
    event.role,
    event.other_person,
    event.shown_sha256,
    event.request,
    event.meaning,
    event.based_on,
    event.approvals,
    event.approved,
    event.hash,
    payload.body
   FROM (ledger.event
     LEFT JOIN LATERAL ( SELECT payload_1.body
           FROM ledger.payload payload_1
          WHERE ((payload_1.project_id = event.project_id) AND (payload_1.run_id = event.run_id) AND (payload_1.version = event.version))
         OFFSET 0) payload ON (true));

CREATE FUNCTION ledger.history(p_project text, p_run uuid, p_after integer DEFAULT NULL::integer, p_heartbeats boolean DEFAULT NULL::boolean, p_limit integer DEFAULT NULL::integer) RETURNS SETOF ledger.entry
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
  IF NOT (ledger.has_right(p_project, '{read}')
    OR ledger.has_right(p_project, '{work}') AND EXISTS (
      SELECT FROM ledger.run_state AS run WHERE run.project_id = p_project AND run.run_id = p_run
        AND run.token IS NOT NULL AND run.lease_credential = ledger.credential())) THEN
    PERFORM ledger.check_access(p_project, '{read}');
  END IF;
  RETURN QUERY SELECT entry.* FROM ledger.entry
  WHERE entry.project_id = p_project AND entry.run_id = p_run
    AND entry.version > coalesce(p_after, 0)
    AND (p_heartbeats IS NOT FALSE OR entry.type <> 'lease.heartbeat') ORDER BY entry.version
  LIMIT p_limit;
  IF NOT FOUND THEN -- the owner may read projects that do not exist
    PERFORM ledger.check_access(p_project, '{read,work}');
  END IF;
END $$;

CREATE FUNCTION ledger.holders(p_relation regclass, p_project text) RETURNS text
    LANGUAGE sql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  -- The row's xmax may be a subtransaction's, which belongs to nobody in pg_locks. A prepared
  -- transaction has no process there: it is the one that holds its own id.
  SELECT coalesce(string_agg(CASE WHEN prepared.gid IS NOT NULL
    THEN format('prepared transaction %L of login %s: end it with ROLLBACK PREPARED %1$L',
      prepared.gid, login.rolname)
    ELSE format(
      'process %s, login %s%s: end it with SELECT pg_terminate_backend(%1$s)',
      session.pid, login.rolname,
      ', in a transaction since ' || to_char(session.xact_start AT TIME ZONE 'UTC',
        'YYYY-MM-DD HH24:MI:SS "UTC"')) END,
    '; or by ' ORDER BY coalesce(session.xact_start, prepared.prepared)), 'another session')
  FROM pg_locks AS lock
  LEFT JOIN pg_stat_activity AS session ON session.pid = lock.pid
  LEFT JOIN (
    pg_prepared_xacts AS prepared JOIN pg_locks AS own ON own.transactionid = prepared.transaction
  ) ON own.virtualtransaction = lock.virtualtransaction AND lock.pid IS NULL AND own.pid IS NULL
  JOIN pg_roles AS login ON login.rolname IN (session.usename, prepared.owner)
  JOIN pg_database AS here ON here.oid = lock.database
  WHERE lock.relation = p_relation AND lock.granted
    AND lock.mode IN ('RowExclusiveLock', 'ShareRowExclusiveLock', 'AccessExclusiveLock')
    AND here.datname = current_database() AND lock.pid IS DISTINCT FROM pg_backend_pid()
    AND (p_project IS NULL OR pg_has_role(login.oid, current_user, 'MEMBER') OR EXISTS (
      SELECT FROM ledger.access_grant AS granted
      WHERE granted.credential = login.rolname AND granted.project_id IN (p_project, '*')))
$_$;

CREATE FUNCTION ledger.is_owner() RETURNS boolean
    LANGUAGE sql STABLE
    AS $$
  SELECT coalesce(current_setting('runfold.token', true), '') = ''
    AND pg_has_role(session_user, current_user, 'MEMBER')
$$;

CREATE FUNCTION ledger.is_replicated() RETURNS boolean
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT current_setting('session_replication_role') = 'replica'
    AND EXISTS (SELECT FROM pg_stat_get_subscription(NULL) AS subscription
      WHERE subscription.pid = pg_backend_pid())
$$;

CREATE FUNCTION ledger.is_type(p_type text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  SELECT p_type = ANY (ARRAY[
    'approval.expired',
    'approval.granted',
    'approval.lapsed',
    'approval.rejected',
    'approval.requested',
    'approval.signed',
    'cancel.requested',
    'lease.acquired',
    'lease.expired',
    'lease.heartbeat',
    'lease.released',
    'note.added',
    'payload.erased',
    'run.cancelled',
    'run.completed',
    'run.failed',
    'run.retried',
    'run.submitted',
    'run.timed_out',
    'signal.received',
    'step.completed',
    'step.failed',
    'tool.completed',
    'tool.failed',
    'tool.requested',
    'write.refused'
  ])
  OR split_part(p_type, '.', 1) <> ALL (ARRAY['approval', 'cancel', 'lease', 'note', 'payload',
    'run', 'signal', 'step', 'tool', 'write'])
$$;

CREATE FUNCTION ledger.keep_control_head() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  IF TG_OP IN ('INSERT', 'UPDATE') THEN
    IF NEW.number = coalesce(OLD.number, 0) + 1
      AND NEW.project_id = coalesce(OLD.project_id, NEW.project_id)
      AND EXISTS (SELECT FROM ledger.control_event AS event WHERE event.project_id = NEW.project_id
        AND event.number = NEW.number AND event.hash = NEW.hash) THEN
      RETURN NEW;
    END IF;
  END IF;
  RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RF403', HINT = 'A head follows its list by itself.';
END $$;

CREATE FUNCTION ledger.keep_time() RETURNS timestamp with time zone
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET "DateStyle" TO 'ISO'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  tolerance CONSTANT interval := '1 s';
  plain CONSTANT text := ' SELECT ledger.clock() ';
  held timestamptz := ledger.now();
  clock timestamptz := ledger.clock();
  body text;
  known bigint;
  newest timestamptz;
BEGIN
  IF current_setting('transaction_read_only') = 'on' THEN
    RETURN held;
  END IF;
  SELECT kept.last_value INTO known FROM ledger.newest_time AS kept;
  SELECT greatest(max(recent.recorded_at), to_timestamp(0) + known * interval '1 us') INTO newest
  FROM (SELECT event.recorded_at FROM ledger.newest_events(100) AS event) AS recent;
  IF newest > to_timestamp(0) + known * interval '1 us' + tolerance THEN
    PERFORM setval('ledger.newest_time', (extract(epoch FROM newest) * 1000000)::bigint);
  END IF;
  SELECT prosrc INTO body FROM pg_proc WHERE oid = 'ledger.now()'::regprocedure;
  IF newest <= held + tolerance AND (body = plain OR clock < newest) THEN
    RETURN held;
  END IF;
  BEGIN
    PERFORM FROM ledger.control_event AS first
    WHERE first.project_id = '*' AND first.number = 1 FOR UPDATE NOWAIT;
  EXCEPTION WHEN lock_not_available THEN
    RETURN held;
  END;
  held := ledger.now(); -- another call may have set it right meanwhile
  clock := ledger.clock();
  IF newest > held + tolerance THEN
    EXECUTE format('CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS %L',
      format(' SELECT greatest(ledger.clock(), %L::timestamptz'
        || ' + 0.9 * (ledger.clock() - %L::timestamptz)) ', newest, clock));
    PERFORM ledger.append_control('*', 'clock.set_back', 'clock:ledger',
      json_build_object('clock', clock, 'goes_on_from', newest)::text, session_user, NULL);
  ELSIF clock >= newest THEN
    EXECUTE format('CREATE OR REPLACE FUNCTION ledger.now() RETURNS timestamptz
      LANGUAGE sql VOLATILE PARALLEL SAFE AS %L', plain);
    PERFORM ledger.append_control('*', 'clock.caught_up', 'clock:ledger',
      json_build_object('clock', clock)::text, session_user, NULL);
  END IF;
  RETURN ledger.now();
END $$;

CREATE FUNCTION ledger.kind_rooms(p_project text, p_kinds text[], p_returning boolean, p_moment timestamp with time zone, OUT kinds text[], OUT has_returning boolean, OUT limited text[], OUT rooms integer[], OUT busy text[], OUT places integer) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
  restricted text[]; -- the paused and the limited kinds
  due timestamptz;
  in_doubt boolean;
  is_marked boolean;
  is_locked boolean;
  kind_now text;
  room int;
BEGIN
  limited := '{}';
  rooms := '{}';
  busy := '{}';
  IF p_kinds IS NULL THEN
    SELECT array_agg(DISTINCT known.kind) INTO kinds
    FROM ledger.kind AS known WHERE known.project_id = p_project;
  ELSIF cardinality(p_kinds) > 1 THEN
    SELECT array_agg(DISTINCT asked.kind) INTO kinds FROM unnest(p_kinds) AS asked (kind);
  ELSE
    kinds := p_kinds;
  END IF;
  -- A kind with marks of several priorities may have runs that came back; claim_ranges finds out.
  IF cardinality(kinds) = 1 THEN -- the common case, in a third of the time
    kind_now := kinds[1]; -- a subscript in each query would cost a microsecond
    SELECT cardinality(mark.priorities), cardinality(mark.back_priorities) > 1, mark.dues[1],
      mark.open <> '{}' OR mark.seen_at > p_moment
    INTO places, has_returning, due, in_doubt
    FROM ledger.newest_mark(p_project, kind_now) AS mark;
    due := coalesce(due, '-infinity');
    SELECT p_returning OR coalesce(has_returning, false) OR EXISTS (
        SELECT FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = kind_now
          AND run.available_at > run.created_at
          AND (run.priority, run.available_at) >= (0, due)
        ORDER BY run.priority, run.available_at LIMIT 1
      ), (
        SELECT ARRAY[state.kind] FROM ledger.kind_state AS state
        WHERE state.project_id = p_project AND state.kind = kind_now
          AND (state.paused OR state.max_running IS NOT NULL)
      )
    INTO has_returning, restricted;
  ELSE
    SELECT p_returning OR coalesce(bool_or(cardinality(mark.back_priorities) > 1 OR EXISTS (
        SELECT FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = named.kind
          AND run.available_at > run.created_at
          AND (run.priority, run.available_at) >= (0, coalesce(mark.dues[1], '-infinity'))
        ORDER BY run.priority, run.available_at LIMIT 1
      )), false), (
        SELECT array_agg(state.kind ORDER BY state.kind) FROM ledger.kind_state AS state
        WHERE state.project_id = p_project AND state.kind = ANY (kinds)
          AND (state.paused OR state.max_running IS NOT NULL)
      ), sum(cardinality(mark.priorities)), bool_or(mark.open <> '{}' OR mark.seen_at > p_moment)
    INTO has_returning, restricted, places, in_doubt
    FROM unnest(kinds) AS named (kind)
    LEFT JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark ON true;
  END IF;
  IF in_doubt AND EXISTS (SELECT FROM unnest(kinds) AS named (kind)
    WHERE NOT ledger.marks_hold(p_project, named.kind)) THEN
    PERFORM ledger.move_low_water(p_project, kinds, '1 day');
    has_returning := true;
    places := 0;
  END IF;
  IF restricted IS NULL THEN
    RETURN;
  END IF;

  PERFORM ledger.move_low_water(p_project, restricted, '1 second');
  FOREACH kind_now IN ARRAY restricted LOOP
    IF EXISTS (SELECT FROM ledger.kind_state AS setting
      WHERE setting.project_id = p_project AND setting.kind = kind_now AND setting.paused) THEN
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    IF current_setting('transaction_isolation') <> 'read committed' THEN
      RAISE EXCEPTION 'a limited kind is claimed only in a read committed transaction: '
        'an older snapshot would miscount'
        USING ERRCODE = '25001';
    END IF;
    PERFORM FROM ledger.kind_event AS turn
    WHERE turn.project_id = p_project AND turn.kind = kind_now AND turn.number = 1
    FOR UPDATE SKIP LOCKED;
    is_locked := FOUND;
    -- After the lock: this look, and the count after it, have snapshots of their own.
    SELECT setting.max_running INTO room FROM ledger.kind_state AS setting
    WHERE setting.project_id = p_project AND setting.kind = kind_now AND NOT setting.paused;
    IF NOT is_locked OR NOT FOUND THEN -- another claim's turn, or paused by now
      busy := busy || kind_now;
      kinds := array_remove(kinds, kind_now);
      CONTINUE;
    END IF;
    CONTINUE WHEN room IS NULL;
    is_marked := ledger.marks_hold(p_project, kind_now);
    SELECT room - count(*) INTO room FROM (
      SELECT FROM ledger.leases(p_project, kind_now, is_marked) LIMIT room
    ) AS held;
    IF room > 0 THEN
      limited := limited || kind_now;
      rooms := rooms || room;
    ELSE
      kinds := array_remove(kinds, kind_now);
    END IF;
  END LOOP;
END $$;

CREATE FUNCTION ledger.leases(p_project text, p_kind text, p_marked boolean) RETURNS TABLE(run_id uuid, priority integer, worker_id text, token integer, moved_position bigint, lease_until timestamp with time zone, heartbeat_at timestamp with time zone, attempt_count integer, max_attempts integer)
    LANGUAGE sql STABLE
    AS $$
  SELECT run.run_id, run.priority, run.worker_id, run.token, run.moved_position, run.lease_until,
    run.heartbeat_at, run.attempt_count, run.max_attempts
  FROM ledger.newest_mark(p_project, p_kind) AS mark
  CROSS JOIN LATERAL unnest(mark.older_leases) AS older (run_id)
  CROSS JOIN LATERAL (
    SELECT run.* FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = older.run_id OFFSET 0
  ) AS run
  WHERE p_marked AND run.kind = p_kind AND run.token IS NOT NULL
    AND run.moved_position <= mark.leases_after
  UNION ALL
  SELECT run.run_id, run.priority, run.worker_id, run.token, run.moved_position, run.lease_until,
    run.heartbeat_at, run.attempt_count, run.max_attempts
  FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind AND run.token IS NOT NULL
    AND run.moved_position > coalesce((
      SELECT mark.leases_after FROM ledger.newest_mark(p_project, p_kind) AS mark
      WHERE p_marked), 0)
$$;

CREATE FUNCTION ledger.legal(p_type text, p_from text, p_to text) RETURNS boolean
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  SELECT (p_type || ':' || p_from || ':' || coalesce(p_to, '')) = ANY (ARRAY[
    'approval.expired:waiting_approval:cancelled',
    'approval.expired:waiting_approval:timeout',
    'approval.granted:waiting_approval:',
    'approval.granted:waiting_approval:running',
    'approval.lapsed:waiting_approval:',
    'approval.lapsed:waiting_approval:running',
    'approval.rejected:waiting_approval:cancelled',
    'approval.requested:running:waiting_approval',
    'approval.signed:waiting_approval:',
    'cancel.requested:running:',
    'cancel.requested:waiting_approval:',
    'cancel.requested:waiting_tool:',
    'lease.acquired:pending:running',
    'lease.acquired:waiting_approval:running',
    'lease.acquired:waiting_tool:running',
    'lease.expired:running:pending',
    'lease.expired:waiting_approval:pending',
    'lease.expired:waiting_tool:pending',
    'lease.heartbeat:running:',
    'lease.heartbeat:waiting_approval:',
    'lease.heartbeat:waiting_tool:',
    'lease.released:running:pending',
    'lease.released:waiting_approval:pending',
    'lease.released:waiting_tool:pending',
    'note.added:cancelled:',
    'note.added:completed:',
    'note.added:failed:',
    'note.added:pending:',
    'note.added:running:',
    'note.added:timeout:',
    'note.added:waiting_approval:',
    'note.added:waiting_tool:',
    'payload.erased:cancelled:',
    'payload.erased:completed:',
    'payload.erased:failed:',
    'payload.erased:pending:',
    'payload.erased:running:',
    'payload.erased:timeout:',
    'payload.erased:waiting_approval:',
    'payload.erased:waiting_tool:',
    'run.cancelled:pending:cancelled',
    'run.cancelled:running:cancelled',
    'run.cancelled:waiting_approval:cancelled',
    'run.cancelled:waiting_tool:cancelled',
    'run.completed:running:completed',
    'run.failed:running:failed',
    'run.failed:waiting_tool:failed',
    'run.retried:running:pending',
    'run.retried:waiting_tool:pending',
    'run.timed_out:running:timeout',
    'run.timed_out:waiting_approval:timeout',
    'signal.received:pending:',
    'signal.received:running:',
    'signal.received:waiting_approval:',
    'signal.received:waiting_tool:',
    'step.completed:running:',
    'step.completed:waiting_approval:',
    'step.completed:waiting_tool:',
    'step.failed:running:',
    'step.failed:waiting_approval:',
    'step.failed:waiting_tool:',
    'tool.completed:waiting_tool:',
    'tool.completed:waiting_tool:running',
    'tool.failed:waiting_tool:',
    'tool.failed:waiting_tool:running',
    'tool.requested:running:waiting_tool',
    'write.refused:cancelled:',
    'write.refused:completed:',
    'write.refused:failed:',
    'write.refused:pending:',
    'write.refused:running:',
    'write.refused:timeout:',
    'write.refused:waiting_approval:',
    'write.refused:waiting_tool:'
  ])
  OR (p_to IS NULL AND split_part(p_type, '.', 1) <> ALL (ARRAY['approval', 'cancel', 'lease',
    'note', 'payload', 'run', 'signal', 'step', 'tool', 'write'])
    AND p_from = ANY (ARRAY['pending', 'running', 'waiting_approval', 'waiting_tool']))
$$;

CREATE FUNCTION ledger.limit_login(p_project text, p_actor text, p_credential text, p_reason text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  has_rights CONSTANT boolean := EXISTS (SELECT FROM ledger.access_grant AS granted
    WHERE granted.credential = p_credential AND cardinality(granted.rights) > 0);
  here CONSTANT text := format('ALTER ROLE %I IN DATABASE %I ', p_credential, current_database());
  changed jsonb;
  change text;
BEGIN
  SELECT jsonb_object_agg(bound.name, CASE WHEN has_rights THEN bound.value END) INTO changed
  FROM pg_roles AS login
  JOIN pg_database AS this_database ON this_database.datname = current_database()
  CROSS JOIN ledger.login_limits() AS bound
  WHERE login.rolname = p_credential AND login.rolcanlogin
    AND NOT pg_has_role(login.oid, current_user, 'MEMBER')
    AND has_rights <> EXISTS (
      SELECT FROM pg_db_role_setting AS kept CROSS JOIN unnest(kept.setconfig) AS line (setting)
      WHERE CASE WHEN has_rights
        THEN kept.setrole IN (0, login.oid) AND kept.setdatabase IN (0, this_database.oid)
          AND split_part(line.setting, '=', 1) = bound.name
        ELSE kept.setrole = login.oid AND kept.setdatabase = this_database.oid
          AND line.setting = bound.name || '=' || bound.value END);
  IF changed IS NULL THEN
    RETURN;
  END IF;
  FOR change IN SELECT CASE WHEN has_rights THEN format('SET %I = %L', wanted.key, wanted.value)
      ELSE format('RESET %I', wanted.key) END FROM jsonb_each_text(changed) AS wanted LOOP
    EXECUTE here || change;
  END LOOP;
  PERFORM ledger.append_control(p_project, CASE WHEN has_rights THEN 'limits.set'
    ELSE 'limits.reset' END, 'limits:' || p_credential, changed::text, p_actor, p_reason);
EXCEPTION
  WHEN insufficient_privilege THEN
    RAISE WARNING 'the time limits of login % are left as they are: the ledger''s owner may not '
      'change them, an administrator may', p_credential;
  WHEN lock_not_available OR internal_error OR unique_violation OR undefined_object THEN
    RAISE WARNING 'the time limits of login % are left as they are: another change of its settings '
      'is at work', p_credential;
END $$;

CREATE FUNCTION ledger.lock_control(p_list text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  begun CONSTANT text := 'list:' || p_list;
  first bigint := CASE WHEN p_list = '*' THEN 1
    ELSE (SELECT event.number FROM ledger.control_event AS event WHERE event.subject = begun) END;
BEGIN
  IF first IS NULL THEN
    PERFORM ledger.lock_control('*');
    SELECT event.number INTO first FROM ledger.control_event AS event WHERE event.subject = begun;
    IF first IS NULL THEN -- nobody has begun it meanwhile
      PERFORM ledger.append_control('*', 'list.begun', begun, NULL, session_user, NULL);
      RETURN;
    END IF;
  END IF;
  BEGIN
    PERFORM FROM ledger.control_event AS event WHERE event.project_id = '*' AND event.number = first
    FOR UPDATE;
  EXCEPTION WHEN lock_not_available THEN
    RAISE EXCEPTION 'the control history of % is held by %', CASE WHEN p_list = '*'
      THEN 'the database' ELSE 'project ' || p_list END,
      ledger.holders('ledger.control_event', p_list)
      USING ERRCODE = '55P03';
  END;
END $$;

CREATE FUNCTION ledger.lock_row(p_relation regclass, p_column text, p_project text, p_key text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $_$
BEGIN
  EXECUTE format('SELECT FROM %s AS locked '
    'WHERE locked.project_id = $1 AND locked.%I = $2 FOR UPDATE', p_relation, p_column)
    USING p_project, p_key;
EXCEPTION WHEN lock_not_available THEN
  RAISE EXCEPTION '% of project % is held by %', p_key, p_project,
    ledger.holders(p_relation, p_project) USING ERRCODE = '55P03';
END $_$;

CREATE FUNCTION ledger.lock_runs(p_project text, p_runs uuid[]) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
  PERFORM FROM (
    SELECT DISTINCT asked.run_id FROM unnest(p_runs) AS asked (run_id) ORDER BY asked.run_id
      OFFSET 0
  ) AS asked
  CROSS JOIN LATERAL (
    SELECT FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = asked.run_id FOR UPDATE
  ) AS locked;
END $$;

CREATE FUNCTION ledger.login_limits() RETURNS TABLE(name text, value text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT bound.name, bound.value
  FROM (VALUES ('idle_in_transaction_session_timeout', '10min'), ('lock_timeout', '6min'),
    ('statement_timeout', '30min'), ('transaction_timeout', '1d')) AS bound (name, value)
  WHERE current_setting(bound.name, true) IS NOT NULL -- PostgreSQL 17 brought the last
$$;

CREATE FUNCTION ledger.make_partitions(p_months_ahead integer DEFAULT 3) RETURNS integer
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET default_tablespace TO ''
    AS $$
DECLARE
  this_month CONSTANT timestamp := ledger.uuid7_month(ledger.uuid7());
  begins timestamp;
  partition text;
  made int := 0;
BEGIN
  IF p_months_ahead NOT BETWEEN 0 AND 120 THEN
    RAISE EXCEPTION 'months ahead must be 0 to 120, not %', p_months_ahead USING ERRCODE = '22023';
  END IF;
  IF p_months_ahead > 3 AND NOT pg_has_role(session_user, current_user, 'MEMBER') THEN
    RAISE EXCEPTION 'this login makes partitions for at most 3 months ahead, not %', p_months_ahead
      USING ERRCODE = '42501';
  END IF;
  FOR begins IN
    SELECT generate_series(this_month, this_month + make_interval(months => p_months_ahead),
      '1 month')
  LOOP
    partition := 'event_' || to_char(begins, 'YYYY_MM');
    CONTINUE WHEN to_regclass('ledger.' || partition) IS NOT NULL;
    LOCK TABLE ledger.event IN SHARE UPDATE EXCLUSIVE MODE;
    CONTINUE WHEN to_regclass('ledger.' || partition) IS NOT NULL; -- made while this waited
    CONTINUE WHEN EXISTS (SELECT FROM ledger.archive AS archived WHERE archived.detached
      AND archived.first = ledger.uuid7_floor(begins));
    EXECUTE format(
      'CREATE TABLE ledger.%I (LIKE ledger.event INCLUDING DEFAULTS INCLUDING CONSTRAINTS)',
      partition);
    PERFORM ledger.attach_partition(begins);
    made := made + 1;
  END LOOP;
  RETURN made;
END $$;

CREATE FUNCTION ledger.make_projection_table(p_table text, p_columns text[], p_types text[], p_required text[], p_key text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET default_tablespace TO ''
    AS $$
DECLARE
  types CONSTANT text[] := ARRAY['text', 'int', 'bigint', 'numeric', 'boolean', 'uuid', 'date',
    'timestamptz', 'interval', 'bytea', 'text[]'];
  name CONSTANT text := '[a-z][a-z0-9_]{0,40}';
  everywhere CONSTANT text := '(SELECT ledger.projects_with(''read'', ''audit'')) IS NULL';
  in_project CONSTANT text :=
    'project_id = ANY ((SELECT ledger.projects_seen(''read'', ''audit''))::text[])';
  columns text;
  key text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('table of a projection', p_table,
    name || '_v[0-9]{1,5}|rebuild_[0-9]{1,9}_of_' || name);
  IF cardinality(p_columns) IS DISTINCT FROM cardinality(p_types) OR NOT p_types <@ types
    OR NOT p_required <@ p_columns OR NOT p_key <@ p_columns OR cardinality(p_key) = 0 THEN
    RAISE EXCEPTION 'the columns of table % do not fit together', p_table
      USING ERRCODE = '22023',
        HINT = 'Each column has one of these types: ' || array_to_string(types, ', ');
  END IF;
  SELECT string_agg(format('%I %s%s',
      ledger.check_projection_name('column', listed.name, '[a-z][a-z0-9_]{0,49}'), listed.type,
      CASE WHEN listed.name = ANY (p_required) THEN ' NOT NULL' ELSE '' END),
      ', ' ORDER BY listed.place)
    INTO columns FROM unnest(p_columns, p_types) WITH ORDINALITY AS listed (name, type, place);
  SELECT string_agg(quote_ident(keyed.name), ', ' ORDER BY keyed.place)
    INTO key FROM unnest(p_key) WITH ORDINALITY AS keyed (name, place);
  EXECUTE format('CREATE TABLE projection.%I (%s, PRIMARY KEY (%s))', p_table, columns, key);
  EXECUTE format('GRANT SELECT ON projection.%I '
    'TO runfold_reader, runfold_worker, runfold_projector', p_table);
  -- UPDATE of columns, and no DELETE: who has either of the table may lock it against readers.
  EXECUTE format('GRANT INSERT, UPDATE (%s) ON projection.%I TO runfold_projector',
    (SELECT string_agg(quote_ident(listed.name), ', ') FROM unnest(p_columns) AS listed (name)),
    p_table);
  EXECUTE format('ALTER TABLE projection.%I ENABLE ROW LEVEL SECURITY', p_table);
  EXECUTE format('CREATE POLICY seen ON projection.%I FOR SELECT USING (%s)', p_table,
    CASE WHEN 'project_id' = ANY (p_key) THEN in_project
      WHEN 'project_id' = ANY (p_columns) THEN everywhere || ' OR ' || in_project
      ELSE everywhere END);
  EXECUTE format('CREATE POLICY kept ON projection.%I TO runfold_projector USING (%s)', p_table,
    everywhere || ' AND current_setting(''transaction_isolation'') = ''read committed''');
END $$;

CREATE FUNCTION ledger.marks_hold(p_project text, p_kind text) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
DECLARE
  seen pg_snapshot;
BEGIN
  seen := pg_current_snapshot();
  RETURN NOT EXISTS (
    SELECT FROM ledger.newest_mark(p_project, p_kind) AS mark
    WHERE mark.seen_at > ledger.now() OR mark.seen_clock > clock_timestamp()
      OR mark.seen_position > (SELECT last_value FROM ledger.event_position)
      OR mark.open <> '{}' AND EXISTS (
        SELECT FROM unnest(mark.open) AS txid (id) WHERE pg_visible_in_snapshot(txid.id, seen))
  );
END $$;

CREATE FUNCTION ledger.move_low_water(p_project text, p_kinds text[], p_every interval, p_lag interval DEFAULT '00:00:01'::interval) RETURNS void
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
  position_now CONSTANT bigint := (SELECT last_value FROM ledger.event_position);
  moment CONSTANT timestamptz := ledger.now();
  clock_now CONSTANT timestamptz := clock_timestamp();
  seen pg_snapshot;
  kind_now text;
  old ledger.low_water;
  new ledger.low_water;
  ended xid8[];
  late uuid[];
  moving int[]; -- the priorities of held runs, and of those that were committed late
  is_set_back boolean;
BEGIN
  IF current_setting('transaction_isolation') <> 'read committed'
    OR pg_current_xact_id_if_assigned() IS NOT NULL THEN
    RETURN;
  END IF;
  FOR kind_now IN
    SELECT named.kind FROM unnest(p_kinds) AS named (kind)
    LEFT JOIN LATERAL ledger.newest_mark(p_project, named.kind) AS mark ON true
    WHERE mark.seen_at IS NULL
      OR mark.seen_at <= moment - p_every * (1 + (
        cardinality(mark.older_leases) + cardinality(mark.older_parked)) / 200)
      OR NOT ledger.marks_hold(p_project, named.kind)
  LOOP
    PERFORM FROM ledger.kind AS known
    WHERE known.project_id = p_project AND known.kind = kind_now AND known.run_id = (
      SELECT first.run_id FROM ledger.kind AS first
      WHERE first.project_id = p_project AND first.kind = kind_now ORDER BY first.run_id LIMIT 1)
    FOR NO KEY UPDATE SKIP LOCKED;
    CONTINUE WHEN NOT FOUND; -- another call moves them now

    SELECT mark.* INTO old FROM ledger.newest_mark(p_project, kind_now) AS mark;
    is_set_back := old.seen_at > ledger.now() OR old.seen_clock > clock_timestamp()
      OR old.seen_position > (SELECT last_value FROM ledger.event_position);
    CONTINUE WHEN NOT is_set_back AND (old.seen_position > position_now OR old.seen_at > moment
      OR old.seen_clock > clock_now); -- another call, which began later, has moved them
    IF old.number IS NULL OR is_set_back THEN
      new := (p_project, kind_now, 0, 0, '{}', '{0}', '{00000000-0000-0000-0000-000000000000}',
        '{0}', '{-infinity}', '-infinity', 0, 0, '{}', '{}', 0, now(), now(), '0');
    ELSE
      new := old;
      seen := pg_current_snapshot();
      new.open := ARRAY(SELECT txid.id FROM pg_snapshot_xip(seen) AS txid (id)
        WHERE txid.id < old.seen_txid OR txid.id = ANY (old.open));
      ended := ARRAY(SELECT txid.id FROM unnest(old.open) AS txid (id)
        WHERE txid.id <> ALL (new.open));
      late := CASE WHEN ended = '{}' THEN '{}' ELSE ARRAY(
        SELECT DISTINCT brought.run_id FROM unnest(ended) AS txid (id)
        CROSS JOIN LATERAL (
          SELECT event.project_id, event.run_id FROM ledger.event AS event
          WHERE event.txid = txid.id OFFSET 0 -- so that no plan walks the project's events
        ) AS brought
        WHERE brought.project_id = p_project) END;
      SELECT coalesce(array_agg(DISTINCT run.run_id)
          FILTER (WHERE run.token IS NOT NULL AND run.moved_position <= old.seen_position), '{}'),
        coalesce(array_agg(DISTINCT run.priority), '{}')
      INTO new.older_leases, moving
      FROM (
        SELECT held.run_id, held.priority, held.token, held.moved_position
        FROM ledger.leases(p_project, kind_now, true) AS held
        UNION ALL
        SELECT run.run_id, run.priority, run.token, run.moved_position
        FROM unnest(late) AS brought (run_id)
        CROSS JOIN LATERAL (
          SELECT run.* FROM ledger.run_state AS run
          WHERE run.project_id = p_project AND run.run_id = brought.run_id OFFSET 0
        ) AS run
        WHERE run.kind = kind_now
      ) AS run;
      new.leases_after := old.seen_position;
      SELECT place.* INTO new.priorities, new.runs, new.back_priorities, new.dues
      FROM ledger.next_claim_marks(old, moving, late,
        ledger.uuid7_floor((old.seen_clock - p_lag) AT TIME ZONE 'UTC'), old.seen_at - 10 * p_lag)
        AS place;
      new.parked_after := old.seen_position;
      SELECT ends.* INTO new.ends_from, new.cancels_after, new.older_parked
      FROM ledger.next_sweep_marks(old, late, old.seen_at - 10 * p_lag) AS ends;
    END IF;
    new.number := coalesce(old.number, 0) + 1;
    new.seen_position := position_now;
    new.seen_at := moment;
    new.seen_clock := clock_now;
    new.seen_txid := pg_current_xact_id();
    INSERT INTO ledger.low_water SELECT new.*;
    DELETE FROM ledger.low_water AS mark WHERE mark.project_id = p_project AND mark.kind = kind_now
      AND mark.number = old.number;
  END LOOP;
END $$;

CREATE FUNCTION ledger.newest_events(p_limit integer) RETURNS TABLE(project_id text, run_id uuid, "position" bigint, recorded_at timestamp with time zone)
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  start text := (
    SELECT this.start FROM ledger.feed_generation AS this WHERE this.end_position IS NULL);
BEGIN
  RETURN QUERY SELECT event.project_id, event.run_id, event.position, event.recorded_at
  FROM ledger.event AS event
  WHERE event.txid >= pg_snapshot_xmin(split_part(start, '@', 1)::pg_snapshot)
    AND event.txid < pg_snapshot_xmax(pg_current_snapshot())
    AND event.position > split_part(start, '@', 2)::bigint
  ORDER BY event.txid DESC, event.position DESC LIMIT p_limit;
END $$;

CREATE TABLE ledger.low_water (
    project_id text NOT NULL,
    kind text NOT NULL,
    number bigint NOT NULL,
    leases_after bigint NOT NULL,
    older_leases uuid[] NOT NULL,
    priorities integer[] NOT NULL,
    runs uuid[] NOT NULL,
    back_priorities integer[] NOT NULL,
    dues timestamp with time zone[] NOT NULL,
    ends_from timestamp with time zone NOT NULL,
    cancels_after bigint NOT NULL,
    parked_after bigint NOT NULL,
    older_parked uuid[] NOT NULL,
    open xid8[] NOT NULL,
    seen_position bigint NOT NULL,
    seen_at timestamp with time zone NOT NULL,
    seen_clock timestamp with time zone NOT NULL,
    seen_txid xid8 NOT NULL,
    CONSTRAINT low_water_number_check CHECK (((number >= 1) AND (number <= '1000000000000000'::bigint))),
    CONSTRAINT low_water_seen_at_check CHECK (isfinite(seen_at)),
    CONSTRAINT low_water_seen_clock_check CHECK (isfinite(seen_clock))
);

CREATE FUNCTION ledger.newest_mark(p_project text, p_kind text) RETURNS SETOF ledger.low_water
    LANGUAGE sql STABLE
    AS $$
  SELECT mark.* FROM ledger.low_water AS mark
  WHERE mark.project_id = p_project AND mark.kind = p_kind
  ORDER BY mark.number DESC LIMIT 1
$$;

CREATE FUNCTION ledger.newest_request(p_project text, p_run uuid) RETURNS integer
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
  SELECT event.version FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
    AND event.type = 'approval.requested'
  ORDER BY event.run_id DESC, event.version DESC LIMIT 1
$$;

CREATE FUNCTION ledger.next_claim_marks(p_old ledger.low_water, p_moving integer[], p_late uuid[], p_run uuid, p_due timestamp with time zone, OUT priorities integer[], OUT runs uuid[], OUT back_priorities integer[], OUT dues timestamp with time zone[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
DECLARE
  beginning CONSTANT uuid := '00000000-0000-0000-0000-000000000000';
  most_places CONSTANT int := 64;
BEGIN
  WITH start AS (
    SELECT place.priority, max(place.run::text)::uuid AS run
    FROM (
      SELECT * FROM unnest(p_old.priorities, p_old.runs)
      UNION ALL SELECT 0, beginning
      UNION ALL SELECT unnest(p_moving), beginning
    ) AS place (priority, run)
    GROUP BY place.priority
  ), part AS (
    SELECT start.*, lead(start.priority, 1, 2147483647) OVER (ORDER BY start.priority) AS below
    FROM start
  ), first AS MATERIALIZED (
    SELECT part.priority, run.priority AS of_priority, run.run_id FROM part
    LEFT JOIN LATERAL (
      SELECT run.priority, run.run_id FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.available_at <= run.created_at
        AND (run.priority, run.run_id) >= (part.priority, part.run) AND run.priority < part.below
      ORDER BY run.priority, run.run_id LIMIT 1
    ) AS run ON true
  )
  SELECT array_agg(mark.priority ORDER BY mark.priority),
    array_agg(mark.run ORDER BY mark.priority)
  INTO priorities, runs
  FROM (
    SELECT place.priority, least(min(place.run::text)::uuid, p_run) AS run
    FROM (
      SELECT first.priority, p_run FROM first
      UNION ALL SELECT first.of_priority, first.run_id FROM first
      UNION ALL
      SELECT run.priority, run.run_id FROM unnest(p_late) AS brought (run_id)
      CROSS JOIN LATERAL (
        SELECT run.* FROM ledger.run_state AS run
        WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
      ) AS run
      WHERE run.kind = p_old.kind AND run.available_at <= run.created_at
    ) AS place (priority, run)
    WHERE place.priority IS NOT NULL
    GROUP BY place.priority ORDER BY place.priority LIMIT most_places
  ) AS mark;

  WITH start AS (
    SELECT place.priority, max(place.due) AS due
    FROM (
      SELECT * FROM unnest(p_old.back_priorities, p_old.dues)
      UNION ALL SELECT 0, '-infinity'
      UNION ALL SELECT unnest(p_moving), '-infinity'
    ) AS place (priority, due)
    GROUP BY place.priority
  ), part AS (
    SELECT start.*, lead(start.priority, 1, 2147483647) OVER (ORDER BY start.priority) AS below
    FROM start
  ), first AS MATERIALIZED (
    SELECT part.priority, run.priority AS of_priority, run.due FROM part
    LEFT JOIN LATERAL (
      SELECT run.priority, run.available_at AS due FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.available_at > run.created_at
        AND (run.priority, run.available_at) >= (part.priority, part.due)
        AND run.priority < part.below
      ORDER BY run.priority, run.available_at LIMIT 1
    ) AS run ON true
  )
  SELECT array_agg(mark.priority ORDER BY mark.priority),
    array_agg(mark.due ORDER BY mark.priority)
  INTO back_priorities, dues
  FROM (
    SELECT place.priority, least(min(place.due), p_due) AS due
    FROM (
      SELECT first.priority, p_due FROM first
      UNION ALL SELECT first.of_priority, first.due FROM first
      UNION ALL
      SELECT run.priority, run.available_at FROM unnest(p_late) AS brought (run_id)
      CROSS JOIN LATERAL (
        SELECT run.* FROM ledger.run_state AS run
        WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
      ) AS run
      WHERE run.kind = p_old.kind AND run.available_at > run.created_at
    ) AS place (priority, due)
    WHERE place.priority IS NOT NULL
    GROUP BY place.priority ORDER BY place.priority LIMIT most_places
  ) AS mark;
END $$;

CREATE FUNCTION ledger.next_due(p_project text, p_after timestamp with time zone) RETURNS timestamp with time zone
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,read}');
  -- a variable, because an index is not searched for a volatile function
  horizon timestamptz := ledger.now() + interval '1 min';
BEGIN
  RETURN (
    WITH known AS MATERIALIZED (
      SELECT kind.kind, low.ends_from, low.cancels_after
      FROM (SELECT DISTINCT kind.kind FROM ledger.kind WHERE kind.project_id = p_project) AS kind
      CROSS JOIN LATERAL ledger.sweep_start(p_project, kind.kind) AS low
    )
    SELECT min(run.ends_at) FROM known
    CROSS JOIN LATERAL (
      (SELECT least(run.deadline, run.wait_until) AS ends_at FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = known.kind AND run.completed_at IS NULL
          AND num_nonnulls(run.deadline, run.wait_until) > 0
          AND least(run.deadline, run.wait_until) >= known.ends_from
          AND least(run.deadline, run.wait_until) > p_after
          AND least(run.deadline, run.wait_until) <= horizon
        ORDER BY least(run.deadline, run.wait_until) LIMIT 1)
      UNION ALL
      (SELECT cancel.updated_at
        FROM ledger.cancels(p_project, known.kind, known.cancels_after) AS cancel
        WHERE cancel.updated_at > p_after LIMIT 1)
    ) AS run
  );
END $$;

CREATE FUNCTION ledger.next_sweep_marks(p_old ledger.low_water, p_late uuid[], p_moment timestamp with time zone, OUT ends_from timestamp with time zone, OUT cancels_after bigint, OUT older_parked uuid[]) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
  WITH late AS MATERIALIZED (
    SELECT run.* FROM unnest(p_late) AS brought (run_id)
    CROSS JOIN LATERAL (
      SELECT run.* FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.run_id = brought.run_id OFFSET 0
    ) AS run
    WHERE run.kind = p_old.kind AND run.completed_at IS NULL
  )
  SELECT least(p_moment, (
      SELECT least(run.deadline, run.wait_until) FROM ledger.run_state AS run
      WHERE run.project_id = p_old.project_id AND run.kind = p_old.kind
        AND run.completed_at IS NULL AND num_nonnulls(run.deadline, run.wait_until) > 0
        AND least(run.deadline, run.wait_until) >= p_old.ends_from
        AND least(run.deadline, run.wait_until) < p_moment
      ORDER BY least(run.deadline, run.wait_until) LIMIT 1
    ), (
      SELECT min(least(late.deadline, late.wait_until)) FROM late
    )),
    least(p_old.seen_position, (
      SELECT run.moved_position - 1
      FROM ledger.cancels(p_old.project_id, p_old.kind, p_old.cancels_after) AS run
      ORDER BY run.moved_position LIMIT 1
    ), (
      SELECT min(late.moved_position) - 1 FROM late
      WHERE late.token IS NULL AND late.cancel_requested_at IS NOT NULL
    )),
    ARRAY(
      SELECT run.run_id FROM ledger.parked(p_old.project_id, p_old.kind, true) AS run
      WHERE run.moved_position <= p_old.seen_position
      UNION
      SELECT late.run_id FROM late
      WHERE late.state = 'waiting_tool' AND late.token IS NULL AND late.available_at IS NULL
        AND late.cancel_requested_at IS NULL AND late.moved_position <= p_old.seen_position
    )
  INTO ends_from, cancels_after, older_parked;
END $$;

CREATE FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read,audit}');
  checked := ledger.check_given('p_runs', p_runs IS NOT NULL);
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_given('p_route', p_route IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_route], 200, true);
  INSERT INTO ledger.payload_read (project_id, read_at, run_id, credential, route)
  SELECT p_project, date_trunc('minute', clock_timestamp(), 'UTC'), asked.run, ledger.credential(),
    p_route
  FROM (SELECT DISTINCT named.run FROM unnest(p_runs) AS named (run) ORDER BY named.run) AS asked
  WHERE EXISTS (SELECT FROM ledger.run_state AS known
    WHERE known.project_id = p_project AND known.run_id = asked.run)
  ON CONFLICT DO NOTHING;
END $$;

CREATE FUNCTION ledger.note_rebuild(p_name text, p_step text, p_version integer, p_rebuild integer, p_wrong bigint, p_actor text, p_reason text) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  is_order CONSTANT boolean := p_step = 'begun';
  checked boolean;
BEGIN
  checked := ledger.check_access('*', '{read,admin}', CASE WHEN is_order THEN ARRAY[p_actor] END);
  PERFORM ledger.check_projection_name('projection', p_name);
  checked := ledger.check_given('p_step', p_step IN ('begun', 'swapped'));
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL OR NOT is_order);
  checked := ledger.check_given('p_reason', btrim(p_reason) <> '' OR NOT is_order);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(ARRAY[p_reason], 2000);
  PERFORM ledger.append_control('*', 'rebuild.' || p_step, 'projection:' || p_name,
    jsonb_strip_nulls(jsonb_build_object('version', p_version, 'rebuild_id', p_rebuild,
      'wrong', p_wrong, 'ordered_by', CASE WHEN NOT is_order THEN p_actor END))::text,
    CASE WHEN is_order THEN p_actor ELSE ledger.credential() END, p_reason);
END $$;

CREATE FUNCTION ledger.note_refusal(p_project text, p_actor text, p_run uuid, p_text text) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    AS $$
DECLARE
  sort CONSTANT text := 'decision refused';
  of_run int;
  of_credential int;
  rest text := '';
BEGIN
  SELECT count(*), count(*) FILTER (WHERE event.credential = ledger.credential())
  INTO of_run, of_credential FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id = p_run AND event.type = 'note.added'
    AND event.name = sort;
  IF of_run >= 100 OR of_credential >= 10 THEN
    RETURN;
  END IF;
  IF of_run = 99 THEN
    rest := '; no more are noted of this run';
  ELSIF of_credential = 9 THEN
    rest := '; no more are noted of this credential';
  END IF;
  PERFORM ledger.append(p_project, p_actor, ARRAY[p_run], NULL, '{note.added}',
    p_names => ARRAY[sort],
    p_bodies => ARRAY[json_build_object('text', p_text || rest)::text]);
END $$;

CREATE FUNCTION ledger.note_use(p_credential text, p_failed boolean, p_login text DEFAULT ''::text, p_try bytea DEFAULT NULL::bytea) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  moment CONSTANT timestamptz := ledger.now();
BEGIN
  UPDATE ledger.credential_use AS use SET
    last_used_at = CASE WHEN NOT p_failed THEN moment ELSE use.last_used_at END,
    failed_uses = CASE WHEN p_failed THEN least(use.failed_uses + 1, 1000000) ELSE 0 END,
    last_failed_at = CASE WHEN p_failed THEN moment ELSE use.last_failed_at END,
    try_sha256 = p_try,
    try_txid = CASE WHEN p_try IS NOT NULL THEN pg_current_xact_id() END
  FROM (
    SELECT kept.credential, kept.login FROM ledger.credential_use AS kept
    WHERE kept.credential = p_credential AND (p_failed IS NULL OR kept.login = p_login)
      AND (p_failed OR kept.failed_uses > 0
        OR NOT p_failed AND (kept.last_used_at > moment - interval '1 minute') IS NOT TRUE)
    FOR UPDATE SKIP LOCKED) AS locked
  WHERE use.credential = locked.credential AND use.login = locked.login;
END $$;

CREATE FUNCTION ledger.note_verify(p_project text, p_actor text, p_began_at timestamp with time zone, p_runs bigint, p_events bigint, p_erased bigint, p_findings bigint, p_unchecked text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{audit}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_began_at', p_began_at IS NOT NULL);
  checked := ledger.check_given('each count',
    num_nulls(p_runs, p_events, p_erased, p_findings) = 0);
  checked := ledger.check_given('p_unchecked',
    p_unchecked IS NOT NULL AND array_position(p_unchecked, NULL) IS NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_texts(p_unchecked, 2000);
  checked := ledger.check_times(ARRAY[p_began_at]);
  PERFORM ledger.append_control(p_project, 'project.verified', 'verify:' || p_project,
    jsonb_build_object('began_at', p_began_at, 'runs', p_runs,
      'events', p_events, 'erased', p_erased, 'findings', p_findings,
      'unchecked', p_unchecked)::text, p_actor, NULL);
END $$;

CREATE FUNCTION ledger.nothing_begun(p_project text, p_run uuid, p_token integer) RETURNS boolean
    LANGUAGE plpgsql
    AS $$
BEGIN
  PERFORM FROM ledger.event AS done
  WHERE done.project_id = p_project AND done.run_id = p_run AND done.version > p_token
    AND done.token = p_token AND done.type <> 'write.refused'
  ORDER BY done.version LIMIT 1;
  RETURN NOT FOUND;
END $$;

CREATE FUNCTION ledger.now() RETURNS timestamp with time zone
    LANGUAGE sql PARALLEL SAFE
    AS $$ SELECT ledger.clock() $$;

CREATE FUNCTION ledger.parked(p_project text, p_kind text, p_marked boolean) RETURNS TABLE(run_id uuid, moved_position bigint)
    LANGUAGE sql STABLE
    AS $$
  SELECT run.run_id, run.moved_position
  FROM ledger.newest_mark(p_project, p_kind) AS mark
  CROSS JOIN LATERAL unnest(mark.older_parked) AS older (run_id)
  CROSS JOIN LATERAL (
    SELECT run.* FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = older.run_id OFFSET 0
  ) AS run
  WHERE p_marked AND run.kind = p_kind AND run.state = 'waiting_tool' AND run.token IS NULL
    AND run.available_at IS NULL AND run.cancel_requested_at IS NULL
    AND run.moved_position <= mark.parked_after
  UNION ALL
  SELECT run.run_id, run.moved_position FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.kind = p_kind AND run.state = 'waiting_tool'
    AND run.token IS NULL AND run.available_at IS NULL AND run.completed_at IS NULL
    AND (run.cancel_requested_at IS NOT NULL) = false
    AND run.moved_position > coalesce((
      SELECT mark.parked_after FROM ledger.newest_mark(p_project, p_kind) AS mark
      WHERE p_marked), 0)
$$;

CREATE FUNCTION ledger.parked_runs(p_project text) RETURNS SETOF uuid
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked boolean := ledger.check_access(p_project, '{work,read}');
  kind_now text;
  kinds text[] := '{}';
  marked boolean[] := '{}';
BEGIN
  FOR kind_now IN SELECT DISTINCT known.kind FROM ledger.kind AS known
    WHERE known.project_id = p_project
  LOOP
    kinds := kinds || kind_now;
    marked := marked || ledger.marks_hold(p_project, kind_now);
  END LOOP;
  RETURN QUERY SELECT run.run_id FROM unnest(kinds, marked) AS known (kind, marked)
    CROSS JOIN LATERAL ledger.parked(p_project, known.kind, known.marked) AS run
    ORDER BY run.run_id;
END $$;

CREATE FUNCTION ledger.password_method(p_name text) RETURNS TABLE(method text, salt bytea)
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT password.method::text, password.salt
  FROM ledger.user_password AS password WHERE password.name = p_name
$$;

CREATE FUNCTION ledger.payload_hash(salt bytea, body text) RETURNS bytea
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$ SELECT sha256(E'runfold/payload/v1\\012'::bytea || salt || convert_to(body, 'UTF8')) $$;

CREATE FUNCTION ledger.person(p_name text) RETURNS text
    LANGUAGE plpgsql STABLE STRICT
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
DECLARE
  unseen CONSTANT text := concat(
    E'[\\u00AD\\u034F\\u0600-\\u0605\\u061C\\u06DD\\u070F\\u0890\\u0891\\u08E2\\u115F\\u1160',
    E'\\u17B4\\u17B5\\u180B-\\u180F\\u200B-\\u200F\\u202A-\\u202E\\u2060-\\u206F\\u2800\\u3164',
    E'\\uFE00-\\uFE0F\\uFEFF\\uFFA0\\uFFF0-\\uFFFB\\U000110BD\\U000110CD',
    E'\\U00013430-\\U0001343F\\U0001BCA0-\\U0001BCA3\\U0001D173-\\U0001D17A',
    E'\\U000E0000-\\U000E0FFF]');
  name text := normalize(regexp_replace(p_name, unseen, '', 'g'), NFKC);
  other text;
BEGIN
  name := btrim(regexp_replace(name, E'\\s+', ' ', 'g'));
  SELECT format('SELECT lower($1 COLLATE %I.%I)', 'pg_catalog', known.collname) INTO other
  FROM pg_collation AS known
  WHERE known.collname IN ('pg_c_utf8', 'C.utf8', 'und-x-icu')
    AND known.collencoding IN (-1, pg_char_to_encoding('UTF8'))
  ORDER BY known.collname DESC LIMIT 1;
  EXECUTE coalesce(other, 'SELECT lower($1)') INTO name USING name;
  RETURN normalize(replace(replace(name, E'\u00DF', 'ss'), E'\u03C2', E'\u03C3'), NFKC);
END $_$;

CREATE FUNCTION ledger.policy_rules() RETURNS TABLE(relation text, policy text, command text, role text, rule text)
    LANGUAGE sql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $_$
  SELECT rules.relation, rules.policy, rules.command, rules.role, format(CASE
    WHEN rules.policy = 'own' THEN 'credential = (SELECT ledger.credential())'
    WHEN rules.is_global THEN '(SELECT ledger.projects_with(VARIADIC %1$L::text[]) IS NULL)'
    ELSE 'project_id = ANY ((SELECT ledger.projects_seen(VARIADIC %1$L::text[]))::text[])'
  END || CASE rules.policy WHEN 'kept'
    THEN ' AND current_setting(''transaction_isolation'') = ''read committed''' ELSE '' END,
    string_to_array(rules.rights, ' ')) AS rule
  FROM (VALUES
    ('project', 'seen', 'SELECT', 'PUBLIC', '', false),
    ('event', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('run_state', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('run_tag', 'seen', 'SELECT', 'PUBLIC', 'read work audit', false),
    ('payload', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('kind', 'seen', 'SELECT', 'PUBLIC', 'read work submit audit', false),
    ('low_water', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('kind_state', 'seen', 'SELECT', 'PUBLIC', 'read work submit audit', false),
    ('kind_event', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('command', 'seen', 'SELECT', 'PUBLIC', 'read work submit decide audit', false),
    ('schedule', 'seen', 'SELECT', 'PUBLIC', 'read schedule audit', false),
    ('saved_view', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('view_event', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('snooze', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('role_event', 'seen', 'SELECT', 'PUBLIC', 'read work decide audit admin', false),
    ('access_grant', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('access_grant', 'own', 'SELECT', 'PUBLIC', '', false),
    ('api_token', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('credential_use', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('user_account', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('payload_read', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('web_session', 'seen', 'SELECT', 'PUBLIC', 'audit admin', true),
    ('webhook', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('delivery', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('delivery_attempt', 'seen', 'SELECT', 'PUBLIC', 'audit admin', false),
    ('control_event', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('control_head', 'seen', 'SELECT', 'PUBLIC', 'audit', false),
    ('archive_event', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('projection', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('projection_skip', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection_skip', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('projection_aside', 'seen', 'SELECT', 'PUBLIC', 'read audit', false),
    ('projection_aside', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('rebuild', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('rebuild', 'kept', 'ALL', 'runfold_projector', 'read', true),
    ('rebuild_range', 'seen', 'SELECT', 'PUBLIC', 'read audit', true),
    ('rebuild_range', 'kept', 'ALL', 'runfold_projector', 'read', true)
  ) AS rules (relation, policy, command, role, rights, is_global)
$_$;

CREATE FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) RETURNS text[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  found text[];
  own CONSTANT text := current_setting('runfold.project', true);
BEGIN
  IF NOT ledger.is_owner() THEN
    SELECT coalesce(array_agg(granted.project_id), '{}') INTO found
    FROM ledger.access_grant AS granted
    WHERE granted.credential = ledger.credential()
      AND (p_rights = '{}' OR p_rights && granted.rights)
      AND (granted.until IS NULL OR granted.until > ledger.now());
  END IF;
  IF found IS NULL OR '*' = ANY (found) THEN
    found := ARRAY(SELECT project.project_id::text FROM ledger.project) || ARRAY['*'];
  END IF;
  IF cardinality(found) > 1 AND own = ANY (found) THEN
    RETURN ARRAY[own] || found;
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION ledger.projects_with(VARIADIC p_rights text[] DEFAULT '{}'::text[]) RETURNS text[]
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  found text[];
BEGIN
  IF ledger.is_owner() THEN
    RETURN NULL;
  END IF;
  SELECT coalesce(array_agg(granted.project_id), '{}') INTO found
  FROM ledger.access_grant AS granted
  WHERE granted.credential = ledger.credential() AND (p_rights = '{}' OR p_rights && granted.rights)
    AND (granted.until IS NULL OR granted.until > ledger.now());
  RETURN CASE WHEN '*' <> ALL (found) THEN found END;
END $$;

CREATE FUNCTION ledger.publish_projection(p_name text, p_version integer, p_columns text[], p_derived text[], p_expressions text[]) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  columns text;
  derived text;
BEGIN
  PERFORM ledger.check_access('*', '{read,admin}');
  PERFORM ledger.check_projection_name('projection', p_name);
  SELECT string_agg(
      quote_ident(ledger.check_projection_name('column', kept.name)), ', ' ORDER BY kept.place)
    INTO columns FROM unnest(p_columns) WITH ORDINALITY AS kept (name, place);
  SELECT string_agg(format('(%s) AS %I', ledger.check_derived(added.expression, p_columns),
      ledger.check_projection_name('derived column', added.name)), ', ' ORDER BY added.place)
    INTO derived
    FROM unnest(p_derived, p_expressions) WITH ORDINALITY AS added (name, expression, place);
  BEGIN
    EXECUTE format('CREATE OR REPLACE VIEW projection.%I WITH (security_invoker = true) AS '
      'SELECT %s FROM projection.%I',
      p_name, concat_ws(', ', columns, derived), format('%s_v%s', p_name, p_version));
  EXCEPTION WHEN syntax_error_or_access_rule_violation THEN
    RAISE EXCEPTION 'projection % with the derived columns %: %', quote_literal(p_name),
      coalesce(derived, 'none'), SQLERRM USING ERRCODE = SQLSTATE;
  END;
  EXECUTE format('GRANT SELECT ON projection.%I '
    'TO runfold_reader, runfold_worker, runfold_projector', p_name);
END $$;

CREATE FUNCTION ledger.put_schedule(p_project text, p_actor text, p_name text, p_kind text, p_input text, p_cron text, p_timezone text, p_next_at timestamp with time zone, p_release timestamp with time zone DEFAULT NULL::timestamp with time zone, p_ahead boolean DEFAULT false) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{schedule}', ARRAY[p_actor]);
  checked := ledger.check_project(p_project);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_given('p_kind', p_kind IS NOT NULL);
  checked := ledger.check_given('p_cron', p_cron IS NOT NULL);
  checked := ledger.check_given('p_timezone', p_timezone IS NOT NULL);
  checked := ledger.check_given('p_next_at', p_next_at IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor, p_name, p_kind, p_cron, p_timezone], 200, true);
  checked := ledger.check_content(ARRAY[p_input]);
  checked := ledger.check_times(ARRAY[p_next_at, p_release]);
  -- A kind that a handler declares is not misspelled.
  checked := ledger.check_kind(p_project, p_kind, p_ahead OR p_release IS NOT NULL);
  PERFORM ledger.lock_row('ledger.schedule', 'name', p_project, p_name);
  IF NOT EXISTS (SELECT FROM ledger.schedule
    WHERE schedule.project_id = p_project AND schedule.name = p_name) THEN
    PERFORM ledger.lock_control(p_project); -- against another call that makes it
  END IF;
  INSERT INTO ledger.schedule AS known
    (project_id, name, kind, input, cron, timezone, next_at, actor, release)
  -- A change by hand counts as of its moment.
  VALUES (p_project, p_name, p_kind, p_input, p_cron, p_timezone, p_next_at, p_actor,
    least(p_release, CASE WHEN p_release IS NOT NULL THEN clock_timestamp() END))
  ON CONFLICT (project_id, name) DO UPDATE SET
    kind = excluded.kind, input = excluded.input, cron = excluded.cron,
    timezone = excluded.timezone, actor = excluded.actor, release = excluded.release,
    reason = NULL, -- the reason of an earlier change
    updated_at = clock_timestamp(),
    next_at = CASE WHEN (known.cron, known.timezone) = (excluded.cron, excluded.timezone)
      THEN known.next_at ELSE excluded.next_at END
  WHERE p_release IS NULL OR (known.kind = excluded.kind
    AND coalesce(known.release, known.updated_at) <= excluded.release);
END $$;

CREATE FUNCTION ledger.queue_deliveries(p_project text, p_webhook text, p_before text, p_checkpoint text, p_runs uuid[], p_versions integer[], p_types text[], p_bodies text[]) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}');
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_given('p_checkpoint', p_checkpoint IS NOT NULL);
  checked := ledger.check_given('p_runs', num_nulls(VARIADIC p_runs) = 0);
  checked := ledger.check_given('p_versions',
    num_nonnulls(VARIADIC p_versions) = cardinality(p_runs));
  checked := ledger.check_given('p_types', num_nonnulls(VARIADIC p_types) = cardinality(p_runs));
  checked := ledger.check_given('p_bodies', num_nonnulls(VARIADIC p_bodies) = cardinality(p_runs));
  checked := ledger.check_texts(p_types, 80);
  checked := ledger.check_checkpoint(p_checkpoint);
  IF EXISTS (SELECT FROM unnest(p_bodies) AS noted (body) WHERE length(noted.body) > 10000) THEN
    RAISE EXCEPTION 'the body of a delivery has at most 10,000 characters' USING ERRCODE = '22023';
  END IF;
  UPDATE ledger.webhook SET checkpoint = p_checkpoint
  WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook
    AND webhook.checkpoint = p_before AND NOT webhook.is_paused;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  -- Whoever ends the newest open delivery of a run waits for this call, and sees what it notes.
  PERFORM FROM (SELECT DISTINCT unnest(p_runs) AS run_id ORDER BY run_id) AS noted
  CROSS JOIN LATERAL (
    SELECT FROM ledger.delivery AS newest
    WHERE newest.webhook_id = p_webhook AND newest.run_id = noted.run_id
      AND newest.next_at IS NOT NULL
    ORDER BY newest.version DESC LIMIT 1 FOR NO KEY UPDATE
  ) AS newest;
  INSERT INTO ledger.delivery
    (project_id, webhook_id, run_id, version, type, body, created_at, next_at, follows)
  SELECT p_project, p_webhook, noted.run_id, noted.version, noted.type, noted.body, ledger.now(),
    ledger.now(), EXISTS (
      SELECT FROM ledger.delivery AS earlier
      WHERE earlier.webhook_id = p_webhook AND earlier.run_id = noted.run_id
        AND earlier.version < noted.version AND earlier.next_at IS NOT NULL)
      OR rank() OVER (PARTITION BY noted.run_id ORDER BY noted.version) > 1
  FROM unnest(p_runs, p_versions, p_types, p_bodies) AS noted (run_id, version, type, body)
  WHERE NOT EXISTS (
    SELECT FROM ledger.delivery AS known
    WHERE known.webhook_id = p_webhook AND known.run_id = noted.run_id
      AND known.version = noted.version)
  ON CONFLICT DO NOTHING;
  RETURN true;
END $$;

CREATE VIEW ledger.run WITH (security_invoker='true') AS
 SELECT run.project_id,
    run.run_id,
    run.version,
    run.hash,
    run.kind,
    run.state,
    run.priority,
    run.attempt_count,
    run.max_attempts,
    run.worker_id,
    run.token,
    run.lease_credential,
    run.moved_position,
    run.lease_until,
    run.heartbeat_at,
    run.available_at,
    run.started_at,
    run.completed_at,
    run.created_at,
    run.updated_at,
    run.deadline,
    run.wait_until,
    run.wait_outcome,
    run.approvals,
    run.approved,
    run.cancel_requested_at,
    run.cost_usd,
    run.step_count,
    run.error_code,
    run.outcome_version,
    run.output_sha256,
    run.tags,
    run.key,
        CASE
            WHEN ((octet_length((first.body)::text) < 10000) AND (strpos((first.body)::text, '\u'::text) = 0)) THEN ((first.body -> 'input'::text))::text
            ELSE ledger.content_part(first.body, 'input'::text)
        END AS input,
        CASE
            WHEN ((octet_length((outcome.body)::text) < 10000) AND (strpos((outcome.body)::text, '\u'::text) = 0)) THEN ((outcome.body -> 'output'::text))::text
            ELSE ledger.content_part(outcome.body, 'output'::text)
        END AS output,
        CASE
            WHEN ((octet_length((outcome.body)::text) < 10000) AND (strpos((outcome.body)::text, '\u'::text) = 0)) THEN ((outcome.body -> 'error_detail'::text))::text
            ELSE ledger.content_part(outcome.body, 'error_detail'::text)
        END AS error_detail
   FROM ((ledger.run_state run
     LEFT JOIN ledger.payload first ON (((first.project_id = run.project_id) AND (first.run_id = run.run_id) AND (first.version = 1))))
     LEFT JOIN ledger.payload outcome ON (((outcome.project_id = run.project_id) AND (outcome.run_id = run.run_id) AND (outcome.version = run.outcome_version))));

CREATE FUNCTION ledger.read_run(p_project text, p_run uuid) RETURNS SETOF ledger.run
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    AS $$
BEGIN
  IF ledger.has_right(p_project, '{read}') THEN
    RETURN QUERY SELECT seen.* FROM ledger.run AS seen
    WHERE seen.project_id = p_project AND seen.run_id = p_run;
  ELSIF ledger.check_access(p_project, '{submit,work,decide}') THEN
    RETURN QUERY SELECT run.*, NULL::text, NULL::text, NULL::text FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = p_run;
  END IF;
  IF NOT FOUND THEN -- the owner may read projects that do not exist
    PERFORM ledger.check_access(p_project, '{read,submit,work,decide}');
  END IF;
END $$;

CREATE FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean DEFAULT NULL::boolean) RETURNS SETOF ledger.run
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked CONSTANT boolean := ledger.check_count(cardinality(p_runs));
BEGIN
  IF p_content IS NOT FALSE AND ledger.has_right(p_project, '{read,audit}') THEN
    RETURN QUERY SELECT seen.* FROM unnest(p_runs) AS asked (run_id) CROSS JOIN LATERAL (
      SELECT known.* FROM ledger.run AS known
      WHERE known.project_id = p_project AND known.run_id = asked.run_id
      OFFSET 0) AS seen;
  ELSIF ledger.has_right(p_project, '{read,audit,work}') THEN
    RETURN QUERY SELECT seen.*, NULL::text, NULL::text, NULL::text
    FROM unnest(p_runs) AS asked (run_id) CROSS JOIN LATERAL (
      SELECT known.* FROM ledger.run_state AS known
      WHERE known.project_id = p_project AND known.run_id = asked.run_id
      OFFSET 0) AS seen;
  END IF;
END $$;

CREATE FUNCTION ledger.reap(p_project text, p_actor text, p_limit integer, p_leases boolean DEFAULT true) RETURNS TABLE(run_id uuid, version integer, type text, from_state text, to_state text, attempt_count integer, max_attempts integer, worker_id text, error_code text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET enable_bitmapscan TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  -- a variable, because an index is not searched for a volatile function
  moment timestamptz;
  seed bytea := ledger.salt_seed();
  checked boolean;
  most_unbegun CONSTANT int := 3;
  most_together CONSTANT int := 10;
  kinds text[];
  marked boolean[] := '{}';
  ends_from timestamptz[] := '{}';
  cancels_after bigint[] := '{}';
  low record;
  kind_now text;
BEGIN
  checked := ledger.check_access(p_project, '{work}',
    CASE WHEN p_actor <> 'reaper' THEN ARRAY[p_actor] END); -- the reaper is the ledger's own actor
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  IF p_limit IS NULL OR p_limit NOT BETWEEN 1 AND 10000 THEN
    RAISE EXCEPTION 'a sweep takes 1 to 10000 runs' USING ERRCODE = '22023';
  END IF;
  moment := ledger.keep_time(); -- no deadline waits for a clock that was set back
  kinds := ARRAY(SELECT DISTINCT known.kind FROM ledger.kind AS known
    WHERE known.project_id = p_project ORDER BY known.kind);
  PERFORM ledger.move_low_water(p_project, kinds, '1 second');
  FOREACH kind_now IN ARRAY kinds LOOP
    marked := marked || ledger.marks_hold(p_project, kind_now);
    SELECT ends.* INTO low FROM ledger.sweep_start(p_project, kind_now) AS ends;
    ends_from := ends_from || low.ends_from;
    cancels_after := cancels_after || low.cancels_after;
  END LOOP;
  RETURN QUERY
  -- The order is that of run_due, and sorting is off: no plan can walk all of a kind instead.
  -- Events are read by functions: ledger.nothing_begun says why.
  WITH due AS MATERIALIZED ( -- the runs that may be due, by three indexes
    (SELECT lease.run_id FROM unnest(kinds, marked) AS known (kind, marked)
      CROSS JOIN LATERAL ledger.leases(p_project, known.kind, known.marked) AS lease
      WHERE p_leases AND lease.lease_until <= moment
      LIMIT p_limit)
    UNION
    (SELECT run.run_id FROM unnest(kinds, ends_from) AS known (kind, ends_from)
      CROSS JOIN LATERAL (
        SELECT run.run_id FROM ledger.run_state AS run
        WHERE run.project_id = p_project AND run.kind = known.kind AND run.completed_at IS NULL
          AND num_nonnulls(run.deadline, run.wait_until) > 0
          AND least(run.deadline, run.wait_until) >= known.ends_from
          AND least(run.deadline, run.wait_until) <= moment
        ORDER BY least(run.deadline, run.wait_until) LIMIT p_limit
      ) AS run
      LIMIT p_limit)
    UNION
    (SELECT run.run_id FROM unnest(kinds, cancels_after) AS known (kind, cancels_after)
      CROSS JOIN LATERAL ledger.cancels(p_project, known.kind, known.cancels_after) AS run
      LIMIT p_limit)
  ), first AS MATERIALIZED ( -- in the order of the locks
    SELECT due.run_id FROM due ORDER BY due.run_id LIMIT p_limit
  ), locked AS MATERIALIZED ( -- as it is now, unless another reaper has it
    SELECT run.*, run.deadline <= run.now AS overdue,
      run.lease_until <= run.now AS past_end
    FROM first
    CROSS JOIN LATERAL (
      SELECT run.*, greatest(ledger.now(), run.updated_at) AS now FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = first.run_id AND run.completed_at IS NULL
      FOR UPDATE SKIP LOCKED
    ) AS run
  ), workers AS MATERIALIZED ( -- of each worker with a lapsed lease, all its leases
    SELECT lease.worker_id, count(*) AS held, max(lease.heartbeat_at) AS heard_at,
      max(lease.lease_until) FILTER (WHERE lease.attempt_count >= lease.max_attempts) AS last_until
    FROM unnest(kinds, marked) AS known (kind, marked)
    CROSS JOIN LATERAL ledger.leases(p_project, known.kind, known.marked) AS lease
    WHERE lease.worker_id = ANY (
        ARRAY(SELECT locked.worker_id FROM locked WHERE locked.past_end))
      AND EXISTS (SELECT FROM locked WHERE locked.past_end)
    GROUP BY lease.worker_id
  ), weighed AS MATERIALIZED ( -- each run with what its worker held and did
    SELECT locked.*,
      locked.past_end AND (worker.is_alive OR coalesce(worker.last_until, locked.lease_until)
        <= locked.now) AS lapsed,
      locked.past_end AND NOT worker.is_alive AND worker.held > 1 AS together,
      CASE WHEN locked.past_end
        THEN ledger.nothing_begun(p_project, locked.run_id, locked.token) END AS unbegun
    FROM locked
    LEFT JOIN LATERAL (
      SELECT workers.held, workers.last_until, workers.heard_at > locked.lease_until AS is_alive
      FROM workers WHERE workers.worker_id = locked.worker_id OFFSET 0
    ) AS worker ON true
  ), forgiven AS MATERIALIZED ( -- whether the attempt is charged
    SELECT weighed.*, weighed.lapsed AND coalesce(CASE
      WHEN weighed.unbegun THEN ledger.uncharged_leases(p_project, weighed.run_id) < most_unbegun
      WHEN weighed.together AND weighed.attempt_count >= weighed.max_attempts
        AND weighed.max_attempts > 1
        THEN ledger.uncharged_leases(p_project, weighed.run_id) < most_together
      END, false) AS is_forgiven
    FROM weighed
  ), judged AS MATERIALIZED ( -- what becomes of each
    SELECT run.*,
      CASE
        WHEN run.overdue THEN
          CASE run.state WHEN 'pending' THEN 'run.cancelled' WHEN 'waiting_tool'
            THEN 'run.failed' ELSE 'run.timed_out' END
        WHEN run.wait_until <= run.now AND run.state = 'waiting_tool' THEN 'tool.failed'
        WHEN run.wait_until <= run.now AND run.wait_outcome = 'lapsed' THEN 'approval.lapsed'
        WHEN run.wait_until <= run.now THEN 'approval.expired'
        WHEN run.cancel_requested_at IS NOT NULL AND (run.token IS NULL OR run.lapsed)
          THEN 'run.cancelled'
        WHEN run.lapsed AND (run.is_forgiven
          OR run.attempt_count < run.max_attempts) THEN 'lease.expired'
        WHEN run.lapsed AND run.state = 'waiting_approval' THEN 'run.timed_out'
        WHEN run.lapsed THEN 'run.failed'
      END AS type,
      CASE
        WHEN run.overdue OR run.wait_until <= run.now THEN 'E-RUN-003'
        WHEN run.cancel_requested_at IS NOT NULL THEN NULL
        WHEN run.is_forgiven OR run.attempt_count < run.max_attempts THEN 'E-RUN-001'
        ELSE 'E-RUN-002'
      END AS code
    FROM forgiven AS run
  ), next AS MATERIALIZED ( -- the event of each
    SELECT judged.*, judged.version + 1 AS new_version,
      CASE judged.type WHEN 'lease.expired' THEN 'pending' WHEN 'approval.expired'
        THEN CASE judged.wait_outcome WHEN 'timeout' THEN 'timeout' ELSE 'cancelled' END
        WHEN 'tool.failed' THEN NULL
        WHEN 'approval.lapsed' THEN CASE WHEN judged.token IS NOT NULL THEN 'running' END
        WHEN 'run.cancelled' THEN 'cancelled' WHEN 'run.failed' THEN 'failed'
          ELSE 'timeout' END AS new_state,
      judged.type = 'approval.lapsed' AND judged.token IS NOT NULL AS keeps,
      CASE WHEN judged.type IN ('lease.expired', 'tool.failed')
          OR judged.type = 'approval.lapsed' AND judged.token IS NULL
        THEN judged.now END AS new_available_at,
      CASE WHEN judged.type = 'lease.expired' AND judged.is_forgiven
        THEN greatest(judged.attempt_count - 1, 0) END AS new_attempt,
      json_build_object('error_detail', CASE
        WHEN judged.overdue THEN format('the deadline %s UTC has passed',
          judged.deadline AT TIME ZONE 'UTC')
        WHEN judged.type = 'tool.failed' THEN format('nobody answered until %s UTC',
          judged.wait_until AT TIME ZONE 'UTC')
        WHEN judged.type IN ('approval.expired', 'approval.lapsed')
          THEN format('nobody decided until %s UTC', judged.wait_until AT TIME ZONE 'UTC')
        WHEN judged.lapsed THEN format('%s held the lease until %s UTC and sent no heartbeat',
          judged.worker_id,
          judged.lease_until AT TIME ZONE 'UTC') || CASE
            WHEN NOT judged.is_forgiven THEN ''
            WHEN judged.unbegun
              THEN '; nothing was begun under it, so no attempt is charged'
            ELSE '; other runs were lost with it, so no attempt is charged' END
        ELSE 'cancelled as requested' END)::text AS body,
      sha256(seed || uuid_send(judged.run_id)) AS salt
    FROM judged WHERE judged.type IS NOT NULL
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state,
      worker_id, token, lease_until, attempt, available_at, error_code, compensates, payload_hash,
      credential, hash)
    SELECT p_project, hashed.run_id, hashed.new_version, hashed.now, hashed.type, p_actor,
      hashed.new_state, hashed.kept_worker, hashed.kept_token, hashed.kept_until,
      hashed.new_attempt, hashed.new_available_at, hashed.code, hashed.closed_token,
      hashed.payload_hash, writer,
      ledger.event_hash(hashed.hash, p_project, hashed.run_id, hashed.new_version, hashed.now,
        hashed.type, p_actor, state => hashed.new_state, worker_id => hashed.kept_worker,
        token => hashed.kept_token, lease_until => hashed.kept_until,
        attempt => hashed.new_attempt, available_at => hashed.new_available_at,
        error_code => hashed.code, compensates => hashed.closed_token,
        payload_hash => hashed.payload_hash, credential => writer)
    FROM (SELECT next.*, ledger.payload_hash(next.salt, next.body) AS payload_hash,
        CASE WHEN next.keeps THEN next.worker_id END AS kept_worker,
        CASE WHEN next.keeps THEN next.token END AS kept_token,
        CASE WHEN next.keeps THEN next.lease_until END AS kept_until,
        CASE WHEN NOT next.keeps THEN next.token END AS closed_token
      FROM next) AS hashed
  )
  SELECT next.run_id, next.new_version, next.type, next.state, next.new_state,
    coalesce(next.new_attempt, next.attempt_count), next.max_attempts, next.worker_id, next.code
  FROM next;
END $$;

CREATE FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer DEFAULT NULL::integer, p_time timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS SETOF ledger.run_state
    LANGUAGE sql STABLE PARALLEL SAFE
    AS $$
  SELECT event.project_id, event.run_id,
    max(event.version) AS version,
    (array_agg(event.hash ORDER BY event.version DESC) FILTER (WHERE event.hash IS NOT NULL))[1] AS
      hash,
    max(event.kind) FILTER (WHERE event.type = 'run.submitted') AS kind,
    (array_agg(event.state ORDER BY event.version DESC) FILTER (WHERE event.state IS NOT NULL))[1]
      AS state,
    max(event.priority) FILTER (WHERE event.type = 'run.submitted') AS priority,
    coalesce((array_agg(event.attempt ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.expired', 'lease.released') AND event.attempt IS NOT NULL))[1], 0)
      AS attempt_count,
    max(event.max_attempts) FILTER (WHERE event.type = 'run.submitted') AS max_attempts,
    (array_agg(event.worker_id ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS worker_id,
    (array_agg(event.token ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS token,
    (array_agg(event.credential ORDER BY event.version DESC) FILTER (WHERE event.type =
      'lease.acquired' AND event.credential IS NOT NULL))[1] AS lease_credential,
    (array_agg(event.position ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested') AND event.position
      IS NOT NULL))[1] AS moved_position,
    (array_agg(event.lease_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.heartbeat', 'lease.released', 'run.cancelled', 'run.completed', 'run.failed',
      'run.retried', 'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1]
      AS lease_until,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('lease.acquired', 'lease.heartbeat') AND event.recorded_at IS NOT NULL))[1] AS heartbeat_at,
    (array_agg(event.available_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.submitted', 'run.timed_out', 'tool.completed', 'tool.failed',
      'tool.requested')))[1] AS available_at,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'lease.acquired' AND event.recorded_at IS NOT NULL))[1] AS started_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out') AND event.recorded_at IS NOT NULL))[1] AS completed_at,
    max(event.recorded_at) FILTER (WHERE event.type = 'run.submitted') AS created_at,
    (array_agg(event.recorded_at ORDER BY event.version DESC) FILTER (WHERE event.recorded_at IS NOT
      NULL))[1] AS updated_at,
    max(event.deadline) FILTER (WHERE event.type = 'run.submitted') AS deadline,
    (array_agg(event.wait_until ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS wait_until,
    (array_agg(event.wait_outcome ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS
      wait_outcome,
    (array_agg(event.approvals ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approvals,
    (array_agg(event.approved ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.granted', 'approval.lapsed', 'approval.rejected',
      'approval.requested', 'approval.signed', 'lease.acquired', 'lease.expired',
      'lease.released', 'run.cancelled', 'run.completed', 'run.failed', 'run.retried',
      'run.timed_out', 'tool.completed', 'tool.failed', 'tool.requested')))[1] AS approved,
    (array_agg(event.recorded_at ORDER BY event.version ASC) FILTER (WHERE event.type =
      'cancel.requested' AND event.recorded_at IS NOT NULL))[1] AS cancel_requested_at,
    coalesce(sum(event.cost_usd), 0) AS cost_usd,
    (coalesce(sum(event.step_count), 0))::int AS step_count,
    (array_agg(event.error_code ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out')))[1] AS error_code,
    (array_agg(event.version ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'lease.expired', 'run.cancelled', 'run.completed',
      'run.failed', 'run.retried', 'run.timed_out') AND event.version IS NOT NULL))[1] AS
      outcome_version,
    (array_agg(event.output_sha256 ORDER BY event.version DESC) FILTER (WHERE event.type IN
      ('approval.expired', 'approval.rejected', 'run.cancelled', 'run.completed', 'run.failed',
      'run.timed_out')))[1] AS output_sha256,
    max(event.tags) FILTER (WHERE event.type = 'run.submitted') AS tags,
    max(event.key) FILTER (WHERE event.type = 'run.submitted') AS key
  FROM ledger.event AS event
  WHERE event.project_id = p_project AND event.run_id BETWEEN p_from AND p_to
    AND (p_version IS NULL OR event.version <= p_version)
    AND (p_time IS NULL OR event.recorded_at <= p_time)
  GROUP BY event.project_id, event.run_id
$$;

CREATE FUNCTION ledger.record_attempt(p_project text, p_webhook text, p_run uuid, p_version integer, p_attempt integer, p_duration_ms integer, p_status integer, p_error text, p_again interval) RETURNS void
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{read}');
  IF p_again NOT BETWEEN '0' AND '30 days' OR (p_duration_ms >= 0) IS NOT TRUE THEN
    RAISE EXCEPTION 'an attempt lasted 0 ms or more, and the next is within 30 days'
      USING ERRCODE = '22023';
  END IF;
  IF p_status = 410 THEN -- before its delivery, as ledger.queue_deliveries locks them
    PERFORM FROM ledger.webhook
    WHERE webhook.project_id = p_project AND webhook.webhook_id = p_webhook FOR NO KEY UPDATE;
  END IF;
  UPDATE ledger.delivery SET attempts = p_attempt, next_at = ledger.now() + p_again,
    delivered_at = CASE WHEN p_error IS NULL THEN ledger.now() ELSE delivery.delivered_at END
  WHERE delivery.project_id = p_project AND delivery.webhook_id = p_webhook
    AND delivery.run_id = p_run AND delivery.version = p_version
    AND delivery.attempts + 1 = p_attempt;
  IF FOUND THEN
    INSERT INTO ledger.delivery_attempt (project_id, webhook_id, run_id, version, attempt,
      attempted_at, duration_ms, status, error)
    VALUES (p_project, p_webhook, p_run, p_version, p_attempt, ledger.now(), p_duration_ms,
      p_status, left(p_error, 500));
    IF p_again IS NULL THEN
      UPDATE ledger.delivery SET follows = false
      WHERE delivery.webhook_id = p_webhook AND delivery.run_id = p_run AND delivery.follows
        AND delivery.version = (
          SELECT waiting.version FROM ledger.delivery AS waiting
          WHERE waiting.webhook_id = p_webhook AND waiting.run_id = p_run
            AND waiting.next_at IS NOT NULL
          ORDER BY waiting.version LIMIT 1);
    END IF;
    IF p_status = 410 THEN -- the endpoint is gone, and says so
      UPDATE ledger.webhook SET is_paused = true, actor = ledger.credential(),
        reason = 'the endpoint answered 410'
      WHERE webhook.webhook_id = p_webhook AND NOT webhook.is_paused;
    END IF;
  END IF;
END $$;

CREATE FUNCTION ledger.record_control() RETURNS trigger
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET "TimeZone" TO 'UTC'
    SET bytea_output TO 'hex'
    AS $$
DECLARE
  noun CONSTANT text := TG_ARGV[0];
  moving CONSTANT text[] := string_to_array(TG_ARGV[2], ' ');
  before CONSTANT jsonb := CASE WHEN TG_OP <> 'INSERT' THEN to_jsonb(OLD) - moving END;
  after CONSTANT jsonb := CASE WHEN TG_OP <> 'DELETE' THEN to_jsonb(NEW) - moving END;
  known CONSTANT jsonb := coalesce(after, before);
BEGIN
  IF before IS DISTINCT FROM after THEN
    PERFORM ledger.append_control(
      coalesce(known ->> 'project_id', '*'),
      coalesce(known ->> 'type', noun || CASE
        WHEN after IS NULL OR known -> 'rights' = '[]' THEN '.removed'
        WHEN before IS NULL THEN '.added' ELSE '.changed' END),
      ledger.control_subject(noun, TG_ARGV[1], known),
      after::text,
      coalesce(known ->> 'actor', session_user),
      known ->> 'reason');
  END IF;
  RETURN NULL;
END $$;

CREATE FUNCTION ledger.record_keys(p_project text, p_runs uuid[], p_keys text[], p_contents text[], p_seed bytea) RETURNS void
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_due_keys(p_project, p_keys);
  INSERT INTO ledger.command (project_id, key, salt, content_hash, run_id, version, hash)
  SELECT p_project, given.key, given.salt, ledger.payload_hash(given.salt, given.content),
    given.run_id, run.version, run.hash
  FROM (
    SELECT asked.*, sha256(p_seed || convert_to(asked.key, 'UTF8')) AS salt
    FROM unnest(p_runs, p_keys, p_contents) AS asked (run_id, key, content) OFFSET 0
  ) AS given
  CROSS JOIN LATERAL (
    SELECT run.version, run.hash FROM ledger.run_state AS run
    WHERE run.project_id = p_project AND run.run_id = given.run_id OFFSET 0
  ) AS run
  CROSS JOIN LATERAL (
    SELECT FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = given.run_id
      AND event.version = run.version AND event.key = given.key OFFSET 0
  ) AS kept
  WHERE NOT EXISTS (
    SELECT FROM ledger.command AS used
    WHERE used.project_id = p_project AND used.key = given.key AND used.run_id = given.run_id
    OFFSET 0)
  ORDER BY given.key;
END $$;

CREATE FUNCTION ledger.refuse(p_project text, p_actor text, p_name text, p_runs uuid[], p_tokens integer[], p_workers text[] DEFAULT NULL::text[]) RETURNS TABLE(run_id uuid, given_token integer, refused boolean, state text, version integer, token integer, worker_id text, lease_until timestamp with time zone, available_at timestamp with time zone, attempt_count integer, max_attempts integer, cost_usd numeric, step_count integer)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET enable_sort TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit,decide}' END::text[], ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL
    OR coalesce(num_nonnulls(VARIADIC p_tokens), 0) = 0); -- then nothing is refused
  checked := ledger.check_texts(ARRAY[p_actor, p_name]);
  PERFORM ledger.lock_runs(p_project, p_runs);
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each run once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.* FROM unnest(p_runs, p_tokens, p_workers)
      AS given (run_id, token, worker) ORDER BY given.run_id
  ), seen AS MATERIALIZED ( -- each run as it is now, and whether the token given is not its own
    SELECT asked.token AS given_token, asked.token IS NOT NULL
      AND (asked.token IS DISTINCT FROM run.token OR asked.worker <> run.worker_id
        OR run.lease_credential <> writer) AS refused,
      run.*
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.* FROM ledger.run_state AS run WHERE run.project_id = p_project
        AND run.run_id = asked.run_id FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the refusals that were not recorded before
    SELECT seen.*, seen.version + 1 AS new_version,
      greatest(ledger.now(), seen.updated_at) AS recorded_at
    FROM seen
    WHERE seen.refused
      -- A run whose month is archived has a finished history: there is no table left to add to.
      AND NOT EXISTS (SELECT FROM ledger.archive AS archive
        WHERE archive.detached AND seen.run_id >= archive.first AND seen.run_id < archive.beyond
        OFFSET 0)
      AND EXISTS (
        SELECT FROM (
          SELECT lease.type FROM ledger.event AS lease
          WHERE lease.project_id = p_project AND lease.run_id = seen.run_id
            AND lease.version = seen.given_token OFFSET 0
        ) AS lease
        WHERE lease.type = 'lease.acquired')
  ), bounded AS MATERIALIZED ( -- those for which there is room; the last says that more may follow
    SELECT next.*, CASE WHEN of_token.count = 9 OR of_run.count = 99 OR of_run.own = 79
      THEN 'and more' ELSE p_name END AS name
    FROM next
    -- In the order of event_refused, and sorting is off: no plan walks the run's history.
    CROSS JOIN LATERAL (
      SELECT count(*), bool_or(recorded.name = p_name) AS has FROM (
        SELECT appended.name FROM ledger.event AS appended
        WHERE appended.project_id = p_project AND appended.run_id = next.run_id
          AND appended.type = 'write.refused' AND appended.token = next.given_token
          AND appended.credential = writer
        ORDER BY appended.name OFFSET 0
      ) AS recorded
    ) AS of_token
    CROSS JOIN LATERAL (
      SELECT count(*), count(*) FILTER (WHERE recorded.credential = writer) AS own FROM (
        SELECT appended.credential FROM ledger.event AS appended
        WHERE appended.project_id = p_project AND appended.run_id = next.run_id
          AND appended.type = 'write.refused'
        ORDER BY appended.token, appended.name LIMIT 100
      ) AS recorded
    ) AS of_run
    WHERE of_token.count < 10 AND of_token.has IS NOT TRUE
      AND of_run.count < 100 AND of_run.own < 80
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, name,
      worker_id, token, credential, hash)
    SELECT p_project, bounded.run_id, bounded.new_version, bounded.recorded_at, 'write.refused',
      p_actor, bounded.name, p_actor, bounded.given_token, writer,
      ledger.event_hash(bounded.hash, p_project, bounded.run_id, bounded.new_version,
        bounded.recorded_at, 'write.refused', p_actor, name => bounded.name,
        worker_id => p_actor, token => bounded.given_token, credential => writer)
    FROM bounded
  )
  SELECT seen.run_id, seen.given_token, seen.refused, seen.state, seen.version, seen.token,
    seen.worker_id, seen.lease_until, seen.available_at, seen.attempt_count, seen.max_attempts,
    seen.cost_usd, seen.step_count
  FROM seen;
END $$;

CREATE FUNCTION ledger.refuse_change() RETURNS trigger
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'payload' THEN
    IF EXISTS (SELECT FROM ledger.archive AS archive WHERE archive.detached
      AND OLD.run_id >= archive.first AND OLD.run_id < archive.beyond) THEN
      RETURN OLD;
    END IF;
  END IF;
  IF TG_OP = 'DELETE' AND TG_TABLE_NAME = 'payload_read' THEN
    IF OLD.read_at < clock_timestamp() - interval '184 days' THEN
      RETURN OLD;
    END IF;
  END IF;
  RAISE EXCEPTION '% on % is not allowed: the ledger is append-only', TG_OP, TG_TABLE_NAME
    USING ERRCODE = 'RF403', HINT = 'Append a compensating event instead.';
END $$;

CREATE FUNCTION ledger.refuse_version(p_type text, p_version integer) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  RAISE EXCEPTION 'event type % schema version % is not known to this projection', p_type, p_version
    USING ERRCODE = 'RF405',
      HINT = 'Name the schema version in the fields of the projection, or read the content in '
        'a function.';
END $$;

CREATE FUNCTION ledger.requeue(p_project text, p_type text, p_runs uuid[], p_tokens integer[], p_delays interval[] DEFAULT NULL::interval[], p_error_codes text[] DEFAULT NULL::text[], p_bodies text[] DEFAULT NULL::text[], p_workers text[] DEFAULT NULL::text[]) RETURNS TABLE(run_id uuid, version integer, hash bytea)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, '{work}');
  IF EXISTS (SELECT FROM unnest(p_delays) AS given (delay)
    WHERE given.delay NOT BETWEEN '0' AND '3650 days') THEN
    RAISE EXCEPTION 'a delay is at most ten years' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_error_codes);
  checked := ledger.check_content(p_bodies);
  IF p_type NOT IN ('lease.released', 'run.retried') THEN
    RAISE EXCEPTION 'a run is put back to pending by lease.released or run.retried, not by %',
      quote_literal(p_type) USING ERRCODE = 'RF001';
  END IF;
  RETURN QUERY
  WITH asked AS MATERIALIZED ( -- each lease once, in the order of the locks
    SELECT DISTINCT ON (given.run_id) given.*,
      CASE WHEN given.body IS NOT NULL THEN sha256(seed || uuid_send(given.run_id)) END AS salt
    FROM unnest(p_runs, p_tokens, p_delays, p_error_codes, p_bodies, p_workers)
      AS given (run_id, token, delay, error_code, body, worker)
    ORDER BY given.run_id
  ), locked AS MATERIALIZED ( -- those that are current, and may go back
    SELECT asked.*, run.version, run.hash, run.updated_at, run.attempt_count, run.worker_id,
      run.cancel_requested_at IS NOT NULL AS cancels
    FROM asked
    CROSS JOIN LATERAL (
      SELECT run.version, run.hash, run.updated_at, run.attempt_count, run.worker_id,
        run.cancel_requested_at
      FROM ledger.run_state AS run
      WHERE run.project_id = p_project AND run.run_id = asked.run_id
        -- No equality: the planner would search the index of leased runs for it, and many runs
        -- have the same token.
        AND asked.token IS NOT NULL AND run.token IS NOT DISTINCT FROM asked.token
        AND run.lease_credential = writer
        AND run.worker_id IS NOT DISTINCT FROM asked.worker
        AND (run.cancel_requested_at IS NOT NULL OR ledger.legal(p_type, run.state, 'pending'))
        AND (p_type = 'lease.released' OR run.attempt_count < run.max_attempts
          OR run.cancel_requested_at IS NOT NULL)
      FOR UPDATE
    ) AS run
  ), next AS MATERIALIZED ( -- the event of each
    SELECT timed.*, timed.version + 1 AS new_version,
      CASE WHEN timed.cancels THEN 'run.cancelled' ELSE p_type END AS type,
      CASE WHEN timed.cancels THEN 'cancelled' ELSE 'pending' END AS state,
      CASE WHEN NOT timed.cancels AND p_type = 'lease.released'
        THEN greatest(timed.attempt_count - 1, 0) END AS attempt,
      CASE WHEN NOT timed.cancels THEN timed.recorded_at + coalesce(timed.delay, '0')
        END AS available_at,
      ledger.payload_hash(timed.salt, timed.body) AS payload_hash
    FROM (SELECT locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
      FROM locked) AS timed
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  )
  INSERT INTO ledger.event AS appended (project_id, run_id, version, recorded_at, type, actor,
    state, attempt, available_at, error_code, compensates, payload_hash, credential, hash)
  SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.worker_id,
    next.state, next.attempt, next.available_at, next.error_code, next.token, next.payload_hash,
    writer,
    ledger.event_hash(next.hash, p_project, next.run_id, next.new_version, next.recorded_at,
      next.type, next.worker_id, state => next.state, attempt => next.attempt,
      available_at => next.available_at, error_code => next.error_code,
      compensates => next.token, payload_hash => next.payload_hash, credential => writer)
  FROM next
  RETURNING appended.run_id, appended.version, appended.hash;
END $$;

CREATE FUNCTION ledger.resend_delivery(p_project text, p_actor text, p_webhook text, p_run uuid, p_version integer) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  checked boolean;
BEGIN
  checked := ledger.check_access(p_project, '{admin}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  PERFORM ledger.lock_row('ledger.webhook', 'webhook_id', p_project, p_webhook);
  PERFORM FROM ledger.delivery AS sent
  WHERE sent.project_id = p_project AND sent.webhook_id = p_webhook AND sent.run_id = p_run
    AND (sent.version = p_version OR sent.next_at IS NOT NULL)
  ORDER BY sent.version FOR NO KEY UPDATE;
  UPDATE ledger.delivery SET next_at = ledger.now(), follows = EXISTS (
    SELECT FROM ledger.delivery AS earlier
    WHERE earlier.webhook_id = p_webhook AND earlier.run_id = p_run
      AND earlier.version < p_version AND earlier.next_at IS NOT NULL)
  WHERE delivery.project_id = p_project AND delivery.webhook_id = p_webhook
    AND delivery.run_id = p_run AND delivery.version = p_version;
  IF NOT FOUND THEN
    RETURN false;
  END IF;
  UPDATE ledger.delivery SET follows = true
  WHERE delivery.webhook_id = p_webhook AND delivery.run_id = p_run
    AND delivery.version > p_version AND delivery.next_at IS NOT NULL AND NOT delivery.follows;
  PERFORM ledger.append_control(p_project, 'delivery.resent',
    'delivery:' || concat_ws(':', p_webhook, p_run, p_version), NULL, p_actor, NULL);
  RETURN true;
END $$;

CREATE FUNCTION ledger.salt_seed() RETURNS bytea
    LANGUAGE sql PARALLEL SAFE
    AS $$
  SELECT uuid_send(gen_random_uuid()) || uuid_send(gen_random_uuid())
$$;

CREATE FUNCTION ledger.session_credential(p_secret text) RETURNS text
    LANGUAGE sql STABLE PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT session.credential FROM ledger.web_session AS session
  WHERE session.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND session.ended_at IS NULL
    AND session.expires_at > ledger.now()
    AND session.last_used_at > ledger.now() - interval '2 hours'
    AND (EXISTS (SELECT FROM ledger.api_token AS token
        WHERE session.credential = 'token:' || token.token_id AND token.revoked_at IS NULL
          AND token.expires_at > ledger.now())
      OR EXISTS (SELECT FROM ledger.user_account AS account
        WHERE session.credential = 'user:' || account.name AND account.disabled_at IS NULL
          AND account.changed_at = session.user_changed_at))
$$;

CREATE FUNCTION ledger.sign_in_by_password(p_name text, p_key bytea, p_sha256 bytea) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  user_credential CONSTANT text := 'user:' || p_name;
  account record;
  moment CONSTANT timestamptz := ledger.now();
  -- Of a session's digest, which nobody else knows, so that no password is guessed by it.
  this_try CONSTANT bytea := sha256(p_key || coalesce(p_sha256, ''));
BEGIN
  -- In one query: an old password matches the account as it was before the change, and the session
  -- that it begins ends with the change.
  SELECT known.changed_at, known.disabled_at, password.key_sha256, use.login,
    use.try_sha256 = this_try AND use.try_txid IS DISTINCT FROM pg_current_xact_id_if_assigned()
      AS is_on_record,
    use.failed_uses >= 10
      AND use.last_failed_at BETWEEN moment - interval '1 minute' AND moment AS waits
  INTO account FROM ledger.user_account AS known
  LEFT JOIN ledger.user_password AS password ON password.name = known.name
  LEFT JOIN ledger.credential_use AS use ON use.credential = user_credential
    AND use.login = session_user
  WHERE known.name = p_name;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  IF account.is_on_record IS NOT TRUE THEN
    IF account.waits THEN
      RETURN NULL;
    END IF;
    IF account.login IS NULL THEN -- else it would wait for whoever changes the user
      INSERT INTO ledger.credential_use (credential, login) VALUES (user_credential, session_user)
      ON CONFLICT DO NOTHING;
    END IF;
    PERFORM ledger.note_use(user_credential, true, session_user, this_try);
    RETURN NULL;
  END IF;
  IF account.disabled_at IS NOT NULL OR (account.key_sha256 = sha256(p_key)) IS NOT TRUE THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use(user_credential, false, session_user);
  PERFORM ledger.begin_session(user_credential, p_sha256, account.changed_at);
  RETURN user_credential;
END $$;

CREATE FUNCTION ledger.sign_in_by_provider(p_issuer text, p_subject text, p_sha256 bytea) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  account ledger.user_account;
  checked CONSTANT boolean := ledger.check_access('*', '{admin}');
BEGIN
  SELECT known.* INTO account FROM ledger.user_account AS known
  WHERE known.issuer = p_issuer AND known.subject = p_subject AND known.disabled_at IS NULL;
  IF NOT FOUND THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use('user:' || account.name, false);
  PERFORM ledger.begin_session('user:' || account.name, p_sha256, account.changed_at);
  RETURN 'user:' || account.name;
END $$;

CREATE FUNCTION ledger.sign_in_by_token(p_secret text, p_sha256 bytea) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  found CONSTANT text := ledger.use_token(p_secret);
BEGIN
  IF found IS NULL OR starts_with(p_secret, 'runfold_session_') THEN
    RETURN NULL;
  END IF;
  PERFORM ledger.begin_session(found, p_sha256);
  RETURN found;
END $$;

CREATE FUNCTION ledger.signal(p_project text, p_actor text, p_run uuid, p_name text, p_answer text, p_kept text, p_key text DEFAULT NULL::text) RETURNS TABLE(run_id uuid, version integer, hash bytea)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  run record;
  awaited text;
BEGIN
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_name', p_name IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_name], 100);
  IF strpos(p_name, '#') > 0 THEN
    RAISE EXCEPTION 'the name of a signal must not contain #' USING ERRCODE = '22023';
  END IF;
  SELECT state.state, state.token, state.available_at INTO run
  FROM ledger.run_state AS state
  WHERE state.project_id = p_project AND state.run_id = p_run
  FOR UPDATE;
  IF run.state = 'waiting_tool' AND run.token IS NULL AND run.available_at IS NULL THEN
    SELECT split_part(event.name, '#', 1) INTO awaited
    FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id >= p_run AND event.run_id <= p_run
      AND event.type = 'tool.requested' -- by a range: see ledger.newest_request
    ORDER BY event.run_id DESC, event.version DESC LIMIT 1;
  END IF;
  IF awaited = 'signal:' || p_name THEN
    RETURN QUERY
    SELECT moved.run_id, moved.version, moved.hash
    FROM ledger.transition(
      p_project, ARRAY[p_actor], ARRAY[p_run], NULL, ARRAY['running'],
      p_names => ARRAY[awaited], p_bodies => ARRAY[p_answer], p_keys => ARRAY[p_key]
    ) AS moved;
    IF FOUND THEN -- else the wait is over, and the signal is kept for the next
      RETURN;
    END IF;
  END IF;
  RETURN QUERY
  SELECT appended.run_id, appended.version, appended.hash
  FROM ledger.append(
    p_project, p_actor, ARRAY[p_run], NULL, ARRAY['signal.received'],
    p_names => ARRAY[p_name], p_bodies => ARRAY[p_kept], p_keys => ARRAY[p_key]
  ) AS appended;
END $$;

CREATE FUNCTION ledger.snooze(p_project text, p_actor text, p_run uuid, p_version integer, p_until timestamp with time zone) RETURNS boolean
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET lock_timeout TO '2s'
    AS $$
DECLARE
  present CONSTANT timestamptz := ledger.now();
  most CONSTANT int := 500;
  checked boolean;
  lapses timestamptz;
BEGIN
  checked := ledger.check_access(p_project, '{decide}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_texts(ARRAY[p_actor], 200, true);
  checked := ledger.check_times(ARRAY[p_until]);
  IF p_until IS NULL THEN
    DELETE FROM ledger.snooze AS known WHERE known.project_id = p_project
      AND known.actor = p_actor AND known.run_id = p_run AND known.version = p_version;
    RETURN FOUND;
  END IF;
  IF p_until <= present OR p_until > present + interval '90 days' THEN
    RAISE EXCEPTION 'a request is put off to a time from now on, at most 90 days away, not to %',
      p_until USING ERRCODE = '22023';
  END IF;
  -- Settings that have ended do not count against the limit.
  DELETE FROM ledger.snooze AS known WHERE known.project_id = p_project
    AND known.actor = p_actor AND known.until <= present;
  IF (SELECT count(*) FROM ledger.snooze AS known WHERE known.project_id = p_project
      AND known.actor = p_actor AND known.run_id <> p_run) >= most THEN
    RAISE EXCEPTION '% has put off % requests: take one back', p_actor, most
      USING ERRCODE = '22023';
  END IF;
  SELECT request.wait_until INTO lapses FROM ledger.event AS request
  WHERE request.project_id = p_project AND request.run_id = p_run AND request.version = p_version
    AND request.version = ledger.newest_request(p_project, p_run);
  IF lapses <= p_until THEN
    RAISE EXCEPTION 'nobody can decide the request after %: put it off to an earlier time', lapses
      USING ERRCODE = '22023';
  END IF;
  INSERT INTO ledger.snooze AS known (project_id, actor, run_id, version, seen, until)
  SELECT p_project, p_actor, p_run, p_version, run.version, p_until
  FROM ledger.run_state AS run
  WHERE run.project_id = p_project AND run.run_id = p_run AND run.state = 'waiting_approval'
    AND run.available_at IS NULL -- not decided yet
    AND p_version = ledger.newest_request(p_project, p_run)
  ON CONFLICT (project_id, actor, run_id) DO UPDATE
    SET version = excluded.version, seen = excluded.seen, until = excluded.until;
  RETURN FOUND;
END $$;

CREATE FUNCTION ledger.speaker() RETURNS text
    LANGUAGE sql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
  SELECT CASE WHEN NOT ledger.is_owner() THEN ledger.credential() END
$$;

CREATE FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer DEFAULT NULL::integer, p_time timestamp with time zone DEFAULT NULL::timestamp with time zone) RETURNS SETOF ledger.run
    LANGUAGE plpgsql STABLE
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $$
BEGIN
  RETURN QUERY SELECT run.*, ledger.content_part(first.body, 'input'),
    ledger.content_part(outcome.body, 'output'), ledger.content_part(outcome.body, 'error_detail')
  FROM ledger.rebuild_run_state(p_project, p_run, p_run, p_version, p_time) AS run
  LEFT JOIN ledger.payload AS first ON first.project_id = p_project AND first.run_id = p_run
    AND first.version = 1
  LEFT JOIN ledger.payload AS outcome ON outcome.project_id = p_project AND outcome.run_id = p_run
    AND outcome.version = run.outcome_version;
END $$;

CREATE FUNCTION ledger.submit(p_project text, p_actor text, p_kinds text[], p_inputs text[] DEFAULT NULL::text[], p_keys text[] DEFAULT NULL::text[], p_priorities integer[] DEFAULT NULL::integer[], p_delays interval[] DEFAULT NULL::interval[], p_max_attempts integer[] DEFAULT NULL::integer[], p_deadlines timestamp with time zone[] DEFAULT NULL::timestamp with time zone[], p_deadlines_in interval[] DEFAULT NULL::interval[], p_tags text[] DEFAULT NULL::text[]) RETURNS TABLE(ordinal integer, run_id uuid, fresh boolean, recorded_at timestamp with time zone, available_at timestamp with time zone, deadline timestamp with time zone, hash bytea)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  writer CONSTANT text := ledger.credential();
  checked boolean;
  seed bytea := ledger.salt_seed();
  content text;
  -- Drawn before the ids of the runs: low-water marks wait for this transaction
  -- (ledger/sql/marks/move_low_water.sql).
  txid CONSTANT xid8 := pg_current_xact_id();
  ids uuid[];
  fresh boolean[];
  past timestamptz;
BEGIN
  checked := ledger.check_count(cardinality(p_kinds));
  checked := ledger.check_access(p_project, '{submit}', ARRAY[p_actor]);
  checked := ledger.check_given('p_actor', p_actor IS NOT NULL);
  checked := ledger.check_given('p_kinds', num_nulls(VARIADIC p_kinds) = 0);
  p_priorities := coalesce(p_priorities, array_fill(0, ARRAY[cardinality(p_kinds)]));
  p_max_attempts := coalesce(p_max_attempts, array_fill(3, ARRAY[cardinality(p_kinds)]));
  checked := ledger.check_given('p_priorities',
    num_nonnulls(VARIADIC p_priorities) = cardinality(p_kinds));
  checked := ledger.check_given('p_max_attempts',
    num_nonnulls(VARIADIC p_max_attempts) = cardinality(p_kinds));
  -- The greatest int is no priority: a claim searches below it.
  IF EXISTS (
    SELECT FROM unnest(p_delays, p_deadlines_in, p_priorities, p_max_attempts)
      AS asked (delay, deadline_in, priority, attempts)
    WHERE asked.delay NOT BETWEEN '0' AND '3650 days'
      OR asked.deadline_in <= '0' OR asked.deadline_in > '3650 days'
      OR asked.priority NOT BETWEEN 0 AND 2147483646 OR asked.attempts NOT BETWEEN 1 AND 1000
  ) THEN
    RAISE EXCEPTION 'a value is outside its limits: a delay and a deadline are at most ten years, '
      'a deadline is not at once, a priority is 0 to 2147483646, attempts are 1 to 1000'
      USING ERRCODE = '22023';
  END IF;
  IF num_nonnulls(VARIADIC p_deadlines) > 0 THEN
    checked := ledger.check_times(p_deadlines);
  END IF;
  checked := ledger.check_texts(ARRAY[p_actor] || p_kinds, 200, true);
  checked := ledger.check_texts(p_keys);
  checked := ledger.check_tags(p_tags);
  checked := ledger.check_content(p_inputs);
  FOREACH content IN ARRAY coalesce(p_inputs, '{}') LOOP
    CONTINUE WHEN content IS NULL OR starts_with(content, '{"input"'); -- as Python writes it
    IF EXISTS (SELECT FROM json_object_keys(content::json) AS member
      WHERE member NOT IN ('input', 'parent')) THEN
      RAISE EXCEPTION 'content % is not {"input": …}: a run would have no input',
        quote_literal(left(content, 40)) USING ERRCODE = '22023';
    END IF;
  END LOOP;
  IF NOT EXISTS (SELECT FROM ledger.project AS project WHERE project.project_id = p_project) THEN
    RAISE EXCEPTION 'project % does not exist', p_project USING ERRCODE = 'RF404';
  END IF;
  FOR attempt IN 1..2 LOOP -- ids made before their month had its partition are made again
    SELECT array_agg(asked.id ORDER BY asked.id), array_agg(true) INTO ids, fresh
    FROM (SELECT ledger.uuid7() AS id FROM generate_series(1, cardinality(p_kinds))
      OFFSET 0) AS asked;
    EXIT WHEN ledger.ensure_months(ids[1], ids[cardinality(ids)]);
  END LOOP;

  INSERT INTO ledger.kind (project_id, kind, run_id)
  SELECT p_project, asked.kind, ids[1] FROM (SELECT DISTINCT unnest(p_kinds) AS kind) AS asked
  WHERE NOT EXISTS (SELECT FROM ledger.kind AS known
    WHERE known.project_id = p_project AND known.kind = asked.kind OFFSET 0);

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    SELECT array_agg(known.run_id ORDER BY known.ordinal),
      array_agg(known.fresh ORDER BY known.ordinal) INTO ids, fresh
    FROM ledger.submit_keys(p_project, ids, p_kinds, p_inputs, p_keys, p_priorities, p_delays,
      p_max_attempts, p_deadlines, p_deadlines_in, p_tags, seed) AS known;
  END IF;

  -- Only new runs are refused: a repeated command has its first outcome, however late it comes.
  IF num_nonnulls(VARIADIC p_deadlines) > 0 THEN
    SELECT min(asked.deadline_at) INTO past
    FROM unnest(fresh, p_deadlines) AS asked (fresh, deadline_at)
    WHERE asked.fresh AND asked.deadline_at <= ledger.now();
    IF past IS NOT NULL THEN
      RAISE EXCEPTION 'deadline % is in the past by the database''s clock', past
        USING ERRCODE = '22023';
    END IF;
  END IF;

  RETURN QUERY
  WITH made AS MATERIALIZED ( -- the runs that do not exist yet
    SELECT salted.*,
      ledger.event_hash(''::bytea, p_project, salted.run_id, 1, salted.recorded_at,
        'run.submitted', p_actor, state => 'pending', kind => salted.kind,
        priority => salted.priority, max_attempts => salted.max_attempts,
        deadline => salted.deadline, tags => salted.tags, available_at => salted.available_at,
        key => salted.key, payload_hash => salted.payload_hash, credential => writer) AS hash
    FROM (
      SELECT timed.*, ledger.payload_hash(timed.salt, timed.input) AS payload_hash
      FROM ( -- with its instants and the salt of its input
        SELECT asked.ordinal, asked.run_id, asked.kind, asked.input, asked.key, asked.priority,
          asked.max_attempts, asked.recorded_at,
          asked.recorded_at + coalesce(asked.delay, '0') AS available_at,
          coalesce(asked.deadline_at, asked.recorded_at + asked.deadline_in) AS deadline,
          coalesce(asked.tags, '{}')::text[] AS tags,
          CASE WHEN asked.input IS NOT NULL THEN sha256(seed || uuid_send(asked.run_id)) END AS salt
        FROM (
          SELECT given.*, ledger.now() AS recorded_at
          FROM unnest(ids, fresh, p_kinds, p_inputs, p_keys, p_priorities, p_delays,
            p_max_attempts, p_deadlines, p_deadlines_in, p_tags) WITH ORDINALITY
            AS given (run_id, fresh, kind, input, key, priority, delay, max_attempts, deadline_at,
              deadline_in, tags, ordinal)
          WHERE given.fresh OFFSET 0
        ) AS asked OFFSET 0
      ) AS timed OFFSET 0
    ) AS salted
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, made.run_id, 1, made.salt, made.input::json FROM made
      WHERE made.input IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, kind,
      priority, max_attempts, deadline, tags, available_at, key, payload_hash, credential, hash)
    SELECT p_project, made.run_id, 1, made.recorded_at, 'run.submitted', p_actor, 'pending',
      made.kind, made.priority, made.max_attempts, made.deadline, made.tags, made.available_at,
      made.key, made.payload_hash, writer, made.hash
    FROM made
  )
  SELECT told.ordinal::int, told.run_id, told.fresh, told.recorded_at, told.available_at,
    told.deadline, told.hash
  FROM (
    SELECT made.ordinal, made.run_id, true AS fresh, made.recorded_at, made.available_at,
      made.deadline, made.hash FROM made
    UNION ALL
    SELECT given.ordinal, given.run_id, false, NULL, NULL, NULL, NULL
    FROM unnest(ids, fresh) WITH ORDINALITY AS given (run_id, fresh, ordinal)
    WHERE NOT given.fresh
  ) AS told
  ORDER BY told.ordinal;
END $$;

CREATE FUNCTION ledger.submit_keys(p_project text, p_ids uuid[], p_kinds text[], p_inputs text[], p_keys text[], p_priorities integer[], p_delays interval[], p_max_attempts integer[], p_deadlines timestamp with time zone[], p_deadlines_in interval[], p_tags text[], p_seed bytea) RETURNS TABLE(ordinal integer, run_id uuid, fresh boolean)
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    AS $$
#variable_conflict use_column
DECLARE
  checked boolean;
  contents text[];
  clash record;
BEGIN
  checked := ledger.check_due_keys(p_project, p_keys);
  SELECT array_agg(jsonb_build_array(asked.kind, asked.input, asked.priority,
    extract(epoch FROM asked.delay), asked.max_attempts,
    extract(epoch FROM asked.deadline), extract(epoch FROM asked.deadline_in),
    asked.tags)::text ORDER BY asked.ordinal)
  INTO contents
  FROM unnest(p_kinds, p_inputs, p_priorities, p_delays, p_max_attempts, p_deadlines,
    p_deadlines_in, p_tags) WITH ORDINALITY
    AS asked (kind, input, priority, delay, max_attempts, deadline, deadline_in, tags, ordinal);

  INSERT INTO ledger.command (project_id, key, salt, content_hash, run_id, version)
  SELECT p_project, asked.key, asked.salt, ledger.payload_hash(asked.salt, asked.content),
    asked.run_id, 1
  FROM (
    SELECT DISTINCT ON (asked.key) asked.*,
      sha256(p_seed || convert_to(asked.key, 'UTF8')) AS salt
    FROM unnest(p_keys, contents, p_ids) WITH ORDINALITY AS asked (key, content, run_id, ordinal)
    WHERE asked.key IS NOT NULL ORDER BY asked.key, asked.ordinal
  ) AS asked
  ORDER BY asked.key
  ON CONFLICT DO NOTHING;

  -- A statement of its own, for a snapshot that sees what a concurrent submit of the same key
  -- has committed.
  SELECT asked.key, known.run_id, known.version INTO clash
  FROM unnest(p_keys, contents) AS asked (key, content)
  CROSS JOIN LATERAL (
    SELECT command.* FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known
  WHERE known.content_hash <> ledger.payload_hash(known.salt, asked.content) LIMIT 1;
  IF FOUND THEN
    RAISE EXCEPTION 'key % was used with other content', clash.key USING ERRCODE = 'RF409',
      DETAIL = json_build_object('key', clash.key, 'run_id', clash.run_id, 'version',
        clash.version);
  END IF;

  RETURN QUERY
  SELECT asked.ordinal::int, coalesce(known.run_id, asked.run_id),
    asked.key IS NULL OR known.run_id = asked.run_id
  FROM unnest(p_keys, p_ids) WITH ORDINALITY AS asked (key, run_id, ordinal)
  LEFT JOIN LATERAL (
    SELECT command.run_id FROM ledger.command AS command
    WHERE command.project_id = p_project AND command.key = asked.key OFFSET 0
  ) AS known ON true;
END $$;

CREATE FUNCTION ledger.submitter_problem(p_project text, p_run uuid, p_person text, p_writer text) RETURNS text
    LANGUAGE plpgsql
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_bitmapscan TO 'off'
    SET jit TO 'off'
    AS $_$
DECLARE
  id uuid := p_run;
  submitted record;
  parent text;
BEGIN
  FOR step IN 1..1000 LOOP
    SELECT event.actor, event.credential, event.payload_hash INTO submitted
    FROM ledger.event AS event
    WHERE event.project_id = p_project AND event.run_id = id AND event.version = 1;
    IF NOT FOUND THEN -- a parent that this project never had asked for nothing
      RETURN (SELECT 'unread' FROM ledger.archive AS archive
        WHERE archive.detached AND id >= archive.first AND id < archive.beyond LIMIT 1);
    END IF;
    IF ledger.person(submitted.actor) = p_person OR submitted.credential = p_writer THEN
      RETURN 'submitter';
    END IF;
    SELECT payload.body ->> 'parent' INTO parent FROM ledger.payload AS payload
    WHERE payload.project_id = p_project AND payload.run_id = id AND payload.version = 1;
    IF NOT FOUND THEN
      RETURN CASE WHEN submitted.payload_hash IS NOT NULL THEN 'unread' END;
    END IF;
    IF parent IS NULL OR parent !~ '^[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}$' THEN
      RETURN NULL;
    END IF;
    id := parent::uuid;
  END LOOP;
  RETURN 'unread';
END $_$;

CREATE FUNCTION ledger.sweep_start(p_project text, p_kind text, OUT ends_from timestamp with time zone, OUT cancels_after bigint) RETURNS record
    LANGUAGE plpgsql
    AS $$
#variable_conflict use_column
BEGIN
  IF ledger.marks_hold(p_project, p_kind) THEN
    SELECT mark.ends_from, mark.cancels_after INTO ends_from, cancels_after
    FROM ledger.newest_mark(p_project, p_kind) AS mark;
  END IF;
  ends_from := coalesce(ends_from, '-infinity');
  cancels_after := coalesce(cancels_after, 0);
END $$;

CREATE FUNCTION ledger.token_credential(p_secret text) RETURNS text
    LANGUAGE plpgsql STABLE SECURITY DEFINER PARALLEL SAFE
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  found text;
BEGIN
  IF starts_with(p_secret, 'runfold_session_') THEN
    found := ledger.session_credential(p_secret);
  ELSE
    SELECT 'token:' || token.token_id INTO found FROM ledger.api_token AS token
    WHERE token.sha256 = sha256(convert_to(p_secret, 'UTF8')) AND token.revoked_at IS NULL
      AND token.expires_at > ledger.now();
  END IF;
  IF found IS NULL THEN
    RAISE EXCEPTION 'the API token is unknown, revoked or past its end' USING ERRCODE = 'RF401';
  END IF;
  RETURN found;
END $$;

CREATE FUNCTION ledger.transition(p_project text, p_actors text[], p_runs uuid[], p_tokens integer[], p_states text[], p_parks boolean[] DEFAULT NULL::boolean[], p_names text[] DEFAULT NULL::text[], p_error_codes text[] DEFAULT NULL::text[], p_bodies text[] DEFAULT NULL::text[], p_costs numeric[] DEFAULT NULL::numeric[], p_steps integer[] DEFAULT NULL::integer[], p_sha256s bytea[] DEFAULT NULL::bytea[], p_waits interval[] DEFAULT NULL::interval[], p_wait_outcomes text[] DEFAULT NULL::text[], p_expected integer[] DEFAULT NULL::integer[], p_keys text[] DEFAULT NULL::text[], p_workers text[] DEFAULT NULL::text[]) RETURNS TABLE(run_id uuid, version integer, hash bytea, from_state text)
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    SET plan_cache_mode TO 'force_generic_plan'
    SET enable_hashjoin TO 'off'
    SET enable_mergejoin TO 'off'
    SET enable_seqscan TO 'off'
    SET enable_memoize TO 'off'
    SET jit TO 'off'
    AS $_$
#variable_conflict use_column
DECLARE
  checked boolean;
  writer CONSTANT text := ledger.credential();
  seed bytea := ledger.salt_seed();
  wrong text;
BEGIN
  checked := ledger.check_count(cardinality(p_runs));
  checked := ledger.check_workers(p_tokens, p_workers);
  checked := ledger.check_access(p_project, CASE WHEN num_nonnulls(VARIADIC p_tokens) > 0
    THEN '{work}' ELSE '{work,submit}' END::text[], p_actors);
  IF greatest(num_nonnulls(VARIADIC p_tokens), num_nonnulls(VARIADIC p_actors), 0)
    < cardinality(p_runs) THEN -- counted first: the query costs more
    checked := ledger.check_given('p_actors', NOT EXISTS (
      SELECT FROM unnest(p_runs, p_tokens, p_actors) AS given (run, token, actor)
      WHERE given.run IS NOT NULL AND num_nonnulls(given.token, given.actor) = 0));
  END IF;
  IF p_waits IS NOT NULL THEN -- seldom; each query costs as much as the fold of an event
    IF EXISTS (SELECT FROM unnest(p_waits) AS given (wait)
      WHERE given.wait <= '0' OR given.wait > '3650 days') THEN
      RAISE EXCEPTION 'a wait must end within ten years, and not at once' USING ERRCODE = '22023';
    END IF;
    IF EXISTS (SELECT FROM unnest(p_states, p_parks, p_waits) AS given (state, park, wait)
      WHERE given.wait IS NOT NULL AND given.state <> 'waiting_approval'
        AND NOT (given.state = 'waiting_tool' AND coalesce(given.park, false))) THEN
      RAISE EXCEPTION 'only a wait for an approval, or for a tool while parked, may have an end'
        USING ERRCODE = '22023';
    END IF;
  END IF;
  IF NOT array_remove(p_states, NULL) <@ ARRAY['pending', 'running', 'waiting_tool',
    'waiting_approval', 'completed', 'failed', 'cancelled', 'timeout'] THEN
    RAISE EXCEPTION 'states % have one that does not exist: a run goes to running, waiting_tool, '
      'waiting_approval, completed, failed, cancelled or timeout',
      quote_literal(left(p_states::text, 200)) USING ERRCODE = '22023';
  END IF;
  IF true = ANY (p_parks) THEN
    SELECT given.state INTO wrong FROM unnest(p_states, p_parks) AS given (state, park)
    WHERE given.park AND given.state NOT IN ('waiting_tool', 'waiting_approval') LIMIT 1;
    IF FOUND THEN
      RAISE EXCEPTION 'only a waiting run can be parked, not one that becomes %', wrong
        USING ERRCODE = '22023';
    END IF;
  END IF;
  IF NOT array_remove(p_wait_outcomes, NULL) <@ ARRAY['cancelled', 'timeout', 'lapsed'] THEN
    RAISE EXCEPTION 'wait_outcome must be cancelled, timeout or lapsed' USING ERRCODE = '22023';
  END IF;
  checked := ledger.check_texts(p_actors, 200, true);
  checked := ledger.check_texts(p_names || p_error_codes || p_keys);
  checked := ledger.check_content(p_bodies);
  checked := ledger.check_costs(p_costs);
  checked := ledger.check_corrections(p_tokens, p_costs, p_steps);
  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.lock_runs(p_project, p_runs);
  END IF;
  RETURN QUERY
  WITH next AS MATERIALIZED ( -- each event that will be appended, with its hash
    SELECT decided.*,
      ledger.event_hash(decided.hash, p_project, decided.run_id, decided.new_version,
        decided.recorded_at, decided.type, decided.who, state => decided.new_state,
        name => decided.name, worker_id => decided.new_worker, token => decided.new_token,
        lease_until => decided.new_until, available_at => decided.available_at,
        wait_until => decided.wait_until, wait_outcome => decided.new_wait_outcome,
        cost_usd => decided.cost, step_count => decided.steps, error_code => decided.error_code,
        output_sha256 => decided.sha256, key => decided.key, payload_hash => decided.payload_hash,
        credential => writer, role => decided.role,
        other_person => decided.other_person, shown_sha256 => decided.shown_sha256,
        based_on => decided.based_on, approvals => decided.approvals,
        approved => decided.approvals * 0) AS new_hash
    FROM (
      -- the event that each command makes of its run
      SELECT timed.run_id, timed.name, timed.error_code, timed.body, timed.cost, timed.steps,
        timed.sha256, timed.key, timed.salt, timed.hash, timed.from_state, timed.type,
        timed.new_version, timed.recorded_at,
        coalesce(timed.actor, CASE WHEN timed.token IS NOT NULL THEN timed.worker_id END) AS who,
        CASE WHEN timed.keeps THEN timed.held_token END AS new_token,
        CASE WHEN timed.keeps THEN timed.worker_id END AS new_worker,
        CASE WHEN timed.keeps THEN timed.lease_until END AS new_until,
        CASE WHEN NOT timed.answers_parked THEN timed.state END AS new_state,
        CASE WHEN timed.answers_parked THEN timed.recorded_at END AS available_at,
        CASE WHEN timed.waits THEN timed.recorded_at + timed.wait END AS wait_until,
        CASE WHEN timed.state = 'waiting_approval' AND timed.wait IS NOT NULL
          THEN coalesce(timed.wait_outcome, 'cancelled') END AS new_wait_outcome,
        ledger.payload_hash(timed.salt, timed.body) AS payload_hash,
        -- Who may decide, and what was shown, are facts: content may be erased.
        CASE timed.type WHEN 'approval.requested' THEN timed.body::json ->> 'role' END AS role,
        CASE timed.type WHEN 'approval.requested' THEN
          CASE WHEN timed.body::json ->> 'other_person' = 'true' THEN true END END AS other_person,
        CASE timed.type WHEN 'approval.requested' THEN
            substring(timed.body::json ->> 'shown_sha256' FROM '^[0-9a-f]{64}$')
        END AS shown_sha256,
        CASE timed.type WHEN 'approval.requested' THEN coalesce(
          substring(timed.body::json ->> 'based_on' FROM '^[1-9][0-9]{0,8}$')::int, timed.expected)
        END AS based_on,
        CASE timed.type WHEN 'approval.requested' THEN ledger.check_request(timed.body)
        END AS approvals
      FROM (
        -- dated after the lock, which may have been waited for
        SELECT asked.*, locked.*, greatest(ledger.now(), locked.updated_at) AS recorded_at
        FROM (
          -- the commands, in the order of the locks
          SELECT given.*, given.state IN ('waiting_tool', 'waiting_approval') AS waits,
            given.state = 'running' OR (given.state IN ('waiting_tool', 'waiting_approval')
              AND given.park IS NOT TRUE) AS keeps,
            CASE WHEN given.body IS NOT NULL
              THEN sha256(seed || uuid_send(given.run_id)) END AS salt
          FROM unnest(p_actors, p_runs, p_tokens, p_states, p_parks, p_names, p_error_codes,
            p_bodies, p_costs::numeric(18, 6)[], p_steps, p_sha256s, p_waits, p_wait_outcomes,
            p_expected, p_keys, p_workers)
            AS given (actor, run_id, token, state, park, name, error_code, body, cost, steps,
              sha256, wait, wait_outcome, expected, key, worker)
          ORDER BY given.run_id OFFSET 0
        ) AS asked
        CROSS JOIN LATERAL (
          -- the run as it is now, if it allows the command
          SELECT locked.version + 1 AS new_version, locked.hash, locked.state AS from_state,
            locked.token AS held_token, locked.worker_id, locked.lease_until, locked.updated_at,
            locked.wait_until AS waits_until, asked.state = 'running' AND locked.token IS NULL
              AS answers_parked,
            ledger.transition_type(locked.state, asked.state, asked.error_code) AS type
          FROM ledger.run_state AS locked
          WHERE locked.project_id = p_project AND locked.run_id = asked.run_id
            -- The fence: the current token, or no token where none is held. The worker must be
            -- its holder: after a fail-over that lost events, a token may be another's.
            AND (locked.token = asked.token AND locked.lease_credential = writer
                AND locked.worker_id IS NOT DISTINCT FROM asked.worker
              OR asked.token IS NULL AND locked.token IS NULL
                AND locked.state <> 'waiting_approval')
            -- A parked run that has its answer is claimable; a second answer would contradict the
            -- first.
            AND (locked.state NOT IN ('waiting_tool', 'waiting_approval')
              OR locked.available_at IS NULL)
            AND (asked.expected IS NULL OR locked.version = asked.expected)
            AND (asked.key IS NULL OR NOT EXISTS (
              SELECT FROM ledger.command AS used WHERE used.project_id = p_project
                AND used.key = asked.key OFFSET 0))
            AND locked.cost_usd + coalesce(asked.cost, 0) BETWEEN 0 AND 999999999999
            AND locked.step_count::bigint + coalesce(asked.steps, 0) BETWEEN 0 AND 2147483647
          FOR UPDATE
        ) AS locked
        OFFSET 0
      ) AS timed
      WHERE ledger.legal(timed.type, timed.from_state, timed.state)
        -- An answer after the wait's end comes too late, whether or not a reaper has been here.
        AND (timed.token IS NOT NULL OR timed.waits_until IS NULL
          OR timed.waits_until > timed.recorded_at)
      OFFSET 0
    ) AS decided
  ), contents AS (
    INSERT INTO ledger.payload (project_id, run_id, version, salt, body)
    SELECT p_project, next.run_id, next.new_version, next.salt, next.body::json FROM next
      WHERE next.body IS NOT NULL
  ), appended AS (
    INSERT INTO ledger.event (project_id, run_id, version, recorded_at, type, actor, state, name,
      worker_id, token, lease_until, available_at, wait_until, wait_outcome, cost_usd, step_count,
      error_code, output_sha256, key, payload_hash, credential, role, other_person, shown_sha256,
      based_on, approvals, approved, hash)
    SELECT p_project, next.run_id, next.new_version, next.recorded_at, next.type, next.who,
      next.new_state, next.name, next.new_worker, next.new_token, next.new_until,
      next.available_at, next.wait_until, next.new_wait_outcome, next.cost, next.steps,
      next.error_code, next.sha256, next.key, next.payload_hash, writer, next.role,
      next.other_person, next.shown_sha256, next.based_on, next.approvals, next.approvals * 0,
      next.new_hash
    FROM next
  )
  SELECT next.run_id, next.new_version, next.new_hash, next.from_state FROM next;

  IF num_nonnulls(VARIADIC p_keys) > 0 THEN
    PERFORM ledger.record_keys(p_project, p_runs, p_keys, ARRAY(
      SELECT ledger.command_text(given.run_id, given.state, given.park, given.name,
        given.error_code, given.body, given.cost, given.steps, given.sha256, given.wait,
        given.wait_outcome)
      FROM unnest(p_runs, p_states, p_parks, p_names, p_error_codes, p_bodies, p_costs, p_steps,
        p_sha256s, p_waits, p_wait_outcomes) WITH ORDINALITY
        AS given (run_id, state, park, name, error_code, body, cost, steps, sha256, wait,
          wait_outcome, ordinal)
      ORDER BY given.ordinal), seed);
  END IF;
END $_$;

CREATE FUNCTION ledger.transition_type(p_from text, p_to text, p_error text) RETURNS text
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$
  SELECT CASE p_to
    WHEN 'completed' THEN 'run.completed'
    WHEN 'failed' THEN 'run.failed'
    WHEN 'timeout' THEN 'run.timed_out'
    WHEN 'waiting_tool' THEN 'tool.requested'
    WHEN 'waiting_approval' THEN 'approval.requested'
    WHEN 'cancelled' THEN 'run.cancelled'
    WHEN 'running' THEN
      CASE p_from WHEN 'waiting_tool' THEN
        CASE WHEN p_error IS NULL THEN 'tool.completed' ELSE 'tool.failed' END END
  END
$$;

CREATE FUNCTION ledger.uncharged_leases(p_project text, p_run uuid) RETURNS bigint
    LANGUAGE plpgsql
    AS $$
BEGIN
  RETURN (SELECT count(*) FROM ledger.event AS expired
    WHERE expired.project_id = p_project AND expired.run_id = p_run
      AND expired.type = 'lease.expired' AND expired.attempt IS NOT NULL);
END $$;

CREATE FUNCTION ledger.use_token(p_secret text) RETURNS text
    LANGUAGE plpgsql SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
DECLARE
  token ledger.api_token;
  moment CONSTANT timestamptz := ledger.now();
  found text;
BEGIN
  IF starts_with(p_secret, 'runfold_session_') THEN
    found := ledger.session_credential(p_secret);
    UPDATE ledger.web_session AS session SET last_used_at = moment
    WHERE session.session_id = (
      SELECT locked.session_id FROM ledger.web_session AS locked
      WHERE found IS NOT NULL AND locked.sha256 = sha256(convert_to(p_secret, 'UTF8'))
        AND locked.last_used_at < moment - interval '1 minute'
      FOR UPDATE SKIP LOCKED);
    RETURN found;
  END IF;
  SELECT * INTO token FROM ledger.api_token AS known
  WHERE known.sha256 = sha256(convert_to(p_secret, 'UTF8'));
  IF token.revoked_at IS NOT NULL OR token.expires_at <= moment THEN
    PERFORM ledger.note_use('token:' || token.token_id, true);
    RETURN NULL;
  END IF;
  PERFORM ledger.note_use('token:' || token.token_id, false);
  RETURN 'token:' || token.token_id;
END $$;

CREATE FUNCTION ledger.uuid7() RETURNS uuid
    LANGUAGE sql PARALLEL SAFE
    AS $$SELECT uuidv7()$$;

CREATE FUNCTION ledger.uuid7_floor(p_utc timestamp without time zone) RETURNS uuid
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT rpad(encode(substr(int8send((extract(epoch FROM p_utc) * 1000)::bigint), 3, 6), 'hex'),
  32, '0')::uuid $$;

CREATE FUNCTION ledger.uuid7_month(p_id uuid) RETURNS timestamp without time zone
    LANGUAGE sql IMMUTABLE PARALLEL SAFE
    AS $$ SELECT date_trunc('month', to_timestamp(('x' || substr(translate(p_id::text, '-', ''), 1, 12)
  )::bit(48)::bigint / 1000.0) AT TIME ZONE 'UTC') $$;

CREATE FUNCTION ledger.webhook_duties(p_project text) RETURNS TABLE(webhook_id text, url text, events text[], kinds text[], checkpoint text, secret bytea)
    LANGUAGE plpgsql STABLE SECURITY DEFINER
    SET search_path TO 'pg_catalog', 'pg_temp'
    AS $$
BEGIN
  PERFORM ledger.check_access(p_project, '{read}');
  RETURN QUERY SELECT webhook.webhook_id::text, webhook.url::text, webhook.events, webhook.kinds,
    webhook.checkpoint, signing.secret
  FROM ledger.webhook
  JOIN ledger.webhook_secret AS signing ON signing.webhook_id = webhook.webhook_id
  WHERE webhook.project_id = p_project AND NOT webhook.is_paused
  ORDER BY webhook.webhook_id;
END $$;

CREATE TABLE ledger.access_grant (
    credential character varying(200) NOT NULL,
    project_id text NOT NULL,
    rights text[] NOT NULL,
    actors text[] NOT NULL,
    until timestamp with time zone,
    actor character varying(200) NOT NULL,
    reason text,
    CONSTRAINT access_grant_rights_check CHECK ((rights <@ ARRAY['submit'::text, 'work'::text, 'read'::text, 'decide'::text, 'schedule'::text, 'erase'::text, 'audit'::text, 'admin'::text]))
);
ALTER TABLE ONLY ledger.access_grant ALTER COLUMN credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.access_grant ALTER COLUMN rights SET STATISTICS 0;
ALTER TABLE ONLY ledger.access_grant ALTER COLUMN actors SET STATISTICS 0;
ALTER TABLE ONLY ledger.access_grant ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.access_grant ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.alembic_version (
    version_num character varying(32) NOT NULL
);

COMMENT ON TABLE ledger.alembic_version IS 'installed sha256:...
...';

COMMENT ON COLUMN ledger.alembic_version.version_num IS 'revision 0001 works with code from 0001 on';

CREATE TABLE ledger.api_token (
    token_id character varying(40) NOT NULL,
    sha256 bytea NOT NULL,
    name character varying(200) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    revoked_at timestamp with time zone,
    actor character varying(200) NOT NULL,
    reason text
);
ALTER TABLE ONLY ledger.api_token ALTER COLUMN token_id SET STATISTICS 0;
ALTER TABLE ONLY ledger.api_token ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.api_token ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.api_token ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.archive_event (
    project_id text NOT NULL,
    number bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    type text NOT NULL,
    actor character varying(200) NOT NULL,
    reason text,
    month character varying(7) NOT NULL,
    run_id uuid,
    first uuid,
    beyond uuid,
    runs bigint,
    events bigint,
    payloads bigint,
    generation integer,
    last_position bigint,
    last_txid xid8,
    size_bytes bigint,
    sha256 bytea,
    file text,
    CONSTRAINT archive_event_check CHECK (((project_id = '*'::text) = (run_id IS NULL))),
    CONSTRAINT archive_event_check1 CHECK (((type ~~ 'hold.%'::text) OR (num_nulls(first, beyond, runs, events, payloads, generation, last_position, size_bytes, sha256, file) = 0))),
    CONSTRAINT archive_event_type_check CHECK ((type = ANY (ARRAY['archive.exported'::text, 'archive.detached'::text, 'archive.attached'::text, 'hold.placed'::text, 'hold.released'::text])))
);
ALTER TABLE ONLY ledger.archive_event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.archive_event ALTER COLUMN reason SET STATISTICS 0;
ALTER TABLE ONLY ledger.archive_event ALTER COLUMN month SET STATISTICS 0;
ALTER TABLE ONLY ledger.archive_event ALTER COLUMN file SET STATISTICS 0;

CREATE VIEW ledger.archive WITH (security_invoker='true') AS
 SELECT DISTINCT ON (month) month,
    split_part(type, '.'::text, 2) AS state,
    (type = 'archive.detached'::text) AS detached,
    recorded_at,
    actor,
    reason,
    first,
    beyond,
    runs,
    events,
    payloads,
    generation,
    last_position,
    last_txid,
    size_bytes,
    sha256,
    file
   FROM ledger.archive_event record
  WHERE (type = ANY (ARRAY['archive.exported'::text, 'archive.detached'::text, 'archive.attached'::text]))
  ORDER BY month, number DESC;

CREATE TABLE ledger.at_work (
    key bigint NOT NULL,
    name text NOT NULL,
    shared boolean NOT NULL,
    pid integer NOT NULL
);

CREATE TABLE ledger.command (
    project_id text NOT NULL,
    key text NOT NULL,
    content_hash bytea NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    salt bytea,
    hash bytea
);
ALTER TABLE ONLY ledger.command ALTER COLUMN key SET STATISTICS 0;

CREATE TABLE ledger.control_event (
    project_id text NOT NULL,
    number bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    credential character varying(200) NOT NULL,
    type character varying(80) NOT NULL,
    subject text NOT NULL,
    facts text,
    actor character varying(200) NOT NULL,
    reason text,
    hash bytea NOT NULL,
    CONSTRAINT control_event_number_check CHECK ((number > 0))
);
ALTER TABLE ONLY ledger.control_event ALTER COLUMN credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.control_event ALTER COLUMN subject SET STATISTICS 0;
ALTER TABLE ONLY ledger.control_event ALTER COLUMN facts SET STATISTICS 0;
ALTER TABLE ONLY ledger.control_event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.control_event ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.control_head (
    project_id text NOT NULL,
    number bigint NOT NULL,
    hash bytea NOT NULL,
    CONSTRAINT control_head_number_check CHECK ((number > 0))
);

CREATE TABLE ledger.credential_use (
    credential character varying(200) NOT NULL,
    login character varying(200) DEFAULT ''::character varying NOT NULL,
    last_used_at timestamp with time zone,
    failed_uses integer DEFAULT 0 NOT NULL,
    last_failed_at timestamp with time zone,
    try_sha256 bytea,
    try_txid xid8
);
ALTER TABLE ONLY ledger.credential_use ALTER COLUMN credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.credential_use ALTER COLUMN login SET STATISTICS 0;

CREATE TABLE ledger.delivery (
    project_id text NOT NULL,
    webhook_id character varying(40) NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    type character varying(80) NOT NULL,
    body text NOT NULL,
    created_at timestamp with time zone NOT NULL,
    next_at timestamp with time zone,
    attempts integer DEFAULT 0 NOT NULL,
    delivered_at timestamp with time zone,
    follows boolean DEFAULT false NOT NULL,
    CONSTRAINT delivery_attempts_check CHECK (((attempts >= 0) AND (attempts <= 1000000)))
);
ALTER TABLE ONLY ledger.delivery ALTER COLUMN webhook_id SET STATISTICS 0;
ALTER TABLE ONLY ledger.delivery ALTER COLUMN body SET STATISTICS 0;

CREATE TABLE ledger.delivery_attempt (
    project_id text NOT NULL,
    webhook_id character varying(40) NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    attempt integer NOT NULL,
    attempted_at timestamp with time zone NOT NULL,
    duration_ms integer NOT NULL,
    status integer,
    error text
);
ALTER TABLE ONLY ledger.delivery_attempt ALTER COLUMN webhook_id SET STATISTICS 0;
ALTER TABLE ONLY ledger.delivery_attempt ALTER COLUMN error SET STATISTICS 0;

CREATE TABLE ledger.feed_generation (
    generation integer NOT NULL,
    start text NOT NULL,
    end_position bigint,
    system_identifier bigint NOT NULL,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);

CREATE TABLE ledger.kind (
    project_id text NOT NULL,
    kind text NOT NULL,
    run_id uuid NOT NULL
);

CREATE TABLE ledger.kind_event (
    project_id text NOT NULL,
    kind character varying(200) NOT NULL,
    number integer NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    actor character varying(200) NOT NULL,
    type text NOT NULL,
    max_running integer,
    reason text,
    CONSTRAINT kind_event_check CHECK (((max_running IS NULL) OR (type = 'kind.limited'::text))),
    CONSTRAINT kind_event_max_running_check CHECK ((max_running > 0)),
    CONSTRAINT kind_event_number_check CHECK ((number > 0)),
    CONSTRAINT kind_event_type_check CHECK ((type = ANY (ARRAY['kind.paused'::text, 'kind.resumed'::text, 'kind.limited'::text])))
);
ALTER TABLE ONLY ledger.kind_event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.kind_event ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.kind_state (
    project_id text NOT NULL,
    kind text NOT NULL,
    number integer NOT NULL,
    paused boolean NOT NULL,
    max_running integer,
    updated_at timestamp with time zone NOT NULL
);

CREATE SEQUENCE ledger.newest_time
    START WITH 0
    INCREMENT BY 1
    MINVALUE 0
    NO MAXVALUE
    CACHE 1;

CREATE TABLE ledger.payload_read (
    project_id text NOT NULL,
    read_at timestamp with time zone NOT NULL,
    run_id uuid NOT NULL,
    credential character varying(200) NOT NULL,
    route character varying(200) NOT NULL
);
ALTER TABLE ONLY ledger.payload_read ALTER COLUMN credential SET STATISTICS 0;
ALTER TABLE ONLY ledger.payload_read ALTER COLUMN route SET STATISTICS 0;

CREATE TABLE ledger.project (
    project_id text NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    channel text DEFAULT ('runfold_'::text || replace((gen_random_uuid())::text, '-'::text, ''::text)) NOT NULL,
    CONSTRAINT project_project_id_check CHECK ((project_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'::text))
);
ALTER TABLE ONLY ledger.project ALTER COLUMN channel SET STATISTICS 0;

CREATE TABLE ledger.projection (
    name text NOT NULL,
    version integer NOT NULL,
    digest text NOT NULL,
    generation integer NOT NULL,
    snapshot text NOT NULL,
    target text,
    "position" bigint NOT NULL,
    events bigint DEFAULT 0 NOT NULL,
    created_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    moved_at timestamp with time zone,
    paused_at timestamp with time zone,
    failed_at timestamp with time zone,
    error text,
    error_project_id text,
    error_run_id uuid,
    error_version integer,
    error_position bigint,
    CONSTRAINT projection_events_check CHECK (((events >= 0) AND (events <= '1000000000000000'::bigint)))
)
WITH (fillfactor='50');
ALTER TABLE ONLY ledger.projection ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection ALTER COLUMN digest SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection ALTER COLUMN snapshot SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection ALTER COLUMN target SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection ALTER COLUMN error SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection ALTER COLUMN error_project_id SET STATISTICS 0;

CREATE TABLE ledger.projection_aside (
    relation text NOT NULL,
    name text NOT NULL,
    project_id text NOT NULL,
    run_id uuid NOT NULL,
    first_position bigint NOT NULL,
    last_position bigint NOT NULL,
    events bigint DEFAULT 0 NOT NULL,
    event_version integer,
    error text,
    set_aside_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    retry_at timestamp with time zone,
    CONSTRAINT projection_aside_events_check CHECK (((events >= 0) AND (events <= '1000000000000000'::bigint)))
);
ALTER TABLE ONLY ledger.projection_aside ALTER COLUMN relation SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection_aside ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection_aside ALTER COLUMN error SET STATISTICS 0;

CREATE TABLE ledger.projection_skip (
    name text NOT NULL,
    version integer NOT NULL,
    "position" bigint NOT NULL,
    project_id text NOT NULL,
    run_id uuid NOT NULL,
    event_version integer NOT NULL,
    error text NOT NULL,
    actor text NOT NULL,
    reason text NOT NULL,
    skipped_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL
);
ALTER TABLE ONLY ledger.projection_skip ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection_skip ALTER COLUMN error SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection_skip ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.projection_skip ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.rebuild (
    rebuild_id integer NOT NULL,
    projection text NOT NULL,
    project_id text,
    until timestamp with time zone,
    definition text NOT NULL,
    moment text,
    started_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    finished_at timestamp with time zone
);
ALTER TABLE ONLY ledger.rebuild ALTER COLUMN projection SET STATISTICS 0;
ALTER TABLE ONLY ledger.rebuild ALTER COLUMN definition SET STATISTICS 0;
ALTER TABLE ONLY ledger.rebuild ALTER COLUMN moment SET STATISTICS 0;

CREATE TABLE ledger.rebuild_range (
    rebuild_id integer NOT NULL,
    first uuid NOT NULL,
    last uuid NOT NULL,
    row_count bigint,
    event_count bigint,
    error text,
    done_at timestamp with time zone
);
ALTER TABLE ONLY ledger.rebuild_range ALTER COLUMN error SET STATISTICS 0;

ALTER TABLE ledger.rebuild ALTER COLUMN rebuild_id ADD GENERATED ALWAYS AS IDENTITY (
    SEQUENCE NAME ledger.rebuild_rebuild_id_seq
    START WITH 1
    INCREMENT BY 1
    NO MINVALUE
    NO MAXVALUE
    CACHE 1
);

CREATE TABLE ledger.role_event (
    project_id text NOT NULL,
    number bigint NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    type text NOT NULL,
    role character varying(200) NOT NULL,
    member character varying(200) NOT NULL,
    actor character varying(200) NOT NULL,
    reason text,
    CONSTRAINT role_event_type_check CHECK ((type = ANY (ARRAY['role.granted'::text, 'role.revoked'::text])))
);
ALTER TABLE ONLY ledger.role_event ALTER COLUMN role SET STATISTICS 0;
ALTER TABLE ONLY ledger.role_event ALTER COLUMN member SET STATISTICS 0;
ALTER TABLE ONLY ledger.role_event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.role_event ALTER COLUMN reason SET STATISTICS 0;

CREATE VIEW ledger.role_member WITH (security_invoker='true') AS
 SELECT project_id,
    role,
    member,
    recorded_at,
    actor,
    reason
   FROM ( SELECT DISTINCT ON (change.project_id, change.role, change.member) change.project_id,
            change.number,
            change.recorded_at,
            change.type,
            change.role,
            change.member,
            change.actor,
            change.reason
           FROM ledger.role_event change
          ORDER BY change.project_id, change.role, change.member, change.number DESC) newest
  WHERE (type = 'role.granted'::text);

CREATE TABLE ledger.run_tag (
    project_id text NOT NULL,
    tag text NOT NULL,
    kind character varying(200) NOT NULL,
    run_id uuid NOT NULL
);

CREATE TABLE ledger.saved_view (
    project_id text NOT NULL,
    name character varying(200) NOT NULL,
    query character varying(1000) NOT NULL,
    actor character varying(200) NOT NULL
);
ALTER TABLE ONLY ledger.saved_view ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.saved_view ALTER COLUMN query SET STATISTICS 0;
ALTER TABLE ONLY ledger.saved_view ALTER COLUMN actor SET STATISTICS 0;

CREATE TABLE ledger.schedule (
    project_id text NOT NULL,
    name character varying(200) NOT NULL,
    kind character varying(200) NOT NULL,
    input text,
    cron character varying(200) NOT NULL,
    timezone character varying(200) NOT NULL,
    next_at timestamp with time zone NOT NULL,
    last_due timestamp with time zone,
    actor character varying(200) NOT NULL,
    updated_at timestamp with time zone DEFAULT clock_timestamp() NOT NULL,
    release timestamp with time zone,
    paused boolean DEFAULT false NOT NULL,
    reason character varying(2000)
);
ALTER TABLE ONLY ledger.schedule ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.schedule ALTER COLUMN input SET STATISTICS 0;
ALTER TABLE ONLY ledger.schedule ALTER COLUMN cron SET STATISTICS 0;
ALTER TABLE ONLY ledger.schedule ALTER COLUMN timezone SET STATISTICS 0;
ALTER TABLE ONLY ledger.schedule ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.schedule ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.snooze (
    project_id text NOT NULL,
    actor character varying(200) NOT NULL,
    run_id uuid NOT NULL,
    version integer NOT NULL,
    seen integer NOT NULL,
    until timestamp with time zone NOT NULL
);
ALTER TABLE ONLY ledger.snooze ALTER COLUMN actor SET STATISTICS 0;

CREATE TABLE ledger.user_account (
    name character varying(100) NOT NULL,
    issuer character varying(500),
    subject character varying(255),
    created_at timestamp with time zone NOT NULL,
    changed_at timestamp with time zone NOT NULL,
    disabled_at timestamp with time zone,
    actor character varying(200) NOT NULL,
    reason text,
    CONSTRAINT user_account_check CHECK (((issuer IS NULL) = (subject IS NULL))),
    CONSTRAINT user_account_name_check CHECK (((name)::text ~ '^[a-z0-9][a-z0-9._@-]*$'::text))
);
ALTER TABLE ONLY ledger.user_account ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.user_account ALTER COLUMN issuer SET STATISTICS 0;
ALTER TABLE ONLY ledger.user_account ALTER COLUMN subject SET STATISTICS 0;
ALTER TABLE ONLY ledger.user_account ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.user_account ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.user_password (
    name character varying(100) NOT NULL,
    method character varying(60) NOT NULL,
    salt bytea NOT NULL,
    key_sha256 bytea NOT NULL
);

CREATE TABLE ledger.view_event (
    project_id text NOT NULL,
    name character varying(200) NOT NULL,
    number integer NOT NULL,
    recorded_at timestamp with time zone NOT NULL,
    query character varying(1000),
    actor character varying(200) NOT NULL,
    credential character varying(200) NOT NULL
);
ALTER TABLE ONLY ledger.view_event ALTER COLUMN name SET STATISTICS 0;
ALTER TABLE ONLY ledger.view_event ALTER COLUMN query SET STATISTICS 0;
ALTER TABLE ONLY ledger.view_event ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.view_event ALTER COLUMN credential SET STATISTICS 0;

CREATE TABLE ledger.web_session (
    session_id character varying(40) NOT NULL,
    sha256 bytea NOT NULL,
    credential character varying(200) NOT NULL,
    created_at timestamp with time zone NOT NULL,
    expires_at timestamp with time zone NOT NULL,
    last_used_at timestamp with time zone NOT NULL,
    ended_at timestamp with time zone,
    user_changed_at timestamp with time zone
);
ALTER TABLE ONLY ledger.web_session ALTER COLUMN session_id SET STATISTICS 0;
ALTER TABLE ONLY ledger.web_session ALTER COLUMN credential SET STATISTICS 0;

CREATE TABLE ledger.webhook (
    project_id text NOT NULL,
    webhook_id character varying(40) NOT NULL,
    url character varying(2000) NOT NULL,
    events text[] NOT NULL,
    kinds text[] NOT NULL,
    is_paused boolean DEFAULT false NOT NULL,
    checkpoint text NOT NULL,
    actor character varying(200) NOT NULL,
    reason text
);
ALTER TABLE ONLY ledger.webhook ALTER COLUMN webhook_id SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN url SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN events SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN kinds SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN checkpoint SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN actor SET STATISTICS 0;
ALTER TABLE ONLY ledger.webhook ALTER COLUMN reason SET STATISTICS 0;

CREATE TABLE ledger.webhook_secret (
    webhook_id character varying(40) NOT NULL,
    secret bytea NOT NULL,
    CONSTRAINT webhook_secret_secret_check CHECK (((octet_length(secret) >= 24) AND (octet_length(secret) <= 64)))
);

ALTER TABLE ONLY ledger.access_grant
    ADD CONSTRAINT access_grant_pkey PRIMARY KEY (credential, project_id);

ALTER TABLE ONLY ledger.alembic_version
    ADD CONSTRAINT alembic_version_pkc PRIMARY KEY (version_num);

ALTER TABLE ONLY ledger.api_token
    ADD CONSTRAINT api_token_pkey PRIMARY KEY (token_id);

ALTER TABLE ONLY ledger.api_token
    ADD CONSTRAINT api_token_sha256_key UNIQUE (sha256);

ALTER TABLE ONLY ledger.archive_event
    ADD CONSTRAINT archive_event_pkey PRIMARY KEY (project_id, number);

ALTER TABLE ONLY ledger.at_work
    ADD CONSTRAINT at_work_pkey PRIMARY KEY (key);

ALTER TABLE ONLY ledger.command
    ADD CONSTRAINT command_pkey PRIMARY KEY (project_id, key);

ALTER TABLE ONLY ledger.control_event
    ADD CONSTRAINT control_event_pkey PRIMARY KEY (project_id, number);

ALTER TABLE ONLY ledger.control_head
    ADD CONSTRAINT control_head_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY ledger.credential_use
    ADD CONSTRAINT credential_use_pkey PRIMARY KEY (credential, login);

ALTER TABLE ONLY ledger.delivery_attempt
    ADD CONSTRAINT delivery_attempt_pkey PRIMARY KEY (webhook_id, run_id, version, attempt);

ALTER TABLE ONLY ledger.delivery
    ADD CONSTRAINT delivery_pkey PRIMARY KEY (webhook_id, run_id, version);

ALTER TABLE ONLY ledger.event
    ADD CONSTRAINT event_pkey PRIMARY KEY (project_id, run_id, version);

ALTER TABLE ONLY ledger.feed_generation
    ADD CONSTRAINT feed_generation_pkey PRIMARY KEY (generation);

ALTER TABLE ONLY ledger.kind_event
    ADD CONSTRAINT kind_event_pkey PRIMARY KEY (project_id, kind, number);

ALTER TABLE ONLY ledger.kind
    ADD CONSTRAINT kind_pkey PRIMARY KEY (project_id, kind, run_id);

ALTER TABLE ONLY ledger.kind_state
    ADD CONSTRAINT kind_state_pkey PRIMARY KEY (project_id, kind);

ALTER TABLE ONLY ledger.low_water
    ADD CONSTRAINT low_water_pkey PRIMARY KEY (project_id, kind, number);

ALTER TABLE ONLY ledger.payload
    ADD CONSTRAINT payload_pkey PRIMARY KEY (project_id, run_id, version);

ALTER TABLE ONLY ledger.payload_read
    ADD CONSTRAINT payload_read_pkey PRIMARY KEY (project_id, read_at, run_id, credential, route);

ALTER TABLE ONLY ledger.project
    ADD CONSTRAINT project_pkey PRIMARY KEY (project_id);

ALTER TABLE ONLY ledger.projection_aside
    ADD CONSTRAINT projection_aside_pkey PRIMARY KEY (relation, project_id, run_id);

ALTER TABLE ONLY ledger.projection
    ADD CONSTRAINT projection_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ledger.projection_skip
    ADD CONSTRAINT projection_skip_pkey PRIMARY KEY (name, version, "position");

ALTER TABLE ONLY ledger.rebuild
    ADD CONSTRAINT rebuild_pkey PRIMARY KEY (rebuild_id);

ALTER TABLE ONLY ledger.rebuild_range
    ADD CONSTRAINT rebuild_range_pkey PRIMARY KEY (rebuild_id, first);

ALTER TABLE ONLY ledger.role_event
    ADD CONSTRAINT role_event_pkey PRIMARY KEY (project_id, number);

ALTER TABLE ONLY ledger.run_state
    ADD CONSTRAINT run_state_pkey PRIMARY KEY (project_id, run_id);

ALTER TABLE ONLY ledger.run_tag
    ADD CONSTRAINT run_tag_pkey PRIMARY KEY (project_id, tag, kind, run_id);

ALTER TABLE ONLY ledger.saved_view
    ADD CONSTRAINT saved_view_pkey PRIMARY KEY (project_id, name);

ALTER TABLE ONLY ledger.schedule
    ADD CONSTRAINT schedule_pkey PRIMARY KEY (project_id, name);

ALTER TABLE ONLY ledger.snooze
    ADD CONSTRAINT snooze_pkey PRIMARY KEY (project_id, actor, run_id);

ALTER TABLE ONLY ledger.user_account
    ADD CONSTRAINT user_account_issuer_subject_key UNIQUE (issuer, subject);

ALTER TABLE ONLY ledger.user_account
    ADD CONSTRAINT user_account_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ledger.user_password
    ADD CONSTRAINT user_password_pkey PRIMARY KEY (name);

ALTER TABLE ONLY ledger.view_event
    ADD CONSTRAINT view_event_pkey PRIMARY KEY (project_id, name, number);

ALTER TABLE ONLY ledger.web_session
    ADD CONSTRAINT web_session_pkey PRIMARY KEY (session_id);

ALTER TABLE ONLY ledger.web_session
    ADD CONSTRAINT web_session_sha256_key UNIQUE (sha256);

ALTER TABLE ONLY ledger.webhook
    ADD CONSTRAINT webhook_pkey PRIMARY KEY (webhook_id);

ALTER TABLE ONLY ledger.webhook_secret
    ADD CONSTRAINT webhook_secret_pkey PRIMARY KEY (webhook_id);

CREATE INDEX access_grant_project ON ledger.access_grant USING btree (project_id, credential) WHERE (cardinality(rights) > 0);

CREATE INDEX api_token_created ON ledger.api_token USING btree (created_at, token_id);

CREATE INDEX archive_event_month ON ledger.archive_event USING btree (month, number);

CREATE INDEX archive_event_standing ON ledger.archive_event USING btree (month, number DESC) WHERE (type = ANY (ARRAY['archive.exported'::text, 'archive.detached'::text, 'archive.attached'::text]));

CREATE INDEX control_event_subject ON ledger.control_event USING btree (subject, number);

CREATE INDEX delivery_due ON ledger.delivery USING btree (webhook_id, next_at) WHERE ((next_at IS NOT NULL) AND (NOT follows));

CREATE INDEX delivery_newest ON ledger.delivery USING btree (webhook_id, created_at);

CREATE INDEX delivery_open ON ledger.delivery USING btree (webhook_id, run_id, version) WHERE (next_at IS NOT NULL);

CREATE INDEX event_feed ON ONLY ledger.event USING btree (txid, "position");

CREATE INDEX event_refused ON ONLY ledger.event USING btree (project_id, run_id, token, name) WHERE ((type)::text = 'write.refused'::text);

CREATE INDEX payload_read_run ON ledger.payload_read USING btree (project_id, run_id, read_at);

CREATE INDEX projection_aside_error ON ledger.projection_aside USING btree (relation, project_id) WHERE (error IS NOT NULL);

CREATE INDEX projection_aside_first ON ledger.projection_aside USING btree (relation, ((error IS NULL)), set_aside_at, run_id);

CREATE INDEX projection_aside_retry ON ledger.projection_aside USING btree (relation, retry_at) WHERE (retry_at IS NOT NULL);

CREATE INDEX rebuild_unfinished ON ledger.rebuild USING btree (projection, rebuild_id) WHERE (finished_at IS NULL);

CREATE INDEX role_event_member ON ledger.role_event USING btree (project_id, role, member, number DESC);

CREATE INDEX role_event_role ON ledger.role_event USING btree (project_id, member, role, number DESC);

CREATE INDEX run_claimable ON ledger.run_state USING btree (project_id, kind, priority, run_id) WHERE (available_at <= created_at);

CREATE INDEX run_due ON ledger.run_state USING btree (project_id, kind, LEAST(deadline, wait_until)) WHERE ((completed_at IS NULL) AND (num_nonnulls(deadline, wait_until) > 0));

CREATE INDEX run_leased ON ledger.run_state USING btree (project_id, kind, moved_position) WHERE (token IS NOT NULL);

CREATE INDEX run_other ON ledger.run_state USING btree (project_id, kind, state, run_id) WHERE ((token IS NULL) AND ((available_at <= created_at) IS NOT TRUE));

CREATE INDEX run_parked ON ledger.run_state USING btree (project_id, kind, ((cancel_requested_at IS NOT NULL)), moved_position) WHERE ((token IS NULL) AND (completed_at IS NULL) AND ((cancel_requested_at IS NOT NULL) OR ((state = 'waiting_tool'::text) AND (available_at IS NULL))));

CREATE INDEX run_returning ON ledger.run_state USING btree (project_id, kind, priority, available_at, run_id) WHERE (available_at > created_at);

CREATE INDEX schedule_due ON ledger.schedule USING btree (project_id, next_at) WHERE (NOT paused);

CREATE INDEX web_session_credential ON ledger.web_session USING btree (credential, created_at);

CREATE INDEX web_session_open ON ledger.web_session USING btree (expires_at) WHERE (ended_at IS NULL);

CREATE INDEX webhook_project ON ledger.webhook USING btree (project_id);

CREATE TRIGGER fold_kind_state AFTER INSERT ON ledger.kind_event REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.fold_kind_state();

ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER fold_kind_state;

CREATE TRIGGER fold_run_state AFTER INSERT ON ledger.event REFERENCING NEW TABLE AS new_events FOR EACH STATEMENT WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.fold_run_state();

ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER fold_run_state;

CREATE TRIGGER keep_control_head BEFORE INSERT OR DELETE OR UPDATE ON ledger.control_head FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.keep_control_head();

ALTER TABLE ledger.control_head ENABLE ALWAYS TRIGGER keep_control_head;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.access_grant FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('access', 'project_id credential', '');

ALTER TABLE ledger.access_grant ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.api_token FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('token', 'token_id', '');

ALTER TABLE ledger.api_token ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.archive_event FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('archive', 'project_id number', '');

ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.feed_generation FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('generation', 'generation', '');

ALTER TABLE ledger.feed_generation ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.kind_event FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('kind', 'project_id kind number', '');

ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.project FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('project', 'project_id', 'channel');

ALTER TABLE ledger.project ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.role_event FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('role', 'project_id number', '');

ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.schedule FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('schedule', 'project_id name', 'next_at last_due updated_at');

ALTER TABLE ledger.schedule ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.user_account FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('user', 'name', '');

ALTER TABLE ledger.user_account ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER record_control AFTER INSERT OR DELETE OR UPDATE ON ledger.webhook FOR EACH ROW WHEN (((current_setting('session_replication_role'::text) <> 'replica'::text) OR (NOT ledger.is_replicated()))) EXECUTE FUNCTION ledger.record_control('webhook', 'webhook_id', 'checkpoint');

ALTER TABLE ledger.webhook ENABLE ALWAYS TRIGGER record_control;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.archive_event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.control_event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.control_event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.kind_event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.payload FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.payload_read FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.payload_read ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.role_event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_change BEFORE DELETE OR UPDATE ON ledger.view_event FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.view_event ENABLE ALWAYS TRIGGER refuse_change;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.archive_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.archive_event ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.control_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.control_event ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.control_head FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.control_head ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.event ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.kind_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.kind_event ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.payload FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.payload_read FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.payload_read ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.role_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER refuse_truncate;

CREATE TRIGGER refuse_truncate BEFORE TRUNCATE ON ledger.view_event FOR EACH STATEMENT EXECUTE FUNCTION ledger.refuse_change();

ALTER TABLE ledger.view_event ENABLE ALWAYS TRIGGER refuse_truncate;

ALTER TABLE ONLY ledger.delivery_attempt
    ADD CONSTRAINT delivery_attempt_webhook_id_run_id_version_fkey FOREIGN KEY (webhook_id, run_id, version) REFERENCES ledger.delivery(webhook_id, run_id, version) ON DELETE CASCADE;

ALTER TABLE ONLY ledger.delivery
    ADD CONSTRAINT delivery_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES ledger.webhook(webhook_id) ON DELETE CASCADE;

ALTER TABLE ONLY ledger.kind_event
    ADD CONSTRAINT kind_event_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.role_event
    ADD CONSTRAINT role_event_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.saved_view
    ADD CONSTRAINT saved_view_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.schedule
    ADD CONSTRAINT schedule_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.snooze
    ADD CONSTRAINT snooze_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.user_password
    ADD CONSTRAINT user_password_name_fkey FOREIGN KEY (name) REFERENCES ledger.user_account(name);

ALTER TABLE ONLY ledger.webhook
    ADD CONSTRAINT webhook_project_id_fkey FOREIGN KEY (project_id) REFERENCES ledger.project(project_id);

ALTER TABLE ONLY ledger.webhook_secret
    ADD CONSTRAINT webhook_secret_webhook_id_fkey FOREIGN KEY (webhook_id) REFERENCES ledger.webhook(webhook_id) ON DELETE CASCADE;

ALTER TABLE ledger.access_grant ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.api_token ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.archive_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.command ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.control_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.control_head ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.credential_use ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.delivery ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.delivery_attempt ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.event ENABLE ROW LEVEL SECURITY;

CREATE POLICY kept ON ledger.projection TO runfold_projector USING ((( SELECT (ledger.projects_with(VARIADIC '{read}'::text[]) IS NULL)) AND (current_setting('transaction_isolation'::text) = 'read committed'::text)));

COMMENT ON POLICY kept ON ledger.projection IS '(( SELECT (ledger.projects_with(VARIADIC ''{read}''::text[]) IS NULL)) AND (current_setting(''transaction_isolation''::text) = ''read committed''::text)) from 14adb163a10e2b67e89b68386dd4fef7';

CREATE POLICY kept ON ledger.projection_aside TO runfold_projector USING ((( SELECT (ledger.projects_with(VARIADIC '{read}'::text[]) IS NULL)) AND (current_setting('transaction_isolation'::text) = 'read committed'::text)));

COMMENT ON POLICY kept ON ledger.projection_aside IS '(( SELECT (ledger.projects_with(VARIADIC ''{read}''::text[]) IS NULL)) AND (current_setting(''transaction_isolation''::text) = ''read committed''::text)) from 14adb163a10e2b67e89b68386dd4fef7';

CREATE POLICY kept ON ledger.projection_skip TO runfold_projector USING ((( SELECT (ledger.projects_with(VARIADIC '{read}'::text[]) IS NULL)) AND (current_setting('transaction_isolation'::text) = 'read committed'::text)));

COMMENT ON POLICY kept ON ledger.projection_skip IS '(( SELECT (ledger.projects_with(VARIADIC ''{read}''::text[]) IS NULL)) AND (current_setting(''transaction_isolation''::text) = ''read committed''::text)) from 14adb163a10e2b67e89b68386dd4fef7';

CREATE POLICY kept ON ledger.rebuild TO runfold_projector USING ((( SELECT (ledger.projects_with(VARIADIC '{read}'::text[]) IS NULL)) AND (current_setting('transaction_isolation'::text) = 'read committed'::text)));

COMMENT ON POLICY kept ON ledger.rebuild IS '(( SELECT (ledger.projects_with(VARIADIC ''{read}''::text[]) IS NULL)) AND (current_setting(''transaction_isolation''::text) = ''read committed''::text)) from 14adb163a10e2b67e89b68386dd4fef7';

CREATE POLICY kept ON ledger.rebuild_range TO runfold_projector USING ((( SELECT (ledger.projects_with(VARIADIC '{read}'::text[]) IS NULL)) AND (current_setting('transaction_isolation'::text) = 'read committed'::text)));

COMMENT ON POLICY kept ON ledger.rebuild_range IS '(( SELECT (ledger.projects_with(VARIADIC ''{read}''::text[]) IS NULL)) AND (current_setting(''transaction_isolation''::text) = ''read committed''::text)) from 14adb163a10e2b67e89b68386dd4fef7';

ALTER TABLE ledger.kind ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.kind_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.kind_state ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.low_water ENABLE ROW LEVEL SECURITY;

CREATE POLICY own ON ledger.access_grant FOR SELECT USING (((credential)::text = ( SELECT ledger.credential() AS credential)));

COMMENT ON POLICY own ON ledger.access_grant IS '((credential)::text = ( SELECT ledger.credential() AS credential)) from 1561d50e576a5e3097bfcbac814cef1e';

ALTER TABLE ledger.payload ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.payload_read ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.project ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.projection ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.projection_aside ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.projection_skip ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.rebuild ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.rebuild_range ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.role_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.run_state ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.run_tag ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.saved_view ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.schedule ENABLE ROW LEVEL SECURITY;

CREATE POLICY seen ON ledger.access_grant FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit,admin}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.access_grant IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit,admin}''::text[]) AS projects_seen)::text[])) from f78d2152cc2d7e18a23aa974667d24f5';

CREATE POLICY seen ON ledger.api_token FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{audit,admin}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.api_token IS '( SELECT (ledger.projects_with(VARIADIC ''{audit,admin}''::text[]) IS NULL)) from 5ae15cc5ecd6178d618f6782f637fcf5';

CREATE POLICY seen ON ledger.archive_event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.archive_event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.command FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,submit,decide,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.command IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,submit,decide,audit}''::text[]) AS projects_seen)::text[])) from d68583251c694695570dc4dead5de2b5';

CREATE POLICY seen ON ledger.control_event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.control_event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit}''::text[]) AS projects_seen)::text[])) from 69f6713db68458b1ca531bd21e0642f0';

CREATE POLICY seen ON ledger.control_head FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.control_head IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit}''::text[]) AS projects_seen)::text[])) from 69f6713db68458b1ca531bd21e0642f0';

CREATE POLICY seen ON ledger.credential_use FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{audit,admin}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.credential_use IS '( SELECT (ledger.projects_with(VARIADIC ''{audit,admin}''::text[]) IS NULL)) from 5ae15cc5ecd6178d618f6782f637fcf5';

CREATE POLICY seen ON ledger.delivery FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit,admin}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.delivery IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit,admin}''::text[]) AS projects_seen)::text[])) from f78d2152cc2d7e18a23aa974667d24f5';

CREATE POLICY seen ON ledger.delivery_attempt FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit,admin}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.delivery_attempt IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit,admin}''::text[]) AS projects_seen)::text[])) from f78d2152cc2d7e18a23aa974667d24f5';

CREATE POLICY seen ON ledger.event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,audit}''::text[]) AS projects_seen)::text[])) from 96be1ee022a818e336c00d8d188978b3';

CREATE POLICY seen ON ledger.kind FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,submit,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.kind IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,submit,audit}''::text[]) AS projects_seen)::text[])) from 0317e447be20100f555196d0bde7e660';

CREATE POLICY seen ON ledger.kind_event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.kind_event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.kind_state FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,submit,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.kind_state IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,submit,audit}''::text[]) AS projects_seen)::text[])) from 0317e447be20100f555196d0bde7e660';

CREATE POLICY seen ON ledger.low_water FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.low_water IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit}''::text[]) AS projects_seen)::text[])) from 69f6713db68458b1ca531bd21e0642f0';

CREATE POLICY seen ON ledger.payload FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.payload IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.payload_read FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.payload_read IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit}''::text[]) AS projects_seen)::text[])) from 69f6713db68458b1ca531bd21e0642f0';

CREATE POLICY seen ON ledger.project FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.project IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{}''::text[]) AS projects_seen)::text[])) from beec5b9345f35c4094a79e538007d114';

CREATE POLICY seen ON ledger.projection FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{read,audit}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.projection IS '( SELECT (ledger.projects_with(VARIADIC ''{read,audit}''::text[]) IS NULL)) from 2e303c116c2f5e5f9c6827745fc9d883';

CREATE POLICY seen ON ledger.projection_aside FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.projection_aside IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.projection_skip FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.projection_skip IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.rebuild FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{read,audit}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.rebuild IS '( SELECT (ledger.projects_with(VARIADIC ''{read,audit}''::text[]) IS NULL)) from 2e303c116c2f5e5f9c6827745fc9d883';

CREATE POLICY seen ON ledger.rebuild_range FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{read,audit}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.rebuild_range IS '( SELECT (ledger.projects_with(VARIADIC ''{read,audit}''::text[]) IS NULL)) from 2e303c116c2f5e5f9c6827745fc9d883';

CREATE POLICY seen ON ledger.role_event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,decide,audit,admin}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.role_event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,decide,audit,admin}''::text[]) AS projects_seen)::text[])) from da78d4bf5c1d5c7e4c59b135768e1f25';

CREATE POLICY seen ON ledger.run_state FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.run_state IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,audit}''::text[]) AS projects_seen)::text[])) from 96be1ee022a818e336c00d8d188978b3';

CREATE POLICY seen ON ledger.run_tag FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,work,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.run_tag IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,work,audit}''::text[]) AS projects_seen)::text[])) from 96be1ee022a818e336c00d8d188978b3';

CREATE POLICY seen ON ledger.saved_view FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.saved_view IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.schedule FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,schedule,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.schedule IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,schedule,audit}''::text[]) AS projects_seen)::text[])) from 60a7658db3c150e364ded0e0ba2894f6';

CREATE POLICY seen ON ledger.snooze FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{read,audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.snooze IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{read,audit}''::text[]) AS projects_seen)::text[])) from af454bdb08429d8404d1574746d0c38f';

CREATE POLICY seen ON ledger.user_account FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{audit,admin}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.user_account IS '( SELECT (ledger.projects_with(VARIADIC ''{audit,admin}''::text[]) IS NULL)) from 5ae15cc5ecd6178d618f6782f637fcf5';

CREATE POLICY seen ON ledger.view_event FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.view_event IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit}''::text[]) AS projects_seen)::text[])) from 69f6713db68458b1ca531bd21e0642f0';

CREATE POLICY seen ON ledger.web_session FOR SELECT USING (( SELECT (ledger.projects_with(VARIADIC '{audit,admin}'::text[]) IS NULL)));

COMMENT ON POLICY seen ON ledger.web_session IS '( SELECT (ledger.projects_with(VARIADIC ''{audit,admin}''::text[]) IS NULL)) from 5ae15cc5ecd6178d618f6782f637fcf5';

CREATE POLICY seen ON ledger.webhook FOR SELECT USING ((project_id = ANY (( SELECT ledger.projects_seen(VARIADIC '{audit,admin}'::text[]) AS projects_seen)::text[])));

COMMENT ON POLICY seen ON ledger.webhook IS '(project_id = ANY (( SELECT ledger.projects_seen(VARIADIC ''{audit,admin}''::text[]) AS projects_seen)::text[])) from f78d2152cc2d7e18a23aa974667d24f5';

ALTER TABLE ledger.snooze ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.user_account ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.view_event ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.web_session ENABLE ROW LEVEL SECURITY;

ALTER TABLE ledger.webhook ENABLE ROW LEVEL SECURITY;

GRANT USAGE ON SCHEMA ledger TO runfold_worker;
GRANT USAGE ON SCHEMA ledger TO runfold_reader;
GRANT USAGE ON SCHEMA ledger TO runfold_projector;
GRANT USAGE ON SCHEMA ledger TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.add_low_marks(p_project text, p_kinds text[], p_returning boolean, INOUT mark_kinds text[], INOUT mark_priorities integer[], INOUT mark_runs uuid[], INOUT mark_dues timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.advance_schedule(p_project text, p_name text, p_updated_at timestamp with time zone, p_seen timestamp with time zone, p_next_at timestamp with time zone, p_last_due timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.advance_schedule(p_project text, p_name text, p_updated_at timestamp with time zone, p_seen timestamp with time zone, p_next_at timestamp with time zone, p_last_due timestamp with time zone) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.append(p_project text, p_actor text, p_runs uuid[], p_tokens integer[], p_types text[], p_schema_versions integer[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_expected integer[], p_keys text[], p_workers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.append(p_project text, p_actor text, p_runs uuid[], p_tokens integer[], p_types text[], p_schema_versions integer[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_expected integer[], p_keys text[], p_workers text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.append_control(p_list text, p_type text, p_subject text, p_facts text, p_actor text, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.attach_partition(p_month timestamp without time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.await_kinds(p_project text, p_kinds text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.await_turn(p_turn bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.begin_session(p_credential text, p_sha256 bytea, p_user_changed_at timestamp with time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.begin_work(p_name text, p_shared boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.begin_work(p_name text, p_shared boolean) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.cancel(p_project text, p_actor text, p_runs uuid[], p_body text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.cancel(p_project text, p_actor text, p_runs uuid[], p_body text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.cancels(p_project text, p_kind text, p_after bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.change_access(p_project text, p_actor text, p_credential text, p_rights text[], p_actors text[], p_until timestamp with time zone, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_access(p_project text, p_actor text, p_credential text, p_rights text[], p_actors text[], p_until timestamp with time zone, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_connect(p_credential text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.change_kind(p_project text, p_actor text, p_kind text, p_type text, p_max_running integer, p_reason text, p_ahead boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_kind(p_project text, p_actor text, p_kind text, p_type text, p_max_running integer, p_reason text, p_ahead boolean) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_role(p_project text, p_actor text, p_type text, p_role text, p_member text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_role(p_project text, p_actor text, p_type text, p_role text, p_member text, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_schedule(p_project text, p_actor text, p_name text, p_change text, p_next_at timestamp with time zone, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_schedule(p_project text, p_actor text, p_name text, p_change text, p_next_at timestamp with time zone, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_token(p_actor text, p_token text, p_sha256 bytea, p_name text, p_lifetime interval, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_token(p_actor text, p_token text, p_sha256 bytea, p_name text, p_lifetime interval, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_user(p_actor text, p_name text, p_change text, p_method text, p_salt bytea, p_key_sha256 bytea, p_issuer text, p_subject text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_user(p_actor text, p_name text, p_change text, p_method text, p_salt bytea, p_key_sha256 bytea, p_issuer text, p_subject text, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_view(p_project text, p_actor text, p_name text, p_query text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_view(p_project text, p_actor text, p_name text, p_query text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.change_webhook(p_project text, p_actor text, p_webhook text, p_action text, p_url text, p_events text[], p_kinds text[], p_secret bytea, p_from_now boolean, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.change_webhook(p_project text, p_actor text, p_webhook text, p_action text, p_url text, p_events text[], p_kinds text[], p_secret bytea, p_from_now boolean, p_reason text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.channel(p_project text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.channel(p_project text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.channel(p_project text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.channel(p_project text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.channel(p_project text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.check_access(p_project text, p_rights text[], p_actors text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_checkpoint(p_checkpoint text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_cluster() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.check_cluster() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.check_cluster() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.check_cluster() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.check_cluster() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.check_content(p_bodies text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_corrections(p_tokens integer[], p_costs numeric[], p_steps integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_costs(p_costs numeric[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_count(p_count integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_derived(p_expression text, p_columns text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_due_keys(p_project text, p_keys text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_given(p_name text, p_is_given boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_grants(p_project text, p_rights text[], p_actors text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_kind(p_project text, p_kind text, p_ahead boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_moment(p_generation integer, p_moment text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.check_moment(p_generation integer, p_moment text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.check_moment(p_generation integer, p_moment text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.check_moment(p_generation integer, p_moment text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.check_moment(p_generation integer, p_moment text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.check_months_read(p_generation integer, p_moment text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.check_months_read(p_generation integer, p_moment text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.check_months_read(p_generation integer, p_moment text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.check_months_read(p_generation integer, p_moment text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.check_months_read(p_generation integer, p_moment text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.check_my_access(p_project text, p_right text, p_actor text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.check_project(p_project text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_projection_name(p_what text, p_name text, p_pattern text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_request(p_body text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_snapshot() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_tags(p_tags text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_texts(p_values text[], p_limit integer, p_trimmed boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_times(p_times timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_types(p_types text[], p_versions integer[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.check_workers(p_tokens integer[], p_workers text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.claim(p_project text, p_worker text, p_kinds text[], p_limit integer, p_ttl interval, p_mark_kinds text[], p_mark_priorities integer[], p_mark_runs uuid[], p_mark_dues timestamp with time zone[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.claim(p_project text, p_worker text, p_kinds text[], p_limit integer, p_ttl interval, p_mark_kinds text[], p_mark_priorities integer[], p_mark_runs uuid[], p_mark_dues timestamp with time zone[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.claim_ranges(p_project text, p_kinds text[], p_returning boolean, p_limit integer, p_moment timestamp with time zone, p_limited text[], p_rooms integer[], p_mark_kinds text[], p_mark_priorities integer[], p_mark_runs uuid[], p_mark_dues timestamp with time zone[], OUT kinds text[], OUT priorities integer[], OUT belows integer[], OUT runs uuid[], OUT dues timestamp with time zone[], OUT quotas integer[], OUT counted integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.claim_rest(p_project text, p_limit integer, p_moment timestamp with time zone, p_limited text[], p_kinds text[], p_priorities integer[], p_belows integer[], p_runs uuid[], p_dues timestamp with time zone[], OUT kinds text[], OUT priorities integer[], OUT belows integer[], OUT runs uuid[], OUT dues timestamp with time zone[], OUT quotas integer[], OUT counted integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.claimable(p_project text, p_kind text, p_priority integer, p_below integer, p_run uuid, p_due timestamp with time zone, p_moment timestamp with time zone, p_most integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.clock() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.clock() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.clock() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.clock() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.clock() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.closings(p_project text, p_runs uuid[], p_tokens integer[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.closings(p_project text, p_runs uuid[], p_tokens integer[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.command_text(run_id uuid, what text, park boolean, name text, error_code text, body text, cost numeric, steps integer, output bytea, wait interval, wait_outcome text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.commands(p_project text, p_runs uuid[], p_whats text[], p_parks boolean[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_sha256s bytea[], p_waits interval[], p_wait_outcomes text[], p_keys text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.commands(p_project text, p_runs uuid[], p_whats text[], p_parks boolean[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_sha256s bytea[], p_waits interval[], p_wait_outcomes text[], p_keys text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.content_part(p_body json, p_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.content_part(p_body json, p_name text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.content_part(p_body json, p_name text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.content_part(p_body json, p_name text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.content_part(p_body json, p_name text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.content_problem(p_body text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.control_hash(previous bytea, number bigint, recorded_at timestamp with time zone, project_id text, credential text, type text, subject text, facts text, actor text, reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.control_hash(previous bytea, number bigint, recorded_at timestamp with time zone, project_id text, credential text, type text, subject text, facts text, actor text, reason text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.control_subject(p_noun text, p_keys text, p_row jsonb) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.credential() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.credential() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.credential() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.credential() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.credential() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.decide(p_project text, p_actor text, p_run uuid, p_type text, p_request integer, p_shown text, p_meaning text, p_body text, p_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.decide(p_project text, p_actor text, p_run uuid, p_type text, p_request integer, p_shown text, p_meaning text, p_body text, p_key text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.decider_problem(p_project text, p_run uuid, p_request integer, p_actor text, p_grants boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.decision_problem(p_project text, p_run uuid, p_actor text, p_request integer, p_shown text, p_grants boolean, p_moment timestamp with time zone, OUT why text, OUT detail text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.drop_projection_tables(p_name text, p_all boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.drop_projection_tables(p_name text, p_all boolean) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.drop_reads(p_project text, p_actor text, p_before timestamp with time zone, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.drop_schedule(p_project text, p_actor text, p_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.drop_schedule(p_project text, p_actor text, p_name text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.due_deliveries(p_project text, p_webhook text, p_limit integer, p_lease interval) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.due_deliveries(p_project text, p_webhook text, p_limit integer, p_lease interval) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.end_session(p_secret text, p_session text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.end_session(p_secret text, p_session text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.end_work(p_key bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.end_work(p_key bigint) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.ensure_months(p_first uuid, p_last uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer, state text, name text, kind text, priority integer, max_attempts integer, deadline timestamp with time zone, tags text[], attempt integer, worker_id text, token integer, lease_until timestamp with time zone, available_at timestamp with time zone, late_ms integer, wait_until timestamp with time zone, wait_outcome text, cost_usd numeric, step_count integer, error_code text, output_sha256 bytea, compensates integer, key text, payload_hash bytea, credential text, role text, other_person boolean, shown_sha256 text, request integer, meaning text, based_on integer, approvals integer, approved integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer, state text, name text, kind text, priority integer, max_attempts integer, deadline timestamp with time zone, tags text[], attempt integer, worker_id text, token integer, lease_until timestamp with time zone, available_at timestamp with time zone, late_ms integer, wait_until timestamp with time zone, wait_outcome text, cost_usd numeric, step_count integer, error_code text, output_sha256 bytea, compensates integer, key text, payload_hash bytea, credential text, role text, other_person boolean, shown_sha256 text, request integer, meaning text, based_on integer, approvals integer, approved integer) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer, state text, name text, kind text, priority integer, max_attempts integer, deadline timestamp with time zone, tags text[], attempt integer, worker_id text, token integer, lease_until timestamp with time zone, available_at timestamp with time zone, late_ms integer, wait_until timestamp with time zone, wait_outcome text, cost_usd numeric, step_count integer, error_code text, output_sha256 bytea, compensates integer, key text, payload_hash bytea, credential text, role text, other_person boolean, shown_sha256 text, request integer, meaning text, based_on integer, approvals integer, approved integer) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer, state text, name text, kind text, priority integer, max_attempts integer, deadline timestamp with time zone, tags text[], attempt integer, worker_id text, token integer, lease_until timestamp with time zone, available_at timestamp with time zone, late_ms integer, wait_until timestamp with time zone, wait_outcome text, cost_usd numeric, step_count integer, error_code text, output_sha256 bytea, compensates integer, key text, payload_hash bytea, credential text, role text, other_person boolean, shown_sha256 text, request integer, meaning text, based_on integer, approvals integer, approved integer) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.event_hash(previous bytea, project_id text, run_id uuid, version integer, recorded_at timestamp with time zone, type text, actor text, schema_version integer, state text, name text, kind text, priority integer, max_attempts integer, deadline timestamp with time zone, tags text[], attempt integer, worker_id text, token integer, lease_until timestamp with time zone, available_at timestamp with time zone, late_ms integer, wait_until timestamp with time zone, wait_outcome text, cost_usd numeric, step_count integer, error_code text, output_sha256 bytea, compensates integer, key text, payload_hash bytea, credential text, role text, other_person boolean, shown_sha256 text, request integer, meaning text, based_on integer, approvals integer, approved integer) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.exchange_projection_table(p_name text, p_version integer, p_rebuild integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.exchange_projection_table(p_name text, p_version integer, p_rebuild integer) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_cut(p_snapshot pg_snapshot, p_before xid8) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_moment(p_start text, p_snapshot pg_snapshot, p_position bigint) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_next(p_generation integer, p_moment text, p_limit integer) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_now() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_now() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_now() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_now() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_now() TO runfold_auditor;

GRANT SELECT ON SEQUENCE ledger.event_position TO runfold_worker;
GRANT SELECT ON SEQUENCE ledger.event_position TO runfold_reader;
GRANT SELECT ON SEQUENCE ledger.event_position TO runfold_projector;
GRANT SELECT ON SEQUENCE ledger.event_position TO runfold_auditor;

GRANT SELECT ON TABLE ledger.event TO runfold_worker;
GRANT SELECT ON TABLE ledger.event TO runfold_reader;
GRANT SELECT ON TABLE ledger.event TO runfold_projector;
GRANT SELECT ON TABLE ledger.event TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text, p_types text[], p_without text[], p_kinds text[], p_states text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text, p_types text[], p_without text[], p_kinds text[], p_states text[]) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text, p_types text[], p_without text[], p_kinds text[], p_states text[]) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text, p_types text[], p_without text[], p_kinds text[], p_states text[]) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_page(p_generation integer, p_moment text, p_target text, p_position bigint, p_limit integer, p_project text, p_types text[], p_without text[], p_kinds text[], p_states text[]) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.feed_passed(p_generation integer, p_moment text, p_of_generation integer, p_last_position bigint, p_last_txid xid8) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.feed_rebase() FROM PUBLIC;

GRANT SELECT ON TABLE ledger.run_state TO runfold_worker;
GRANT SELECT ON TABLE ledger.run_state TO runfold_reader;
GRANT SELECT ON TABLE ledger.run_state TO runfold_projector;
GRANT SELECT ON TABLE ledger.run_state TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.fold_events(p_events json) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.fold_events(p_events json) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.fold_events(p_events json) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.fold_events(p_events json) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.fold_events(p_events json) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.fold_kind_state() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.fold_run_state() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.forget_aside(p_relation text, p_project_id text, p_run_id uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.forget_aside(p_relation text, p_project_id text, p_run_id uuid) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.forget_deliveries(p_project text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.forget_deliveries(p_project text) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.has_right(p_project text, p_rights text[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.heartbeat(p_project text, p_runs uuid[], p_tokens integer[], p_ttls interval[], p_workers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.heartbeat(p_project text, p_runs uuid[], p_tokens integer[], p_ttls interval[], p_workers text[]) TO runfold_worker;

GRANT SELECT ON TABLE ledger.payload TO runfold_auditor;

GRANT SELECT(project_id) ON TABLE ledger.payload TO runfold_worker;
GRANT SELECT(project_id) ON TABLE ledger.payload TO runfold_reader;
GRANT SELECT(project_id) ON TABLE ledger.payload TO runfold_projector;

GRANT SELECT(run_id) ON TABLE ledger.payload TO runfold_worker;
GRANT SELECT(run_id) ON TABLE ledger.payload TO runfold_reader;
GRANT SELECT(run_id) ON TABLE ledger.payload TO runfold_projector;

GRANT SELECT(version) ON TABLE ledger.payload TO runfold_worker;
GRANT SELECT(version) ON TABLE ledger.payload TO runfold_reader;
GRANT SELECT(version) ON TABLE ledger.payload TO runfold_projector;

GRANT SELECT(body) ON TABLE ledger.payload TO runfold_worker;
GRANT SELECT(body) ON TABLE ledger.payload TO runfold_reader;
GRANT SELECT(body) ON TABLE ledger.payload TO runfold_projector;

GRANT SELECT ON TABLE ledger.entry TO runfold_worker;
GRANT SELECT ON TABLE ledger.entry TO runfold_reader;
GRANT SELECT ON TABLE ledger.entry TO runfold_projector;
GRANT SELECT ON TABLE ledger.entry TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.history(p_project text, p_run uuid, p_after integer, p_heartbeats boolean, p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.history(p_project text, p_run uuid, p_after integer, p_heartbeats boolean, p_limit integer) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.history(p_project text, p_run uuid, p_after integer, p_heartbeats boolean, p_limit integer) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.history(p_project text, p_run uuid, p_after integer, p_heartbeats boolean, p_limit integer) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.history(p_project text, p_run uuid, p_after integer, p_heartbeats boolean, p_limit integer) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.holders(p_relation regclass, p_project text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.is_owner() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.is_replicated() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.is_type(p_type text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.keep_control_head() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.keep_time() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.keep_time() TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.kind_rooms(p_project text, p_kinds text[], p_returning boolean, p_moment timestamp with time zone, OUT kinds text[], OUT has_returning boolean, OUT limited text[], OUT rooms integer[], OUT busy text[], OUT places integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.leases(p_project text, p_kind text, p_marked boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.legal(p_type text, p_from text, p_to text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.limit_login(p_project text, p_actor text, p_credential text, p_reason text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.lock_control(p_list text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.lock_row(p_relation regclass, p_column text, p_project text, p_key text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.lock_runs(p_project text, p_runs uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.login_limits() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.login_limits() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.login_limits() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.login_limits() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.login_limits() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.make_partitions(p_months_ahead integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.make_partitions(p_months_ahead integer) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.make_projection_table(p_table text, p_columns text[], p_types text[], p_required text[], p_key text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.make_projection_table(p_table text, p_columns text[], p_types text[], p_required text[], p_key text[]) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.marks_hold(p_project text, p_kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.move_low_water(p_project text, p_kinds text[], p_every interval, p_lag interval) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.newest_events(p_limit integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.newest_events(p_limit integer) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.newest_events(p_limit integer) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.newest_events(p_limit integer) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.newest_events(p_limit integer) TO runfold_auditor;

GRANT SELECT ON TABLE ledger.low_water TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.newest_mark(p_project text, p_kind text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.newest_request(p_project text, p_run uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.next_claim_marks(p_old ledger.low_water, p_moving integer[], p_late uuid[], p_run uuid, p_due timestamp with time zone, OUT priorities integer[], OUT runs uuid[], OUT back_priorities integer[], OUT dues timestamp with time zone[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.next_due(p_project text, p_after timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.next_due(p_project text, p_after timestamp with time zone) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.next_sweep_marks(p_old ledger.low_water, p_late uuid[], p_moment timestamp with time zone, OUT ends_from timestamp with time zone, OUT cancels_after bigint, OUT older_parked uuid[]) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.note_reads(p_project text, p_runs uuid[], p_route text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.note_rebuild(p_name text, p_step text, p_version integer, p_rebuild integer, p_wrong bigint, p_actor text, p_reason text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.note_rebuild(p_name text, p_step text, p_version integer, p_rebuild integer, p_wrong bigint, p_actor text, p_reason text) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.note_refusal(p_project text, p_actor text, p_run uuid, p_text text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.note_use(p_credential text, p_failed boolean, p_login text, p_try bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.note_verify(p_project text, p_actor text, p_began_at timestamp with time zone, p_runs bigint, p_events bigint, p_erased bigint, p_findings bigint, p_unchecked text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.note_verify(p_project text, p_actor text, p_began_at timestamp with time zone, p_runs bigint, p_events bigint, p_erased bigint, p_findings bigint, p_unchecked text[]) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.note_verify(p_project text, p_actor text, p_began_at timestamp with time zone, p_runs bigint, p_events bigint, p_erased bigint, p_findings bigint, p_unchecked text[]) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.nothing_begun(p_project text, p_run uuid, p_token integer) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.now() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.now() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.now() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.now() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.now() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.parked(p_project text, p_kind text, p_marked boolean) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.parked_runs(p_project text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.parked_runs(p_project text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.password_method(p_name text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.password_method(p_name text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.payload_hash(salt bytea, body text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.payload_hash(salt bytea, body text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.payload_hash(salt bytea, body text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.payload_hash(salt bytea, body text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.payload_hash(salt bytea, body text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.person(p_name text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.policy_rules() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.projects_seen(VARIADIC p_rights text[]) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.projects_with(VARIADIC p_rights text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.projects_with(VARIADIC p_rights text[]) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.projects_with(VARIADIC p_rights text[]) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.projects_with(VARIADIC p_rights text[]) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.projects_with(VARIADIC p_rights text[]) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.publish_projection(p_name text, p_version integer, p_columns text[], p_derived text[], p_expressions text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.publish_projection(p_name text, p_version integer, p_columns text[], p_derived text[], p_expressions text[]) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.put_schedule(p_project text, p_actor text, p_name text, p_kind text, p_input text, p_cron text, p_timezone text, p_next_at timestamp with time zone, p_release timestamp with time zone, p_ahead boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.put_schedule(p_project text, p_actor text, p_name text, p_kind text, p_input text, p_cron text, p_timezone text, p_next_at timestamp with time zone, p_release timestamp with time zone, p_ahead boolean) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.queue_deliveries(p_project text, p_webhook text, p_before text, p_checkpoint text, p_runs uuid[], p_versions integer[], p_types text[], p_bodies text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.queue_deliveries(p_project text, p_webhook text, p_before text, p_checkpoint text, p_runs uuid[], p_versions integer[], p_types text[], p_bodies text[]) TO runfold_projector;

GRANT SELECT ON TABLE ledger.run TO runfold_worker;
GRANT SELECT ON TABLE ledger.run TO runfold_reader;
GRANT SELECT ON TABLE ledger.run TO runfold_projector;
GRANT SELECT ON TABLE ledger.run TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.read_run(p_project text, p_run uuid) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.read_run(p_project text, p_run uuid) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.read_run(p_project text, p_run uuid) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.read_run(p_project text, p_run uuid) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.read_run(p_project text, p_run uuid) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.read_runs(p_project text, p_runs uuid[], p_content boolean) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.reap(p_project text, p_actor text, p_limit integer, p_leases boolean) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.reap(p_project text, p_actor text, p_limit integer, p_leases boolean) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer, p_time timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer, p_time timestamp with time zone) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer, p_time timestamp with time zone) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer, p_time timestamp with time zone) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.rebuild_run_state(p_project text, p_from uuid, p_to uuid, p_version integer, p_time timestamp with time zone) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.record_attempt(p_project text, p_webhook text, p_run uuid, p_version integer, p_attempt integer, p_duration_ms integer, p_status integer, p_error text, p_again interval) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.record_attempt(p_project text, p_webhook text, p_run uuid, p_version integer, p_attempt integer, p_duration_ms integer, p_status integer, p_error text, p_again interval) TO runfold_projector;

REVOKE ALL ON FUNCTION ledger.record_control() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.record_keys(p_project text, p_runs uuid[], p_keys text[], p_contents text[], p_seed bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.refuse(p_project text, p_actor text, p_name text, p_runs uuid[], p_tokens integer[], p_workers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.refuse(p_project text, p_actor text, p_name text, p_runs uuid[], p_tokens integer[], p_workers text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.refuse_change() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.refuse_version(p_type text, p_version integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.refuse_version(p_type text, p_version integer) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.refuse_version(p_type text, p_version integer) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.refuse_version(p_type text, p_version integer) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.refuse_version(p_type text, p_version integer) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.requeue(p_project text, p_type text, p_runs uuid[], p_tokens integer[], p_delays interval[], p_error_codes text[], p_bodies text[], p_workers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.requeue(p_project text, p_type text, p_runs uuid[], p_tokens integer[], p_delays interval[], p_error_codes text[], p_bodies text[], p_workers text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.resend_delivery(p_project text, p_actor text, p_webhook text, p_run uuid, p_version integer) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.resend_delivery(p_project text, p_actor text, p_webhook text, p_run uuid, p_version integer) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.salt_seed() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.session_credential(p_secret text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.sign_in_by_password(p_name text, p_key bytea, p_sha256 bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.sign_in_by_password(p_name text, p_key bytea, p_sha256 bytea) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.sign_in_by_provider(p_issuer text, p_subject text, p_sha256 bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.sign_in_by_provider(p_issuer text, p_subject text, p_sha256 bytea) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.sign_in_by_token(p_secret text, p_sha256 bytea) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.sign_in_by_token(p_secret text, p_sha256 bytea) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.signal(p_project text, p_actor text, p_run uuid, p_name text, p_answer text, p_kept text, p_key text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.signal(p_project text, p_actor text, p_run uuid, p_name text, p_answer text, p_kept text, p_key text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.snooze(p_project text, p_actor text, p_run uuid, p_version integer, p_until timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.snooze(p_project text, p_actor text, p_run uuid, p_version integer, p_until timestamp with time zone) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.speaker() FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.speaker() TO runfold_worker;
GRANT ALL ON FUNCTION ledger.speaker() TO runfold_reader;
GRANT ALL ON FUNCTION ledger.speaker() TO runfold_projector;
GRANT ALL ON FUNCTION ledger.speaker() TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer, p_time timestamp with time zone) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer, p_time timestamp with time zone) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer, p_time timestamp with time zone) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer, p_time timestamp with time zone) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.state_at(p_project text, p_run uuid, p_version integer, p_time timestamp with time zone) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.submit(p_project text, p_actor text, p_kinds text[], p_inputs text[], p_keys text[], p_priorities integer[], p_delays interval[], p_max_attempts integer[], p_deadlines timestamp with time zone[], p_deadlines_in interval[], p_tags text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.submit(p_project text, p_actor text, p_kinds text[], p_inputs text[], p_keys text[], p_priorities integer[], p_delays interval[], p_max_attempts integer[], p_deadlines timestamp with time zone[], p_deadlines_in interval[], p_tags text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.submit_keys(p_project text, p_ids uuid[], p_kinds text[], p_inputs text[], p_keys text[], p_priorities integer[], p_delays interval[], p_max_attempts integer[], p_deadlines timestamp with time zone[], p_deadlines_in interval[], p_tags text[], p_seed bytea) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.submitter_problem(p_project text, p_run uuid, p_person text, p_writer text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.sweep_start(p_project text, p_kind text, OUT ends_from timestamp with time zone, OUT cancels_after bigint) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.token_credential(p_secret text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.token_credential(p_secret text) TO runfold_worker;
GRANT ALL ON FUNCTION ledger.token_credential(p_secret text) TO runfold_reader;
GRANT ALL ON FUNCTION ledger.token_credential(p_secret text) TO runfold_projector;
GRANT ALL ON FUNCTION ledger.token_credential(p_secret text) TO runfold_auditor;

REVOKE ALL ON FUNCTION ledger.transition(p_project text, p_actors text[], p_runs uuid[], p_tokens integer[], p_states text[], p_parks boolean[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_sha256s bytea[], p_waits interval[], p_wait_outcomes text[], p_expected integer[], p_keys text[], p_workers text[]) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.transition(p_project text, p_actors text[], p_runs uuid[], p_tokens integer[], p_states text[], p_parks boolean[], p_names text[], p_error_codes text[], p_bodies text[], p_costs numeric[], p_steps integer[], p_sha256s bytea[], p_waits interval[], p_wait_outcomes text[], p_expected integer[], p_keys text[], p_workers text[]) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.transition_type(p_from text, p_to text, p_error text) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.uncharged_leases(p_project text, p_run uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.use_token(p_secret text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.use_token(p_secret text) TO runfold_worker;

REVOKE ALL ON FUNCTION ledger.uuid7() FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.uuid7_floor(p_utc timestamp without time zone) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.uuid7_month(p_id uuid) FROM PUBLIC;

REVOKE ALL ON FUNCTION ledger.webhook_duties(p_project text) FROM PUBLIC;
GRANT ALL ON FUNCTION ledger.webhook_duties(p_project text) TO runfold_projector;

GRANT SELECT ON TABLE ledger.access_grant TO runfold_worker;
GRANT SELECT ON TABLE ledger.access_grant TO runfold_reader;
GRANT SELECT ON TABLE ledger.access_grant TO runfold_projector;
GRANT SELECT ON TABLE ledger.access_grant TO runfold_auditor;

GRANT SELECT ON TABLE ledger.alembic_version TO runfold_worker;
GRANT SELECT ON TABLE ledger.alembic_version TO runfold_reader;
GRANT SELECT ON TABLE ledger.alembic_version TO runfold_projector;
GRANT SELECT ON TABLE ledger.alembic_version TO runfold_auditor;

GRANT SELECT ON TABLE ledger.api_token TO runfold_auditor;

GRANT SELECT(token_id) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(name) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(created_at) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(expires_at) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(revoked_at) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(actor) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT(reason) ON TABLE ledger.api_token TO runfold_worker;

GRANT SELECT ON TABLE ledger.archive_event TO runfold_worker;
GRANT SELECT ON TABLE ledger.archive_event TO runfold_reader;
GRANT SELECT ON TABLE ledger.archive_event TO runfold_projector;
GRANT SELECT ON TABLE ledger.archive_event TO runfold_auditor;

GRANT SELECT ON TABLE ledger.archive TO runfold_worker;
GRANT SELECT ON TABLE ledger.archive TO runfold_reader;
GRANT SELECT ON TABLE ledger.archive TO runfold_projector;
GRANT SELECT ON TABLE ledger.archive TO runfold_auditor;

GRANT SELECT ON TABLE ledger.command TO runfold_auditor;

GRANT SELECT(project_id) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(project_id) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(project_id) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT(key) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(key) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(key) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT(content_hash) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(content_hash) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(content_hash) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT(run_id) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(run_id) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(run_id) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT(version) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(version) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(version) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT(hash) ON TABLE ledger.command TO runfold_worker;
GRANT SELECT(hash) ON TABLE ledger.command TO runfold_reader;
GRANT SELECT(hash) ON TABLE ledger.command TO runfold_projector;

GRANT SELECT ON TABLE ledger.control_event TO runfold_auditor;

GRANT SELECT ON TABLE ledger.control_head TO runfold_auditor;

GRANT SELECT ON TABLE ledger.credential_use TO runfold_worker;
GRANT SELECT ON TABLE ledger.credential_use TO runfold_auditor;

GRANT SELECT ON TABLE ledger.delivery TO runfold_worker;
GRANT SELECT ON TABLE ledger.delivery TO runfold_reader;
GRANT SELECT ON TABLE ledger.delivery TO runfold_projector;
GRANT SELECT ON TABLE ledger.delivery TO runfold_auditor;

GRANT SELECT ON TABLE ledger.delivery_attempt TO runfold_worker;
GRANT SELECT ON TABLE ledger.delivery_attempt TO runfold_reader;
GRANT SELECT ON TABLE ledger.delivery_attempt TO runfold_projector;
GRANT SELECT ON TABLE ledger.delivery_attempt TO runfold_auditor;

GRANT SELECT ON TABLE ledger.feed_generation TO runfold_worker;
GRANT SELECT ON TABLE ledger.feed_generation TO runfold_reader;
GRANT SELECT ON TABLE ledger.feed_generation TO runfold_projector;
GRANT SELECT ON TABLE ledger.feed_generation TO runfold_auditor;

GRANT SELECT ON TABLE ledger.kind TO runfold_worker;
GRANT SELECT ON TABLE ledger.kind TO runfold_reader;
GRANT SELECT ON TABLE ledger.kind TO runfold_projector;
GRANT SELECT ON TABLE ledger.kind TO runfold_auditor;

GRANT SELECT ON TABLE ledger.kind_event TO runfold_worker;
GRANT SELECT ON TABLE ledger.kind_event TO runfold_reader;
GRANT SELECT ON TABLE ledger.kind_event TO runfold_projector;
GRANT SELECT ON TABLE ledger.kind_event TO runfold_auditor;

GRANT SELECT ON TABLE ledger.kind_state TO runfold_worker;
GRANT SELECT ON TABLE ledger.kind_state TO runfold_reader;
GRANT SELECT ON TABLE ledger.kind_state TO runfold_projector;
GRANT SELECT ON TABLE ledger.kind_state TO runfold_auditor;

GRANT SELECT ON TABLE ledger.payload_read TO runfold_worker;
GRANT SELECT ON TABLE ledger.payload_read TO runfold_reader;
GRANT SELECT ON TABLE ledger.payload_read TO runfold_projector;
GRANT SELECT ON TABLE ledger.payload_read TO runfold_auditor;

GRANT SELECT ON TABLE ledger.project TO runfold_auditor;

GRANT SELECT(project_id) ON TABLE ledger.project TO runfold_worker;
GRANT SELECT(project_id) ON TABLE ledger.project TO runfold_reader;
GRANT SELECT(project_id) ON TABLE ledger.project TO runfold_projector;

GRANT SELECT(created_at) ON TABLE ledger.project TO runfold_worker;
GRANT SELECT(created_at) ON TABLE ledger.project TO runfold_reader;
GRANT SELECT(created_at) ON TABLE ledger.project TO runfold_projector;

GRANT SELECT ON TABLE ledger.projection TO runfold_worker;
GRANT SELECT ON TABLE ledger.projection TO runfold_reader;
GRANT SELECT,INSERT ON TABLE ledger.projection TO runfold_projector;
GRANT SELECT ON TABLE ledger.projection TO runfold_auditor;

GRANT UPDATE(version) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(digest) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(generation) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(snapshot) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(target) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE("position") ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(events) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(moved_at) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(paused_at) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(failed_at) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(error) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(error_project_id) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(error_run_id) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(error_version) ON TABLE ledger.projection TO runfold_projector;

GRANT UPDATE(error_position) ON TABLE ledger.projection TO runfold_projector;

GRANT SELECT ON TABLE ledger.projection_aside TO runfold_worker;
GRANT SELECT ON TABLE ledger.projection_aside TO runfold_reader;
GRANT SELECT,INSERT ON TABLE ledger.projection_aside TO runfold_projector;
GRANT SELECT ON TABLE ledger.projection_aside TO runfold_auditor;

GRANT UPDATE(last_position) ON TABLE ledger.projection_aside TO runfold_projector;

GRANT UPDATE(events) ON TABLE ledger.projection_aside TO runfold_projector;

GRANT UPDATE(error) ON TABLE ledger.projection_aside TO runfold_projector;

GRANT UPDATE(retry_at) ON TABLE ledger.projection_aside TO runfold_projector;

GRANT SELECT ON TABLE ledger.projection_skip TO runfold_worker;
GRANT SELECT ON TABLE ledger.projection_skip TO runfold_reader;
GRANT SELECT,INSERT ON TABLE ledger.projection_skip TO runfold_projector;
GRANT SELECT ON TABLE ledger.projection_skip TO runfold_auditor;

GRANT SELECT ON TABLE ledger.rebuild TO runfold_worker;
GRANT SELECT ON TABLE ledger.rebuild TO runfold_reader;
GRANT SELECT,INSERT ON TABLE ledger.rebuild TO runfold_projector;
GRANT SELECT ON TABLE ledger.rebuild TO runfold_auditor;

GRANT UPDATE(moment) ON TABLE ledger.rebuild TO runfold_projector;

GRANT UPDATE(finished_at) ON TABLE ledger.rebuild TO runfold_projector;

GRANT SELECT ON TABLE ledger.rebuild_range TO runfold_worker;
GRANT SELECT ON TABLE ledger.rebuild_range TO runfold_reader;
GRANT SELECT,INSERT ON TABLE ledger.rebuild_range TO runfold_projector;
GRANT SELECT ON TABLE ledger.rebuild_range TO runfold_auditor;

GRANT UPDATE(last) ON TABLE ledger.rebuild_range TO runfold_projector;

GRANT UPDATE(row_count) ON TABLE ledger.rebuild_range TO runfold_projector;

GRANT UPDATE(event_count) ON TABLE ledger.rebuild_range TO runfold_projector;

GRANT UPDATE(error) ON TABLE ledger.rebuild_range TO runfold_projector;

GRANT UPDATE(done_at) ON TABLE ledger.rebuild_range TO runfold_projector;

GRANT SELECT ON TABLE ledger.role_event TO runfold_worker;
GRANT SELECT ON TABLE ledger.role_event TO runfold_reader;
GRANT SELECT ON TABLE ledger.role_event TO runfold_projector;
GRANT SELECT ON TABLE ledger.role_event TO runfold_auditor;

GRANT SELECT ON TABLE ledger.role_member TO runfold_worker;
GRANT SELECT ON TABLE ledger.role_member TO runfold_reader;
GRANT SELECT ON TABLE ledger.role_member TO runfold_projector;
GRANT SELECT ON TABLE ledger.role_member TO runfold_auditor;

GRANT SELECT ON TABLE ledger.run_tag TO runfold_worker;
GRANT SELECT ON TABLE ledger.run_tag TO runfold_reader;
GRANT SELECT ON TABLE ledger.run_tag TO runfold_projector;
GRANT SELECT ON TABLE ledger.run_tag TO runfold_auditor;

GRANT SELECT ON TABLE ledger.saved_view TO runfold_worker;
GRANT SELECT ON TABLE ledger.saved_view TO runfold_reader;
GRANT SELECT ON TABLE ledger.saved_view TO runfold_projector;
GRANT SELECT ON TABLE ledger.saved_view TO runfold_auditor;

GRANT SELECT ON TABLE ledger.schedule TO runfold_worker;
GRANT SELECT ON TABLE ledger.schedule TO runfold_reader;
GRANT SELECT ON TABLE ledger.schedule TO runfold_projector;
GRANT SELECT ON TABLE ledger.schedule TO runfold_auditor;

GRANT SELECT ON TABLE ledger.snooze TO runfold_worker;
GRANT SELECT ON TABLE ledger.snooze TO runfold_reader;
GRANT SELECT ON TABLE ledger.snooze TO runfold_projector;
GRANT SELECT ON TABLE ledger.snooze TO runfold_auditor;

GRANT SELECT ON TABLE ledger.user_account TO runfold_worker;
GRANT SELECT ON TABLE ledger.user_account TO runfold_auditor;

GRANT SELECT ON TABLE ledger.view_event TO runfold_worker;
GRANT SELECT ON TABLE ledger.view_event TO runfold_reader;
GRANT SELECT ON TABLE ledger.view_event TO runfold_projector;
GRANT SELECT ON TABLE ledger.view_event TO runfold_auditor;

GRANT SELECT(session_id) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(session_id) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(credential) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(credential) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(created_at) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(created_at) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(expires_at) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(expires_at) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(last_used_at) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(last_used_at) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(ended_at) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(ended_at) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT(user_changed_at) ON TABLE ledger.web_session TO runfold_worker;
GRANT SELECT(user_changed_at) ON TABLE ledger.web_session TO runfold_auditor;

GRANT SELECT ON TABLE ledger.webhook TO runfold_worker;
GRANT SELECT ON TABLE ledger.webhook TO runfold_reader;
GRANT SELECT ON TABLE ledger.webhook TO runfold_projector;
GRANT SELECT ON TABLE ledger.webhook TO runfold_auditor;
