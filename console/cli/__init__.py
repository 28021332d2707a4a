"""The command line `runfold`: `main.py` starts it; each command lives in the file named after its subject."""
