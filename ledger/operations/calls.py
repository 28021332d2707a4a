"""The statements that the ledger sends: thin calls of the functions in `ledger/sql`, nothing else."""

from typing import Final

# A lateral read in the same statement: the write and the run after it, in one round trip.
_RUN = "CROSS JOIN LATERAL ledger.read_run($1, t.run_id) AS r"

SUBMIT_ONE: Final = (
    f"SELECT r.* FROM ledger.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11) AS t {_RUN}"
)
SUBMIT_MANY: Final = (
    "SELECT run_id, fresh FROM ledger.submit($1, $2, $3, $4, $5, $6, $7, $8, $9, $10, $11)"
)
CLAIM: Final = "SELECT * FROM ledger.claim($1, $2, $3, $4, $5, $6, $7, $8)"
HEARTBEAT: Final = "SELECT * FROM ledger.heartbeat($1, $2, $3, $4)"
_TRANSITION = "ledger.transition($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::numeric[], $11, $12, $13, $14, $15, $16)"
TRANSITION_ONE: Final = f"SELECT r.*, t.from_state FROM {_TRANSITION} AS t {_RUN}"
TRANSITION_MANY: Final = f"SELECT * FROM {_TRANSITION}"
REQUEUE: Final = f"SELECT r.* FROM ledger.requeue($1, $2, $3, $4, $5, $6, $7) AS t {_RUN}"
CANCEL: Final = f"SELECT r.* FROM ledger.cancel($1, $2, $3, $4) AS t {_RUN}"
APPEND: Final = "SELECT * FROM ledger.append($1, $2, $3, $4, $5, $6, $7, $8, $9, $10::text[]::numeric[], $11, $12, $13)"
REFUSE: Final = "SELECT * FROM ledger.refuse($1, $2, $3, $4, $5)"
COMMANDS: Final = "SELECT * FROM ledger.commands($1, $2, $3, $4, $5, $6, $7, $8::text[]::numeric[], $9, $10, $11, $12, $13)"
REAP: Final = (
    "SELECT r.*, t.type AS reaped_type, t.from_state AS reaped_state, t.worker_id AS reaped_worker, "
    "t.error_code AS reaped_code "
    f"FROM ledger.reap($1, $2, $3) AS t {_RUN}"
)
MAY_NOT_DECIDE: Final = "SELECT ledger.may_not_decide($1, $2, $3) AS why"
GET: Final = "SELECT * FROM ledger.run WHERE project_id = $1 AND run_id = $2"
STATE_AT: Final = "SELECT * FROM ledger.state_at($1, $2, $3, $4)"
HISTORY: Final = "SELECT * FROM ledger.history($1, $2, $3, $4)"
