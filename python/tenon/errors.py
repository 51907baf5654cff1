"""What goes wrong, as exceptions. `code` is the exit code that `tenon` would have ended with, `remedy` what can
be done about it ("" where the message says it all; it names keys as the command line writes them)."""


class TenonError(RuntimeError):
    """Run-time failure without a better name: out of memory, a library's error."""

    code = 1

    def __init__(self, message, remedy=""):
        super().__init__(message)
        self.message, self.remedy = message, remedy

    def __str__(self):
        return f"{self.message}\n  {self.remedy}" if self.remedy else self.message


class LibraryError(TenonError):
    """libtenon was not found, or is not of this package's version."""


class UsageError(TenonError, ValueError):
    """An unknown argument, a conflict, a path that does not exist."""

    code = 2


class BadDataError(TenonError, ValueError):
    """A damaged file, or data with nothing left to train on."""

    code = 3


class NoFitError(TenonError):
    """What was asked for does not fit the memory there is."""

    code = 4


class NumericError(TenonError):
    """NaN or Inf in the loss or the gradient norm."""

    code = 5


class StorageError(TenonError):
    """Disk full, read or write error."""

    code = 6


class InterruptedRun(TenonError):
    """A run was asked to stop. Of train a resumable checkpoint was written."""

    code = 130


# By tn_status, from TN_FAILED on.
BY_STATUS = (None, TenonError, UsageError, BadDataError, NoFitError, NumericError, StorageError, InterruptedRun)
