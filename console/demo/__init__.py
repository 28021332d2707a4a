"""The main job on real input: the standard library's files, measured by workers of which one is killed."""
