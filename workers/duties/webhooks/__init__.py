"""The duty that delivers events to webhooks; see docs/decisions/0069."""
