"""Waiting for what other programs do in their own time."""
import contextlib
import time


def wait_for(what: str, is_there, seconds: float = 120.0):
    """The first true value that `is_there` gives; a network error is a value that is not there yet."""
    end = time.monotonic() + seconds
    while time.monotonic() < end:
        with contextlib.suppress(OSError):
            found = is_there()
            if found:
                return found
        time.sleep(0.05)
    raise AssertionError(f"{what}: not within {seconds} s")
