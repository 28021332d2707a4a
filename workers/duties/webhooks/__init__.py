"""The duty that tells webhooks of events; see docs/decisions/0069."""
