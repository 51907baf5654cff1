"""libtenon by ctypes: where it is found, the face of include/tenon/tenon.h, and the three things that Python adds
to it: a status becomes an exception, an exception in a callback stops the C code and then goes on its way, and
Ctrl-C asks a running job to stop instead of leaving a KeyboardInterrupt where nobody takes it.

Everything the package asks of the library passes through here; no other file knows ctypes.
"""

import contextlib
import ctypes
import ctypes.util
import json
import os
import signal
import sys
import tempfile
import threading
from pathlib import Path

from .errors import BY_STATUS, BadDataError, InterruptedRun, LibraryError, UsageError
from .version import __version__

INTERRUPTED = BY_STATUS.index(InterruptedRun)
BANNER, STEP, EVAL, SAVE = range(4)


class Event(ctypes.Structure):
    """tn_event"""

    _fields_ = [
        ("kind", ctypes.c_int),
        ("_text", ctypes.c_char_p),
        ("step", ctypes.c_int64),
        ("steps", ctypes.c_int64),
        ("loss", ctypes.c_double),
        ("grad_norm", ctypes.c_double),
        ("learning_rate", ctypes.c_double),
        ("epoch", ctypes.c_double),
        ("tokens_per_second", ctypes.c_double),
        ("percent_of_ceiling", ctypes.c_double),
        ("seconds_left", ctypes.c_double),
        ("tokens", ctypes.c_int64),
    ]

    @property
    def text(self):
        return (self._text or b"").decode("utf-8", "replace")


EVENT_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.POINTER(Event))
STOP_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p)
TEXT_FUNCTION = ctypes.CFUNCTYPE(ctypes.c_bool, ctypes.c_void_p, ctypes.POINTER(ctypes.c_char), ctypes.c_int64)
LOG_FUNCTION = ctypes.CFUNCTYPE(None, ctypes.c_void_p, ctypes.c_int, ctypes.c_char_p)


class HooksStruct(ctypes.Structure):
    """tn_hooks"""

    _fields_ = [("user", ctypes.c_void_p), ("on_event", EVENT_FUNCTION), ("should_stop", STOP_FUNCTION)]


class KeyInfo(ctypes.Structure):
    """tn_key_info"""

    _fields_ = [(name, ctypes.c_char_p) for name in ("name", "aliases", "kind", "default_value", "help")]


# Name: result, then arguments; "p" a handle, "s" text, "i" int64, "b" bool, "*p" where a handle is put.
_KINDS = {
    "p": ctypes.c_void_p,
    "s": ctypes.c_char_p,
    "i": ctypes.c_int64,
    "b": ctypes.c_bool,
    "*p": ctypes.POINTER(ctypes.c_void_p),
    "hooks": ctypes.POINTER(HooksStruct),
    "ids": ctypes.POINTER(ctypes.c_int32),
    "on_text": TEXT_FUNCTION,
    "key": ctypes.POINTER(KeyInfo),
    "log": LOG_FUNCTION,
    "status": ctypes.c_int,
    "none": None,
}
_FACE = {
    "tn_version": "s",
    "tn_error_message": "s",
    "tn_error_remedy": "s",
    "tn_log_set": "none log p",
    "tn_doc_text": "s p",
    "tn_doc_free": "none p",
    "tn_config_new": "status s *p",
    "tn_config_free": "none p",
    "tn_config_set": "status p s s",
    "tn_config_load": "status p s",
    "tn_config_get": "s p s",
    "tn_config_key": "b s i key",
    "tn_train": "status p hooks *p",
    "tn_plan": "status p *p",
    "tn_eval": "status p hooks *p",
    "tn_bench": "status p hooks *p",
    "tn_init": "status p *p",
    "tn_data": "status p *p",
    "tn_inspect": "status p *p",
    "tn_verify": "status p *p",
    "tn_env": "status p *p",
    "tn_merge": "status p hooks *p",
    "tn_quantize_model": "status p hooks *p",
    "tn_export": "status p hooks *p",
    "tn_generator_open": "status p *p",
    "tn_generator_set": "status p s s",
    "tn_generate_text": "status p s on_text p *p",
    "tn_generate_ids": "status p ids i on_text p *p",
    "tn_generate_chat": "status p s on_text p *p",
    "tn_generator_free": "none p",
    "tn_tokenizer_open": "status s *p",
    "tn_tokenizer_free": "none p",
    "tn_tokenize_record": "status p s i b *p",
}

