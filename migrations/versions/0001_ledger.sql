-- The tables of the ledger. Functions, views, triggers and grants are installed from ledger/sql
-- after every upgrade. Lengths are types, not constraints: a constraint's expression is parsed
-- anew by every statement that inserts.

CREATE SCHEMA projection;

-- Projects, kinds and keys. Channel: where the wake-ups of a project are heard; it cannot be
-- guessed.

CREATE TABLE ledger.project (
  project_id text PRIMARY KEY CHECK (project_id ~ '^[a-z0-9][a-z0-9_-]{0,62}$'),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  channel text NOT NULL DEFAULT 'runfold_' || replace(gen_random_uuid()::text, '-', '')
);

-- The key includes the first run of the kind, so that two transactions that submit the same new
-- kind do not wait for each other.
CREATE TABLE ledger.kind (
  project_id text NOT NULL,
  kind text NOT NULL,
  run_id uuid NOT NULL,
  PRIMARY KEY (project_id, kind, run_id)
);

CREATE TABLE ledger.command (
  project_id text NOT NULL,
  key text NOT NULL,
  content_hash bytea NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  salt bytea, -- null once the content is erased
  hash bytea, -- of the event; null for a submit, whose outcome is the run
  PRIMARY KEY (project_id, key)
);

-- Access

-- What a credential, a login or token:<id>, may do in a project (* is all), and for which actors it
-- may speak: names, or beginnings of names that end in *. Without rights: revoked.
CREATE TABLE ledger.access_grant (
  credential varchar(200) NOT NULL,
  project_id text NOT NULL,
  rights text[] NOT NULL CHECK (rights <@ ARRAY['submit', 'work', 'read', 'decide', 'schedule',
    'erase', 'audit', 'admin']),
  actors text[] NOT NULL,
  until timestamptz,
  actor varchar(200) NOT NULL,
  reason text,
  PRIMARY KEY (credential, project_id)
);
-- A list shows the grants of one project that were not revoked.
CREATE INDEX access_grant_project ON ledger.access_grant (project_id, credential)
  WHERE cardinality(rights) > 0;

-- Of a token's secret only the digest is kept.
CREATE TABLE ledger.api_token (
  token_id varchar(40) PRIMARY KEY,
  sha256 bytea NOT NULL UNIQUE,
  name varchar(200) NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  revoked_at timestamptz,
  actor varchar(200) NOT NULL,
  reason text
);

CREATE INDEX api_token_created ON ledger.api_token (created_at, token_id);

-- People who sign in: by a password, or as a subject of an identity provider.
CREATE TABLE ledger.user_account (
  name varchar(100) PRIMARY KEY
    CHECK (name ~ '^[a-z0-9][a-z0-9._@-]*$'),
  issuer varchar(500),
  subject varchar(255),
  created_at timestamptz NOT NULL,
  changed_at timestamptz NOT NULL,
  disabled_at timestamptz,
  actor varchar(200) NOT NULL,
  reason text,
  UNIQUE (issuer, subject),
  CHECK ((issuer IS NULL) = (subject IS NULL))
);

-- When tokens and users last signed in, and how many tries have failed since. A table of its own:
-- whoever signs in may leave the row locked, which must not hold up a change of the token or user.
-- Passwords count for each login by which they were tried, so that none uses up another's tries.
-- The newest try is kept with its transaction: it is answered in a later one.
CREATE TABLE ledger.credential_use (
  credential varchar(200) NOT NULL,
  login varchar(200) NOT NULL DEFAULT '',
  last_used_at timestamptz,
  failed_uses int NOT NULL DEFAULT 0,
  last_failed_at timestamptz,
  try_sha256 bytea,
  try_txid xid8,
  PRIMARY KEY (credential, login)
);

-- The SHA-256 of the key that is derived, slowly, from a password, which is not kept itself. A
-- table of its own, because only the function that signs in reads it.
CREATE TABLE ledger.user_password (
  name varchar(100) PRIMARY KEY REFERENCES ledger.user_account,
  method varchar(60) NOT NULL,
  salt bytea NOT NULL,
  key_sha256 bytea NOT NULL
);

