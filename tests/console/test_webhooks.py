"""`runfold webhooks`, as its user sees it."""

from __future__ import annotations

import json

from runfold.console.cli.kit import exits
from tests.support.console import Cli, cli

__all__ = ["cli"]


def test_a_webhook_is_made_told_looked_at_and_taken_away(cli: Cli) -> None:
    made = cli.ok(
        "webhooks", "add", "https://example.com/x", "--events", "run.failed, run.completed",
        "--kind", "parse", "--actor", "ann",
    )  # fmt: skip
    webhook, secret = made.out.split()
    [row] = [json.loads(line) for line in cli.ok("webhooks", "list", "--json").out.splitlines()]

    assert secret.startswith("whsec_")
    assert (row["webhook_id"], row["events"], row["kinds"], row["actor"]) == (
        webhook, ["run.completed", "run.failed"], ["parse"], "ann",
    )  # fmt: skip
    cli.ok("webhooks", "pause", webhook, "--reason", "theirs")
    assert "paused" in cli.ok("webhooks", "list").out
    cli.ok("webhooks", "resume", webhook, "--from-now")
    cli.ok("webhooks", "run", "--once")
    assert cli.ok("webhooks", "deliveries", webhook, "--json").out == ""
    assert "no deliveries yet" in cli.ok("webhooks", "deliveries", webhook).err
    cli.ok("webhooks", "remove", webhook)
    assert webhook in cli.fails(exits.NOT_FOUND, "webhooks", "remove", webhook).err
    assert webhook in cli.fails(exits.NOT_FOUND, "webhooks", "deliveries", webhook).err
    gone = f"{webhook}_01a22335-cb51-73b0-ae5c-5a08e0a49e96_1_00000000"
    assert gone in cli.fails(exits.NOT_FOUND, "webhooks", "resend", gone).err
    told = cli.fails(exits.USAGE, "webhooks", "add", "http://169.254.169.254/latest").err
    assert "must begin with https://" in told
    history = cli.ok("access", "history").out
    assert secret not in history
    assert "webhook.removed" in history
