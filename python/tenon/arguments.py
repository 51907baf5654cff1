"""What a call is given that it does not know, and values as the library reads them. The rule of the package: an
argument does what it says, or is said to change nothing here, or is an error with what to write instead.
"""

import difflib
import enum
import os

from ._library import say_once
from .errors import UsageError


def refuse_unknown(call, unknown, known, remedy=""):
    """`unknown` is what was left in **unknown; `known` are the names that the call takes."""
    for name in unknown:
        near = difflib.get_close_matches(name, known, 1, 0.7)
        raise UsageError(
            f"{call}: unknown argument '{name}'",
            f"did you mean '{near[0]}'?" if near else remedy or f"it takes {', '.join(sorted(known))}",
        )


def refuse(call, name, value, allowed, remedy):
    """An argument that is known for the sake of its harmless values alone."""
    if not any(value is one or value == one and type(value) is type(one) for one in allowed):
        raise UsageError(f"{call}: {name}={value!r} has no counterpart here", remedy)


def no_network():
    return UsageError(
        "nothing is pushed to a hub: tenon uses no network",
        "save_pretrained writes the files, and `hf upload` brings them there",
    )


# Of calls that can also upload what they write; without uploading they say nothing.
_UPLOAD = (
    "token private commit_message commit_description create_pr revision tags repo_type repo_id datasets use_temp_dir"
).split()


def drop_upload(arguments):
    """Takes out what only an upload would use; asking for one is an error."""
    if arguments.pop("push_to_hub", False):
        raise no_network()
    for name in _UPLOAD:
        arguments.pop(name, None)


def ignored(call, reason, **arguments):
    """Says once which arguments change nothing here, where they were given."""
    names = [name for name, value in arguments.items() if value not in (None, False)]
    if names:
        say_once(f"tenon: {call}: ignored: {', '.join(names)} ({reason})")


def plain(name, value):
    """A value as JSON has it: paths, enums, numpy's numbers and torch's types are read as what they name."""
    if value is None or isinstance(value, (bool, int, float, str)) and not isinstance(value, enum.Enum):
        return value
    if isinstance(value, enum.Enum):
        return plain(name, value.value)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    if isinstance(value, dict):
        return {str(key): plain(name, item) for key, item in value.items()}
    if isinstance(value, (set, frozenset)):
        return [plain(name, item) for item in sorted(value)]
    if isinstance(value, (list, tuple, range)):
        return [plain(name, item) for item in value]
    if str(value).startswith("torch."):  # torch.bfloat16
        return str(value)[len("torch.") :]
    if hasattr(value, "item"):
        return plain(name, value.item())
    raise UsageError(
        f"{name}: a {type(value).__name__} is not understood here", "give a number, a text, a list or a map"
    )
