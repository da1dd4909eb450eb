"""What can go wrong between this computer and a phone, in words of ours."""

import contextlib
import subprocess

import adbutils

from android_bench.child import Stopped
from android_bench.transports import STATES

__all__ = ["AdbError", "DeviceLost", "DeviceTimeout", "Stopped", "explained"]


class AdbError(RuntimeError):
    """adb or a phone refused; the message says what to do."""


class DeviceLost(AdbError):
    """The phone, or the link to it, went away in the middle. It may come back."""


class DeviceTimeout(DeviceLost):
    """No end within the time allowed."""


@contextlib.contextmanager
def explained(name: str):
    """Errors of adbutils and of sockets as ours."""
    try:
        yield
    except adbutils.AdbError as error:
        words = " ".join(str(error).split())
        if "unauthorized" in words or "authorizing" in words:
            raise DeviceLost(f"{name} is unauthorized: {STATES['unauthorized']}.") from None
        if "permission" in words:
            raise AdbError(f"{name}: {words}; {STATES['no permissions']}.") from None
        raise DeviceLost(f"{name}: {words or 'the link dropped'}.") from None
    except (TimeoutError, subprocess.TimeoutExpired) as error:
        raise DeviceTimeout(f"{name}: no answer in time ({error}); 'adb kill-server' may help.") from None
    except ValueError as error:  # of a length or a text that is none
        raise AdbError(f"{name}: what answers there is no adb server ({error}).") from None
    except (OSError, EOFError) as error:
        raise DeviceLost(f"{name}: the link dropped ({error or type(error).__name__}).") from None