-- Sessions of those who signed in to the pages. Of a session's secret only the digest is kept. A
-- user's holds for the account as it was when the session began: user_changed_at is its changed_at.
CREATE TABLE ledger.web_session (
  session_id varchar(40) PRIMARY KEY,
  sha256 bytea NOT NULL UNIQUE,
  credential varchar(200) NOT NULL,
  created_at timestamptz NOT NULL,
  expires_at timestamptz NOT NULL,
  last_used_at timestamptz NOT NULL,
  ended_at timestamptz,
  user_changed_at timestamptz
);
CREATE INDEX web_session_credential ON ledger.web_session (credential, created_at);
CREATE INDEX web_session_open ON ledger.web_session (expires_at) WHERE ended_at IS NULL;

-- Who read the content of which run, by which route; one row a minute.
CREATE TABLE ledger.payload_read (
  project_id text NOT NULL,
  read_at timestamptz NOT NULL,
  run_id uuid NOT NULL,
  credential varchar(200) NOT NULL,
  route varchar(200) NOT NULL,
  PRIMARY KEY (project_id, read_at, run_id, credential, route)
);
CREATE INDEX payload_read_run ON ledger.payload_read (project_id, run_id, read_at);

-- The control history: every change of what the ledger is told to do, in one list without gaps for
-- each project and one for the database (*), which says when each of the others began. Each event
-- is hashed with the one before it. The tables that it is about are folds of it: facts is the row
-- that a change left, null for a row that it removed.
CREATE TABLE ledger.control_event (
  project_id text NOT NULL,
  number bigint NOT NULL CHECK (number > 0),
  recorded_at timestamptz NOT NULL,
  credential varchar(200) NOT NULL,
  type varchar(80) NOT NULL,
  subject text NOT NULL,
  facts text,
  actor varchar(200) NOT NULL,
  reason text,
  hash bytea NOT NULL,
  PRIMARY KEY (project_id, number)
);
CREATE INDEX control_event_subject ON ledger.control_event (subject, number);

-- The head of each list: the number and the hash of its newest event. It moves on with each event
-- and is never computed from the list, so that a list that is cut at its end does not look whole.
CREATE TABLE ledger.control_head (
  project_id text PRIMARY KEY,
  number bigint NOT NULL CHECK (number > 0),
  hash bytea NOT NULL
);

-- Events

-- CACHE 1: within a run, positions must rise with versions.
CREATE SEQUENCE ledger.event_position CACHE 1;
-- The newest time of an event that a reaper has seen, in microseconds since 1970: the clock may
-- have been set back since.
CREATE SEQUENCE ledger.newest_time MINVALUE 0 START 0 CACHE 1;

CREATE TABLE ledger.event (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  position bigint NOT NULL DEFAULT nextval('ledger.event_position'),
  txid xid8 NOT NULL DEFAULT pg_current_xact_id(),
  recorded_at timestamptz NOT NULL,
  type varchar(80) NOT NULL,
  schema_version int NOT NULL DEFAULT 1,
  actor varchar(200) NOT NULL,
  state text,
  name varchar(200),
  kind varchar(200),
  priority int,
  max_attempts int,
  deadline timestamptz,
  tags text[],
  attempt int,
  worker_id varchar(200),
  token int,
  lease_until timestamptz,
  available_at timestamptz,
  late_ms int,
  wait_until timestamptz,
  wait_outcome text,
  cost_usd numeric(18, 6),
  step_count int,
  error_code varchar(200),
  output_sha256 bytea,
  compensates int,
  key varchar(200),
  payload_hash bytea,
  credential varchar(200),
  role varchar(200),
  other_person boolean,
  shown_sha256 varchar(64),
  request int,
  meaning varchar(80),
  based_on int,
  approvals int,
  approved int,
  hash bytea NOT NULL,
  PRIMARY KEY (project_id, run_id, version)
) PARTITION BY RANGE (run_id);

CREATE INDEX event_feed ON ledger.event (txid, position);
-- For counting the refusals of a run among its many heartbeats.
CREATE INDEX event_refused ON ledger.event (project_id, run_id, token, name)
  WHERE type = 'write.refused';

CREATE TABLE ledger.payload (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  salt bytea NOT NULL,
  body json NOT NULL,
  PRIMARY KEY (project_id, run_id, version)
);