# ---- Finding and opening -----------------------------------------------------------------------------------

_NAMES = ("libtenon.so", "libtenon.so.0")


def _places():
    """Where the library may be, in order; each is a file or a folder that has one."""
    here = Path(__file__).resolve().parent
    yield here.parent.parent / "build"  # the checkout that this file is in
    if (here / "library_path.txt").is_file():  # `pip install ./python` found it there (python/backend.py)
        yield Path((here / "library_path.txt").read_text(encoding="utf-8").strip())
    for prefix in (sys.prefix, "/usr/local"):  # where the loader may not look
        yield Path(prefix, "lib")
        yield from Path(prefix, "lib").glob("*-linux-gnu")


def _find():
    wanted = os.environ.get("TENON_LIBRARY")
    for place in [Path(wanted)] if wanted else _places():
        for path in [place] if place.is_file() else [place / name for name in _NAMES]:
            if path.is_file():
                return str(path)
    if wanted:
        raise LibraryError(f"TENON_LIBRARY is {wanted}, and there is no libtenon.so", "name the file, or its folder")
    return ctypes.util.find_library("tenon") or _NAMES[1]


def _open():
    path = _find()
    # Before its OpenMP is loaded: threads that spin starve each other on a busy machine (docs/troubleshooting.md).
    if "OMP_WAIT_POLICY" not in os.environ:
        os.environ.setdefault("GOMP_SPINCOUNT", "5000")
    try:  # global: libtenon-cuda.so takes the error message and the log from it
        lib = ctypes.CDLL(path, mode=ctypes.RTLD_GLOBAL)
    except OSError as error:
        raise LibraryError(
            f"libtenon was not found or cannot be opened ({error})",
            "build it with `make` in a checkout of tenon, then `make install`, or set TENON_LIBRARY=…/build/libtenon.so",
        ) from None
    for name, kinds in _FACE.items():
        try:
            function = getattr(lib, name)
        except AttributeError:
            raise LibraryError(f"{path} has no {name}: it is of another version", "build it anew with `make`") from None
        result, *arguments = [_KINDS[kind] for kind in kinds.split()]
        function.restype, function.argtypes = result, arguments
    version = lib.tn_version().decode()
    if version != __version__:
        raise LibraryError(
            f"{path} is tenon {version}, and this package is {__version__}", "install both from one checkout"
        )
    lib.tn_log_set(_log_function, None)
    return lib


_lock = threading.Lock()
_lib = None


def library():
    global _lib
    with _lock:
        if _lib is None:
            _lib = _open()
    return _lib


# ---- What is said ------------------------------------------------------------------------------------------

_said = set()
_silent = threading.local()


def say(line):
    """Progress goes to stderr, as the program's does."""
    print(line, file=sys.stderr, flush=True)


def say_once(line):
    if line not in _said:
        _said.add(line)
        say(line)


def _on_log(_user, level, line):
    try:
        if getattr(_silent, "on", False):
            return
        text = line.decode("utf-8", "replace")
        # Steps of one notebook open the same model again and again: what was said of it stands.
        say_once(f"tenon: warning: {text}" if level else f"tenon: {text}")
    except Exception:  # a closed stderr is no reason to fail
        pass


_log_function = LOG_FUNCTION(_on_log)


class silence:
    """Checking an argument says nothing; using it does."""

    def __enter__(self):
        _silent.on = True

    def __exit__(self, *_):
        _silent.on = False


# ---- Status, documents, configuration ------------------------------------------------------------------------


def failure(status, prefix=""):
    """The exception of a failed call; `prefix` is what its message need not say."""
    lib = library()
    message = lib.tn_error_message().decode("utf-8", "replace")
    remedy = lib.tn_error_remedy().decode("utf-8", "replace")
    if prefix and message.startswith(prefix):
        message = message[len(prefix) :]
    kind = BY_STATUS[status] if 0 < status < len(BY_STATUS) else BY_STATUS[1]
    return kind(message, remedy)


def check(status):
    if status != 0:
        raise failure(status)


