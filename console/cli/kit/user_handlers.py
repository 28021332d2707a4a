"""The handlers of the user's module, and what is said when it cannot be imported."""

from __future__ import annotations

from runfold.console.cli.kit.output import talk
from runfold.console.cli.kit.user_traceback import user_traceback
from runfold.ledger.errors import ConfigurationError, LedgerError
from runfold.workers.handlers import Handlers
from runfold.workers.process.loading import load


def user_handlers(handlers: str) -> Handlers:
    """Import `MODULE[:NAME]`; an error in the user's module is shown with its traceback.

    Raises ConfigurationError.
    """
    try:
        return load(handlers)
    except LedgerError:
        raise
    except Exception as error:
        for line in user_traceback(error):
            talk(line)
        module = handlers.partition(":")[0]
        raise ConfigurationError(
            f"{module} cannot be imported: {type(error).__name__}: {error}"
        ) from error
