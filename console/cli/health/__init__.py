"""The health of a database: its status and the checks of `runfold doctor`."""
