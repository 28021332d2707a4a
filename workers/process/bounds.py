"""How long a worker's process may live after a signal, and its exit code (pure)."""

from typing import Final

END_SECONDS: Final = 10.0
"""After the grace: to stop handlers, give runs back and close connections."""
HURRY_SECONDS: Final = 2.0
"""After a second signal."""
LEAVE_SECONDS: Final = 5.0
"""For the interpreter to end, once the worker has: handlers leave threads behind."""
UNFINISHED: Final = 5
"""The exit code of a process that leaves what it held to the reaper."""
