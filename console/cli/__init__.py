"""The command line `runfold`: `main.py` lists its commands, each in the file of its name."""