def _take_document(doc):
    lib = library()
    try:
        return json.loads(lib.tn_doc_text(doc).decode("utf-8", "replace"))
    finally:
        lib.tn_doc_free(doc)


def key_text(key, value):
    """A value as the command line takes it."""
    if isinstance(value, bool):
        return "true" if value else "false"
    if isinstance(value, dict):
        return json.dumps(value, ensure_ascii=False)
    if isinstance(value, (list, tuple)):
        words = [key_text(key, item) for item in value]
        for word in words:
            if "," in word:
                raise UsageError(f"{key}: '{word}' has a comma in it, which separates the items of a list")
        return ",".join(words)
    if isinstance(value, os.PathLike):
        return os.fspath(value)
    return str(value)


class Config:
    """tn_config of one verb."""

    def __init__(self, verb, **keys):
        self.handle = ctypes.c_void_p()
        check(library().tn_config_new(verb.encode(), ctypes.byref(self.handle)))
        for key, value in keys.items():
            if value is not None:
                self.set(key, value)

    def set(self, key, value):
        text = os.fsencode(key_text(key, value))
        if b"\0" in text:
            raise UsageError(f"{key}: the value has a NUL in it")
        check(library().tn_config_set(self.handle, key.encode(), text))

    def load(self, keys):
        """Keys as a configuration file gives them, those of other programs too (docs/coming-from.md)."""
        try:
            text = json.dumps(keys, ensure_ascii=False).encode("utf-8")  # JSON is YAML
        except UnicodeEncodeError as error:
            raise UsageError(f"an argument is no UTF-8 text: {ascii(error.object[max(error.start - 30, 0) : error.end])}") from None
        with tempfile.NamedTemporaryFile("wb", suffix=".yaml", delete=False) as file:
            file.write(text)
        try:
            status = library().tn_config_load(self.handle, os.fsencode(file.name))
            if status != 0:
                raise failure(status, prefix=file.name + ": ")
        finally:
            os.unlink(file.name)

    def get(self, key):
        value = library().tn_config_get(self.handle, key.encode())
        return None if value is None else value.decode("utf-8", "replace")

    def __del__(self):
        if getattr(self, "handle", None) and _lib is not None:
            _lib.tn_config_free(self.handle)
            self.handle = None


_keys = {}


def keys_of(verb):
    """Every name and alias that `verb` knows, each with its key."""
    if verb not in _keys:
        lib, info, index, names = library(), KeyInfo(), 0, {}
        while lib.tn_config_key(verb.encode(), index, ctypes.byref(info)):
            name = info.name.decode()
            names[name] = name
            names.update({alias: name for alias in info.aliases.decode().split(",") if alias})
            index += 1
        _keys[verb] = names
    return _keys[verb]


# ---- Calls that run long -------------------------------------------------------------------------------------


class Running:
    """Around a call that calls back. Callbacks run through `guard`, which keeps what they raise: from then on
    should_stop says yes, and `finish` raises it. Ctrl-C is remembered the same way, where this is the main thread.
    """

    def __init__(self):
        self.error, self.interrupted, self._old = None, False, None

    def __enter__(self):
        if threading.current_thread() is threading.main_thread() and callable(signal.getsignal(signal.SIGINT)):
            self._old = signal.signal(signal.SIGINT, self._on_signal)
        return self

    def __exit__(self, *_):
        if self._old is not None:
            signal.signal(signal.SIGINT, self._old)

    def _on_signal(self, _number, _frame):
        self.interrupted = True

    @property
    def stopping(self):
        return self.interrupted or self.error is not None

    def guard(self, function, *arguments):
        try:
            if self.error is None:
                return function(*arguments)
        except BaseException as error:  # it must not end in C: ctypes would print it and go on
            self.error = error
        return None

    def finish(self, status, doc=None):
        """The document; else raises the callback's exception, KeyboardInterrupt, or the library's failure."""
        failed = failure(status) if status != 0 else None
        answer = _take_document(doc) if doc and failed is None else None
        if self.error is not None:
            raise self.error from failed
        if self.interrupted:
            raise KeyboardInterrupt(str(failed) if failed else "interrupted as the work ended") from failed
        if failed:
            raise failed
        return answer


