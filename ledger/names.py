"""Names that other programs rely on: log events, metrics, spans and their attributes (pure).

A name is kept once it is here: dashboards and alerts rest on it. Their meanings are in
docs/howto/observability.md.
"""

from typing import Final

# -- log events of structlog

LEASE_ACQUIRED: Final = "run_lease_acquired"
STATE_TRANSITION: Final = "run_state_transition"
STALE_REQUEUED: Final = "stale_run_requeued"
STALE_FAILED: Final = "stale_run_failed"
REAPER_DONE: Final = "stale_run_reaper_done"
WRITE_REFUSED: Final = "write_refused"
ARCHIVE_STAYS: Final = "archive_stays_attached"
WAKE_UP_FAILED: Final = "wake_up_failed"
PHANTOM_REMOVED: Final = "run_state_without_events_removed"
DUTY_CRASHED: Final = "duty_crashed"
PROCESS_DIED: Final = "worker_process_died"
PROJECTION_INTERRUPTED: Final = "projection_interrupted"
PROJECTION_GOES_ON: Final = "projection_goes_on"
RUN_SET_ASIDE: Final = "projection_run_set_aside"
REAPER_INTERRUPTED: Final = "reaper_interrupted"
REAPER_RESUMES: Final = "reaper_resumes"
KIND_WITHOUT_RUNS: Final = "kind_without_runs"
SWEEP_HALVED: Final = "reaper_sweep_halved"
PARTITIONS_FAILED: Final = "reaper_partitions_failed"
DRIFTED: Final = "run_state_drifted"
SAMPLER_INTERRUPTED: Final = "sampler_interrupted"
SAMPLER_RESUMES: Final = "sampler_resumes"
SCHEDULER_INTERRUPTED: Final = "scheduler_interrupted"
SCHEDULER_RESUMES: Final = "scheduler_resumes"
SCHEDULE_REFUSED: Final = "schedule_refused"
SCHEDULE_KEPT: Final = "schedule_of_newer_release_kept"
SCHEDULE_ORPHANED: Final = "schedule_orphaned"
WAITING_FOR_DATABASE: Final = "waiting_for_database"
DATABASE_ANSWERS: Final = "database_answers"
WAKE_UPS_LOST: Final = "wake_ups_lost"
WAKE_UPS_DEAF: Final = "wake_ups_do_not_arrive"
WAKE_UPS_HEARD_AGAIN: Final = "wake_ups_heard_again"
CLAIM_FAILED: Final = "claim_failed"
ATTEMPT_CRASHED: Final = "attempt_crashed"
ATTEMPT_FAILED: Final = "attempt_failed"
WORKER_STOPPING: Final = "worker_stopping"
WOULD_NOT_STOP: Final = "handler_would_not_stop"
HEARTBEAT_FAILED: Final = "heartbeat_failed"
LEASE_LOST: Final = "lease_lost"
LEASE_IN_DOUBT: Final = "lease_in_doubt"
OUTCOME_REFUSED: Final = "outcome_refused"
OUTCOME_POSTPONED: Final = "outcome_postponed"
WRITE_POSTPONED: Final = "write_postponed"

# -- metrics of Prometheus; a counter's `_total` is added by its library

UP: Final = "runfold_up"
RUNS: Final = "runfold_runs"
ENTERED: Final = "runfold_run_transitions"
COST: Final = "runfold_cost_usd"
STEPS: Final = "runfold_steps"
LEASES: Final = "runfold_leases"
HEARTBEATS: Final = "runfold_heartbeats"
LEASES_LOST: Final = "runfold_leases_lost"
WORKERS: Final = "runfold_workers"
APPROVALS: Final = "runfold_approvals_waiting"
APPROVAL_AGE: Final = "runfold_approval_oldest_wait_seconds"
CLAIMABLE_AGE: Final = "runfold_claimable_wait_seconds"
BEHIND: Final = "runfold_projection_behind_positions"
STOPPED: Final = "runfold_projection_stopped"
SET_ASIDE: Final = "runfold_projection_set_aside_runs"

# -- attributes of spans

RUN_ID: Final = "runfold.run_id"
PROJECT: Final = "runfold.project_id"
KIND: Final = "runfold.kind"
STATE: Final = "runfold.state"
ATTEMPT: Final = "runfold.attempt"
TOKEN: Final = "runfold.token"  # noqa: S105  a fencing token, no secret
WORKER_ID: Final = "runfold.worker_id"
OUTCOME: Final = "runfold.outcome"
ACTOR: Final = "runfold.actor"
VERSION: Final = "runfold.version"