-- The inline projection

-- Room on every page for the next version of its rows: a heartbeat is a HOT update, and touches
-- no index.
CREATE TABLE ledger.run_state (
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  hash bytea NOT NULL,
  kind text NOT NULL,
  state text NOT NULL,
  priority int NOT NULL,
  attempt_count int NOT NULL,
  max_attempts int NOT NULL,
  worker_id text,
  token int,
  lease_credential varchar(200),
  moved_position bigint,
  lease_until timestamptz,
  heartbeat_at timestamptz,
  available_at timestamptz,
  started_at timestamptz,
  completed_at timestamptz,
  created_at timestamptz NOT NULL,
  updated_at timestamptz NOT NULL,
  deadline timestamptz,
  wait_until timestamptz,
  wait_outcome text,
  approvals int,
  approved int,
  cancel_requested_at timestamptz,
  cost_usd numeric(18, 6) NOT NULL,
  step_count int NOT NULL,
  error_code text,
  outcome_version int,
  output_sha256 bytea,
  tags text[] NOT NULL,
  key text,
  PRIMARY KEY (project_id, run_id),
  CONSTRAINT lease_matches_state CHECK (CASE
    WHEN token IS NULL THEN worker_id IS NULL AND lease_until IS NULL AND state <> 'running'
    ELSE worker_id IS NOT NULL AND lease_until IS NOT NULL AND available_at IS NULL
      AND state IN ('running', 'waiting_tool', 'waiting_approval')
  END),
  CONSTRAINT totals_are_not_negative CHECK (cost_usd >= 0 AND step_count >= 0)
) WITH (fillfactor = 70, autovacuum_vacuum_scale_factor = 0.02);

-- None of these indexes uses a column that a heartbeat changes, not even in its predicate.
-- Runs that wait since they were submitted, and, in an index of their own, those that were put off
-- or given back. So a claim passes no run that sleeps, and does not search for those that come back
-- among the dead entries of the others.
CREATE INDEX run_claimable ON ledger.run_state (project_id, kind, priority, run_id)
  WHERE available_at <= created_at;
CREATE INDEX run_returning ON ledger.run_state (project_id, kind, priority, available_at, run_id)
  WHERE available_at > created_at;
-- Held runs, by kind and in the order of the events that moved them: for reapers, for claims of
-- limited kinds, which count them, and for lists. Nothing is added before a position that has
-- passed, so that a search can skip what has ended (low_water). That a claim changes this column is
-- on purpose: where an update changes no column of an index, PostgreSQL takes the new entry for a
-- mere version and looks for older ones to delete, at a cost of one part in thirty.
CREATE INDEX run_leased ON ledger.run_state (project_id, kind, moved_position)
  WHERE token IS NOT NULL;
-- The runs that are neither in run_claimable nor in run_leased, for lists of runs: a run that is
-- claimed once and ends comes into it once.
CREATE INDEX run_other ON ledger.run_state (project_id, kind, state, run_id)
  WHERE token IS NULL AND (available_at <= created_at) IS NOT TRUE;
-- Runs that the clock ends, for reapers. One index for deadlines and waits, because every update
-- that is not HOT prepares all indexes. No write brings an instant that has passed, so that a
-- search can skip what has ended here too.
CREATE INDEX run_due ON ledger.run_state (project_id, kind, least(deadline, wait_until))
  WHERE completed_at IS NULL AND num_nonnulls(deadline, wait_until) > 0;
-- Runs without a holder that a sweep looks at: those whose lease was given up after a cancel was
-- asked, which it ends, and those that are parked for a tool, whose child may have ended.
CREATE INDEX run_parked ON ledger.run_state
  (project_id, kind, (cancel_requested_at IS NOT NULL), moved_position)
  WHERE token IS NULL AND completed_at IS NULL AND (cancel_requested_at IS NOT NULL
    OR state = 'waiting_tool' AND available_at IS NULL);

-- The tags of runs, in the order of their ids: what a list of the runs with a tag reads. Written
-- with the run, and never again.
CREATE TABLE ledger.run_tag (
  project_id text NOT NULL,
  tag text NOT NULL,
  kind varchar(200) NOT NULL,
  run_id uuid NOT NULL,
  PRIMARY KEY (project_id, tag, kind, run_id)
);

