"""The demo: measure the standard library's files, with workers of which one is killed."""
