"""What is installed against what this program installs: each difference is named."""

from __future__ import annotations

from typing import Any, Final
from urllib.parse import urlsplit

import asyncpg
import pytest

from runfold.ledger.postgres import code_objects
from runfold.ledger.postgres.object_differences import differences_on

CHANGED: Final = (
    (
        (
            "CREATE OR REPLACE FUNCTION ledger.refuse_change() RETURNS trigger "
            "LANGUAGE plpgsql "
            "SET search_path = pg_catalog, pg_temp AS $$ BEGIN RETURN NEW; END $$"
        ),
        "function refuse_change is changed",
    ),
    (
        "ALTER FUNCTION ledger.refuse_change() SET search_path = public",
        "function refuse_change is changed",
    ),
    (
        "CREATE FUNCTION ledger.planted() RETURNS int LANGUAGE sql AS 'SELECT 1'",
        "function planted is not this program's",
    ),
    (
        (
            "CREATE OR REPLACE VIEW ledger.role_member WITH (security_invoker = true) AS "
            "SELECT project_id, role, member, recorded_at, actor, reason FROM ledger.role_event"
        ),
        "view role_member is changed",
    ),
    (
        "ALTER VIEW ledger.run SET (security_invoker = false)",
        "view run is changed",
    ),
    (
        "ALTER TABLE ledger.payload DISABLE TRIGGER refuse_change",
        "trigger refuse_change of payload does not always fire",
    ),
    (
        "ALTER TABLE ledger.event ENABLE TRIGGER refuse_truncate",
        "trigger refuse_truncate of event does not always fire",
    ),
    (
        (
            "CREATE TRIGGER planted BEFORE INSERT ON ledger.event "
            "EXECUTE FUNCTION ledger.refuse_change()"
        ),
        "trigger planted of event is not this program's",
    ),
    (
        "ALTER TABLE ledger.kind_event OWNER TO runfold_worker",
        "relation kind_event belongs to runfold_worker",
    ),
    (
        "GRANT INSERT ON ledger.event TO runfold_worker",
        "runfold_worker has INSERT on event",
    ),
    (
        "GRANT EXECUTE ON FUNCTION ledger.submit TO PUBLIC",
        "PUBLIC has EXECUTE on submit",
    ),
    (
        "REVOKE EXECUTE ON FUNCTION ledger.claim FROM runfold_worker",
        "runfold_worker lacks EXECUTE on claim",
    ),
    (
        "GRANT CREATE ON SCHEMA public TO PUBLIC",
        (
            "PUBLIC may create objects in schema public: "
            'REVOKE CREATE ON SCHEMA "public" FROM PUBLIC'
        ),
    ),
    (
        "ALTER SCHEMA projection OWNER TO runfold_worker",
        "schema projection belongs to runfold_worker",
    ),
    (
        "ALTER FUNCTION ledger.refuse_change() IMMUTABLE",
        "function refuse_change is changed",
    ),
    (
        "CREATE RULE planted AS ON INSERT TO ledger.role_event DO INSTEAD NOTHING",
        "rule planted of role_event is not this program's",
    ),
    (
        "CREATE POLICY planted ON ledger.event USING (actor <> 'ann')",
        "policy planted of event is not this program's",
    ),
    (
        "ALTER TABLE ledger.event DISABLE ROW LEVEL SECURITY",
        "row security of event is off",
    ),
    (
        "ALTER POLICY seen ON ledger.payload USING (true)",
        "policy seen of payload is missing or changed",
    ),
    (
        "DROP POLICY seen ON ledger.run_state",
        "policy seen of run_state is missing or changed",
    ),
    (
        "ALTER TABLE ledger.event FORCE ROW LEVEL SECURITY",
        "forced row security of event is not this program's",
    ),
    (
        "CREATE VIEW ledger.planted AS SELECT * FROM ledger.event",
        "view planted is not this program's",
    ),
    (
        "GRANT UPDATE (attempt_count) ON ledger.run_state TO runfold_worker",
        "runfold_worker has UPDATE on run_state.attempt_count",
    ),
    (
        "GRANT CREATE ON SCHEMA ledger TO runfold_worker",
        "runfold_worker has CREATE on schema ledger",
    ),
    (
        "REVOKE USAGE ON SCHEMA projection FROM runfold_reader",
        "runfold_reader lacks USAGE on schema projection",
    ),
    (
        "GRANT SELECT ON ledger.event TO runfold_reader WITH GRANT OPTION",
        "runfold_reader may pass on SELECT on event",
    ),
    (
        "GRANT SELECT ON ledger.payload TO PUBLIC",
        "PUBLIC has SELECT on payload",
    ),
    (
        (
            "ALTER ROLE runfold_worker IN DATABASE {database} "
            "SET default_transaction_isolation = 'repeatable read'"
        ),
        (
            "role runfold_worker has default_transaction_isolation=repeatable read, "
            "which makes an old snapshot decide: ALTER ROLE runfold_worker IN DATABASE {database} "
            "RESET default_transaction_isolation"
        ),
    ),
    (
        "ALTER DATABASE {database} SET session_replication_role = 'replica'",
        (
            "every role has session_replication_role=replica, which turns triggers off: "
            "ALTER DATABASE {database} RESET session_replication_role"
        ),
    ),
    (
        (
            "CREATE OR REPLACE TRIGGER refuse_change BEFORE UPDATE OR DELETE ON ledger.payload "
            "FOR EACH ROW WHEN (false) EXECUTE FUNCTION ledger.refuse_change();"
            "ALTER TABLE ledger.payload ENABLE ALWAYS TRIGGER refuse_change"
        ),
        "trigger refuse_change of payload is changed",
    ),
    (
        (
            "CREATE OR REPLACE TRIGGER refuse_change BEFORE DELETE ON ledger.role_event "
            "FOR EACH ROW EXECUTE FUNCTION ledger.refuse_change();"
            "ALTER TABLE ledger.role_event ENABLE ALWAYS TRIGGER refuse_change"
        ),
        "trigger refuse_change of role_event is changed",
    ),
    (
        (
            "CREATE OR REPLACE TRIGGER record_control AFTER INSERT OR UPDATE OR DELETE "
            "ON ledger.access_grant FOR EACH ROW "
            "EXECUTE FUNCTION ledger.record_control('access', 'project_id credential', 'rights');"
            "ALTER TABLE ledger.access_grant ENABLE ALWAYS TRIGGER record_control"
        ),
        "trigger record_control of access_grant is changed",
    ),
    (
        "ALTER TABLE ledger.event ENABLE REPLICA TRIGGER fold_run_state",
        "trigger fold_run_state of event does not always fire",
    ),
    (
        "DROP TRIGGER refuse_truncate ON ledger.control_event",
        "trigger refuse_truncate of control_event does not always fire",
    ),
    (
        "GRANT SELECT ON ledger.payload TO runfold_reader",
        (
            "runfold_reader has SELECT on payload: "
            'REVOKE SELECT ON ledger.payload FROM "runfold_reader"'
        ),
    ),
    (
        "GRANT SELECT (salt) ON ledger.payload TO pg_monitor",
        (
            "pg_monitor has SELECT on payload.salt: "
            'REVOKE SELECT (salt) ON ledger.payload FROM "pg_monitor"'
        ),
    ),
    (
        "GRANT SELECT (sha256) ON ledger.api_token TO PUBLIC",
        (
            "PUBLIC has SELECT on api_token.sha256: "
            "REVOKE SELECT (sha256) ON ledger.api_token FROM PUBLIC"
        ),
    ),
)


@pytest.mark.slow
async def test_what_is_not_as_this_program_installs_it_is_named(
    connection: asyncpg.Connection[Any], database: str, subtests: pytest.Subtests
) -> None:
    name = urlsplit(database).path.lstrip("/")
    assert await differences_on(connection) == []
    for statement, problem in CHANGED:
        with subtests.test(problem):
            transaction = connection.transaction()
            await transaction.start()
            try:
                await connection.execute(statement.format(database=name))
                found = await differences_on(connection)
            finally:
                await transaction.rollback()
            assert problem.format(database=name) in "; ".join(found)


def test_every_installed_function_is_read_from_its_file() -> None:
    assert code_objects.function_names() - set(code_objects.functions()) <= {"uuid7"}
    assert set(code_objects.views()) == {"archive", "entry", "role_member", "run"}
    assert code_objects.triggers()
    assert code_objects.grants()