-- Low-water marks: where searches of a kind's indexes start
-- (ledger/sql/marks/move_low_water.sql). The entries before a mark are dead, and stay there
-- while an old snapshot is held. A row is never changed: the one with the highest number counts,
-- and is found without passing the dead rows before it.
CREATE TABLE ledger.low_water (
  project_id text NOT NULL,
  kind text NOT NULL,
  number bigint NOT NULL CHECK (number BETWEEN 1 AND 1000000000000000),
  leases_after bigint NOT NULL,
  older_leases uuid[] NOT NULL,
  priorities int[] NOT NULL,
  runs uuid[] NOT NULL,
  back_priorities int[] NOT NULL,
  dues timestamptz[] NOT NULL,
  ends_from timestamptz NOT NULL,
  cancels_after bigint NOT NULL,
  parked_after bigint NOT NULL,
  older_parked uuid[] NOT NULL,
  open xid8[] NOT NULL,
  seen_position bigint NOT NULL,
  seen_at timestamptz NOT NULL CHECK (isfinite(seen_at)),
  seen_clock timestamptz NOT NULL CHECK (isfinite(seen_clock)),
  seen_txid xid8 NOT NULL,
  PRIMARY KEY (project_id, kind, number)
);

-- Kinds, schedules and roles

CREATE TABLE ledger.kind_event (
  project_id text NOT NULL REFERENCES ledger.project,
  kind varchar(200) NOT NULL,
  number int NOT NULL CHECK (number > 0),
  recorded_at timestamptz NOT NULL,
  actor varchar(200) NOT NULL,
  type text NOT NULL CHECK (type IN ('kind.paused', 'kind.resumed', 'kind.limited')),
  max_running int CHECK (max_running > 0),
  reason text,
  PRIMARY KEY (project_id, kind, number),
  CHECK (max_running IS NULL OR type = 'kind.limited')
);

CREATE TABLE ledger.kind_state (
  project_id text NOT NULL,
  kind text NOT NULL,
  number int NOT NULL,
  paused boolean NOT NULL,
  max_running int,
  updated_at timestamptz NOT NULL,
  PRIMARY KEY (project_id, kind)
);

CREATE TABLE ledger.schedule (
  project_id text NOT NULL REFERENCES ledger.project,
  name varchar(200) NOT NULL,
  kind varchar(200) NOT NULL,
  input text,
  cron varchar(200) NOT NULL,
  timezone varchar(200) NOT NULL,
  next_at timestamptz NOT NULL,
  last_due timestamptz,
  actor varchar(200) NOT NULL,
  updated_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  release timestamptz,
  paused boolean NOT NULL DEFAULT false,
  reason varchar(2000),
  PRIMARY KEY (project_id, name)
);
CREATE INDEX schedule_due ON ledger.schedule (project_id, next_at) WHERE NOT paused;

CREATE TABLE ledger.saved_view (
  project_id text NOT NULL REFERENCES ledger.project,
  name varchar(200) NOT NULL,
  query varchar(1000) NOT NULL,
  actor varchar(200) NOT NULL,
  PRIMARY KEY (project_id, name)
);
-- Who saved, changed or removed which view; query: null where it was removed. Numbered within the
-- view, whose changes wait for each other.
CREATE TABLE ledger.view_event (
  project_id text NOT NULL,
  name varchar(200) NOT NULL,
  number int NOT NULL,
  recorded_at timestamptz NOT NULL,
  query varchar(1000),
  actor varchar(200) NOT NULL,
  credential varchar(200) NOT NULL,
  PRIMARY KEY (project_id, name, number)
);

-- Requests for an approval that a person does not want to see before a moment; seen: the version of
-- the run then. A setting of that person, not a fact of the run.
CREATE TABLE ledger.snooze (
  project_id text NOT NULL REFERENCES ledger.project,
  actor varchar(200) NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  seen int NOT NULL,
  until timestamptz NOT NULL,
  PRIMARY KEY (project_id, actor, run_id)
);

