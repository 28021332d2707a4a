"""Runfold beside its peers: each in an environment and a database of its own, on one server."""
