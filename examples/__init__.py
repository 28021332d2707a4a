"""Programs to read: each is run by a test."""