CREATE TABLE ledger.role_event (
  project_id text NOT NULL REFERENCES ledger.project,
  number bigint NOT NULL,
  recorded_at timestamptz NOT NULL,
  type text NOT NULL CHECK (type IN ('role.granted', 'role.revoked')),
  role varchar(200) NOT NULL,
  member varchar(200) NOT NULL,
  actor varchar(200) NOT NULL,
  reason text,
  PRIMARY KEY (project_id, number)
);

CREATE INDEX role_event_member ON ledger.role_event (project_id, role, member, number DESC);
CREATE INDEX role_event_role ON ledger.role_event (project_id, member, role, number DESC);

-- Webhooks

-- Which events are sent to which URL; without events or kinds, all of them. checkpoint: how far the
-- feed has been read for it.
CREATE TABLE ledger.webhook (
  project_id text NOT NULL REFERENCES ledger.project,
  webhook_id varchar(40) PRIMARY KEY,
  url varchar(2000) NOT NULL,
  events text[] NOT NULL,
  kinds text[] NOT NULL,
  is_paused boolean NOT NULL DEFAULT false,
  checkpoint text NOT NULL,
  actor varchar(200) NOT NULL,
  reason text
);
CREATE INDEX webhook_project ON ledger.webhook (project_id);

-- A signature needs the secret itself. No role may read the table: only the owner's functions do.
CREATE TABLE ledger.webhook_secret (
  webhook_id varchar(40) PRIMARY KEY REFERENCES ledger.webhook ON DELETE CASCADE,
  secret bytea NOT NULL CHECK (octet_length(secret) BETWEEN 24 AND 64)
);

-- What is to be sent to a webhook, or was; next_at is null once it is delivered or given up.
-- follows: an earlier delivery of the run has not ended, so this one is not due, whatever its
-- next_at says. A backlog is thus found without a look at all that waits behind others.
CREATE TABLE ledger.delivery (
  project_id text NOT NULL,
  webhook_id varchar(40) NOT NULL REFERENCES ledger.webhook ON DELETE CASCADE,
  run_id uuid NOT NULL,
  version int NOT NULL,
  type varchar(80) NOT NULL,
  body text NOT NULL,
  created_at timestamptz NOT NULL,
  next_at timestamptz,
  attempts int NOT NULL DEFAULT 0 CHECK (attempts BETWEEN 0 AND 1000000),
  delivered_at timestamptz,
  follows boolean NOT NULL DEFAULT false,
  PRIMARY KEY (webhook_id, run_id, version)
);
CREATE INDEX delivery_due ON ledger.delivery (webhook_id, next_at)
  WHERE next_at IS NOT NULL AND NOT follows;
CREATE INDEX delivery_open ON ledger.delivery (webhook_id, run_id, version)
  WHERE next_at IS NOT NULL;
CREATE INDEX delivery_newest ON ledger.delivery (webhook_id, created_at);

CREATE TABLE ledger.delivery_attempt (
  project_id text NOT NULL,
  webhook_id varchar(40) NOT NULL,
  run_id uuid NOT NULL,
  version int NOT NULL,
  attempt int NOT NULL,
  attempted_at timestamptz NOT NULL,
  duration_ms int NOT NULL,
  status int,
  error text,
  PRIMARY KEY (webhook_id, run_id, version, attempt),
  FOREIGN KEY (webhook_id, run_id, version) REFERENCES ledger.delivery ON DELETE CASCADE
);

-- The archive

-- Every record of a month restates all facts of its file, so that the newest says how it stands.
CREATE TABLE ledger.archive_event (
  project_id text NOT NULL, -- * for what concerns a whole month
  number bigint NOT NULL,
  recorded_at timestamptz NOT NULL,
  type text NOT NULL
    CHECK (type IN ('archive.exported', 'archive.detached', 'archive.attached',
      'hold.placed', 'hold.released')),
  actor varchar(200) NOT NULL,
  reason text,
  month varchar(7) NOT NULL,
  run_id uuid,
  first uuid,
  beyond uuid,
  runs bigint,
  events bigint,
  payloads bigint,
  generation int,
  last_position bigint,
  last_txid xid8,
  size_bytes bigint,
  sha256 bytea,
  file text,
  PRIMARY KEY (project_id, number),
  CHECK ((project_id = '*') = (run_id IS NULL)),
  CHECK (type LIKE 'hold.%' OR num_nulls(
    first, beyond, runs, events, payloads, generation, last_position, size_bytes, sha256, file) = 0)
);
-- For the state of the months, which every page of the feed asks for, however many holds there
-- were.
CREATE INDEX archive_event_standing ON ledger.archive_event (month, number DESC)
  WHERE type IN ('archive.exported', 'archive.detached', 'archive.attached');