def call(name, config, on_event=None, should_stop=None):
    """Runs tn_`name`; its answer as Python's dict. `on_event(event)` and `should_stop()` may raise."""
    doc, function = ctypes.c_void_p(), getattr(library(), "tn_" + name)
    if "hooks" not in _FACE["tn_" + name]:
        check(function(config.handle, ctypes.byref(doc)))
        return _take_document(doc)
    with Running() as running:

        def event(_user, pointer):
            if on_event:
                running.guard(on_event, pointer.contents)

        def stop(_user):
            wanted = running.guard(should_stop) if should_stop else False
            return bool(wanted) or running.stopping

        functions = EVENT_FUNCTION(event), STOP_FUNCTION(stop)  # kept alive here
        hooks = HooksStruct(None, *functions)
        status = function(config.handle, ctypes.byref(hooks), ctypes.byref(doc))
    return running.finish(status, doc)


def _ids(prompt):
    """int32 for C, which ctypes would make of any integer by leaving its upper bits out."""
    for token in prompt:
        if not hasattr(token, "__index__") or not 0 <= token < 2**31:
            raise UsageError(f"generate: {token!r} is no token id", "give what the tokenizer makes of a text")
    return (ctypes.c_int32 * len(prompt))(*prompt)


class Generator:
    """tn_generator: a base model, with its adapter, open for sampling. It is one thread's at a time: another waits,
    and a callback that comes back to the one it was called by is told so."""

    def __init__(self, **keys):
        self.handle, self._config = ctypes.c_void_p(), Config("chat", **keys)
        self._lock, self._owner = threading.Lock(), None
        check(library().tn_generator_open(self._config.handle, ctypes.byref(self.handle)))

    @contextlib.contextmanager
    def _alone(self):
        if self._owner == threading.get_ident():
            raise UsageError(
                "the model is at work on an answer, and a streamer or callback of that answer wants it",
                "return from it first; returning False ends the answer",
            )
        with self._lock:
            self._owner = threading.get_ident()
            try:
                yield
            finally:
                self._owner = None

    def generate(self, kind, prompt, on_text=None, **keys):
        """`kind`: "text", "chat" (JSON) or "ids". `on_text(text)` gets the answer in pieces; False ends it. `keys` are
        set before, and stay."""
        with self._alone():
            if not self.handle:
                raise UsageError("the model was closed before its answer began", "generate again")
            for key, value in keys.items():
                check(library().tn_generator_set(self.handle, key.encode(), key_text(key, value).encode()))
            return self._generate(kind, prompt, on_text)

    def _generate(self, kind, prompt, on_text):
        doc, lib = ctypes.c_void_p(), library()
        with Running() as running:

            def text(_user, data, count):
                piece = ctypes.string_at(data, count).decode("utf-8", "replace")
                return not (on_text and running.guard(on_text, piece) is False) and not running.stopping

            function = TEXT_FUNCTION(text)
            if kind == "ids":
                given = (_ids(prompt), len(prompt))
            elif "\0" in prompt:
                raise BadDataError("the prompt has a NUL in it")
            else:
                try:
                    given = (prompt.encode("utf-8"),)
                except UnicodeEncodeError:
                    raise BadDataError("the prompt has half of a surrogate pair in it, which is no character") from None
            status = getattr(lib, "tn_generate_" + kind)(self.handle, *given, function, None, ctypes.byref(doc))
        return running.finish(status, doc)

    def close(self):
        with self._alone():
            if self.handle and _lib is not None:
                _lib.tn_generator_free(self.handle)
            self.handle = None

    def __del__(self):
        if hasattr(self, "_lock"):
            self.close()


class TokenizerHandle:
    """tn_tokenizer"""

    def __init__(self, path):
        self.handle = ctypes.c_void_p()
        check(library().tn_tokenizer_open(os.fsencode(path), ctypes.byref(self.handle)))

    def record(self, record, add_special_tokens=True):
        doc, text = ctypes.c_void_p(), json.dumps(record, ensure_ascii=False).encode("utf-8", "surrogatepass")
        check(library().tn_tokenize_record(self.handle, text, len(text), add_special_tokens, ctypes.byref(doc)))
        return _take_document(doc)

    def __del__(self):
        if getattr(self, "handle", None) and _lib is not None:
            _lib.tn_tokenizer_free(self.handle)
            self.handle = None