CREATE INDEX archive_event_month ON ledger.archive_event (month, number);

-- The feed and its projections

-- Transaction ids mean something in one cluster only. A restored dump begins a new generation:
-- its start is the moment (snapshot@position) from which on ids are of this cluster again,
-- end_position the last position before the next one.
CREATE TABLE ledger.feed_generation (
  generation int PRIMARY KEY,
  start text NOT NULL,
  end_position bigint,
  system_identifier bigint NOT NULL,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp()
);

CREATE TABLE ledger.projection (
  name text PRIMARY KEY,
  version int NOT NULL,
  digest text NOT NULL,
  generation int NOT NULL,
  snapshot text NOT NULL,
  target text,
  position bigint NOT NULL,
  events bigint NOT NULL DEFAULT 0 CHECK (events BETWEEN 0 AND 1000000000000000),
  created_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  moved_at timestamptz,
  paused_at timestamptz,
  failed_at timestamptz,
  error text,
  error_project_id text,
  error_run_id uuid,
  error_version int,
  error_position bigint
) WITH (fillfactor = 50);

CREATE TABLE ledger.projection_skip (
  name text NOT NULL,
  version int NOT NULL,
  position bigint NOT NULL,
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  event_version int NOT NULL,
  error text NOT NULL,
  actor text NOT NULL,
  reason text NOT NULL,
  skipped_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  PRIMARY KEY (name, version, position)
);

-- One row for each run that is left out of a table of schema `projection`: its events from
-- first_position to last_position are not in the table. error: null for a run that was set aside
-- with its project, untried.
CREATE TABLE ledger.projection_aside (
  relation text NOT NULL,
  name text NOT NULL,
  project_id text NOT NULL,
  run_id uuid NOT NULL,
  first_position bigint NOT NULL,
  last_position bigint NOT NULL,
  events bigint NOT NULL DEFAULT 0 CHECK (events BETWEEN 0 AND 1000000000000000),
  event_version int,
  error text,
  set_aside_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  retry_at timestamptz,
  PRIMARY KEY (relation, project_id, run_id)
);
CREATE INDEX projection_aside_error ON ledger.projection_aside (relation, project_id)
  WHERE error IS NOT NULL;
CREATE INDEX projection_aside_retry ON ledger.projection_aside (relation, retry_at)
  WHERE retry_at IS NOT NULL;
CREATE INDEX projection_aside_first ON ledger.projection_aside
  (relation, (error IS NULL), set_aside_at, run_id);

-- Rebuilds: which there are and how far they are, so that a killed one goes on where it was.
-- project_id: null for a projection over all projects; definition: what the shadow table was
-- made and filled with.
CREATE TABLE ledger.rebuild (
  rebuild_id int GENERATED ALWAYS AS IDENTITY PRIMARY KEY,
  projection text NOT NULL,
  project_id text,
  until timestamptz,
  definition text NOT NULL,
  moment text,
  started_at timestamptz NOT NULL DEFAULT clock_timestamp(),
  finished_at timestamptz
);
CREATE INDEX rebuild_unfinished ON ledger.rebuild (projection, rebuild_id)
  WHERE finished_at IS NULL;

CREATE TABLE ledger.rebuild_range (
  rebuild_id int NOT NULL,
  first uuid NOT NULL,
  last uuid NOT NULL,
  row_count bigint,
  event_count bigint,
  error text,
  done_at timestamptz,
  PRIMARY KEY (rebuild_id, first)
);

-- Sessions at work on what others may not do at the same time: each row counts for as long as the
-- session holds the advisory lock of its key. Only ledger.begin_work writes it.
CREATE TABLE ledger.at_work (
  key bigint PRIMARY KEY,
  name text NOT NULL,
  shared boolean NOT NULL,
  pid int NOT NULL
);
