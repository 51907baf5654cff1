"""Data as notebooks have it, to the files that the library reads. Paths go to it as they are. Records (a list of
dicts, or anything with to_list() or an iterator of dicts, such as a Dataset of Hugging Face's) are written as JSON
lines into the cache, under the hash of what they say: the same records are the same file, so that a run that is
resumed by running its script again finds its data unchanged.
"""

import hashlib
import json
import os
import time
from pathlib import Path

from .arguments import plain
from .errors import BadDataError, UsageError

KEPT_DAYS = 30  # a file that no run has used for so long goes when another one is written


def is_path(data):
    return isinstance(data, (str, os.PathLike))


def is_paths(data):
    return is_path(data) or isinstance(data, (list, tuple)) and bool(data) and all(map(is_path, data))


def _parse(path, number, text):
    try:
        return json.loads(text)
    except ValueError as error:
        raise BadDataError(f"{path}, line {number}: {error}", "a line is a JSON record") from None


def read(path):
    """The records of a .jsonl or .json file."""
    path = Path(path)
    if path.suffix not in (".jsonl", ".json"):
        raise UsageError(f"{path}: its records are not read in Python", "give .jsonl or .json, or a list of records")
    try:
        text = path.read_text(encoding="utf-8-sig")
    except FileNotFoundError:
        raise UsageError(f"the data set {path} does not exist", "give a local file") from None
    except (OSError, UnicodeError) as error:
        raise BadDataError(f"{path} cannot be read: {error}") from None
    if path.suffix == ".json" and text.lstrip().startswith("["):
        return _parse(path, 1, text)
    return [_parse(path, i, line) for i, line in enumerate(text.split("\n"), 1) if line.strip()]


def records_of(data, name="train_dataset"):
    """A list of dicts of anything that holds them."""
    if is_paths(data):
        return [record for path in ([data] if is_path(data) else data) for record in read(path)]
    if isinstance(data, dict):
        what = "a split of it, e.g. dataset['train']" if data and not is_path(next(iter(data.values()))) else "a list"
        raise UsageError(f"{name} is a map of {', '.join(map(str, list(data)[:5]))}", f"give {what}")
    if hasattr(data, "to_list"):
        data = data.to_list()
    try:
        records = list(data)
    except TypeError:
        raise UsageError(
            f"{name} is a {type(data).__name__}", "give a list of dicts, a path, or an object with to_list()"
        ) from None
    if not records:
        raise BadDataError(f"{name} is empty")
    for i, record in enumerate(records):
        if not isinstance(record, dict):
            raise UsageError(
                f"{name}[{i}] is a {type(record).__name__}, not a dict",
                "a record is a dict, e.g. {'text': …} or {'messages': […]}",
            )
    return records


def formatted(records, function, name="formatting_func"):
    """What formatting_func makes of them: one text for a record, or a list of texts for a map of columns."""
    first = function(records[0])
    if isinstance(first, str):
        texts = [first] + [function(record) for record in records[1:]]
    else:
        texts = list(function({key: [record.get(key) for record in records] for key in records[0]}))
    if len(texts) != len(records) or not all(isinstance(text, str) for text in texts):
        raise UsageError(
            f"{name} gives {len(texts)} texts for {len(records)} records", "it gives one text for each record"
        )
    return [{"text": text} for text in texts]


def chosen(records, text_field="text"):
    """The columns that are trained on: ids where there are some, else the text where there is one; all otherwise, and
    the library finds the shape. A record of a notebook often has its conversation still beside the text made of it."""
    keys = records[0]
    if "input_ids" in keys:
        wanted = {name: name for name in ("input_ids", "labels", "attention_mask") if name in keys}
    elif text_field in keys:
        wanted = {text_field: "text"}
    elif text_field not in (None, "", "text", "messages"):
        raise UsageError(
            f"dataset_text_field: records have no '{text_field}'", f"they have {', '.join(map(str, keys))}"
        )
    else:
        return records
    for i, record in enumerate(records):
        missing = [name for name in wanted if record.get(name) is None]
        if missing:
            raise BadDataError(f"record {i} has no '{missing[0]}', and the first one has")
    return [{new: record[old] for old, new in wanted.items()} for record in records]


def _picture(number, value):
    """A picture as a record names it, its path from here: the file that the record goes to lies elsewhere."""
    if isinstance(value, (list, tuple)):
        return [_picture(number, one) for one in value]
    if isinstance(value, dict):
        return {key: _picture(number, one) if key in ("path", "url") else one for key, one in value.items()}
    if is_path(value):
        path = os.fspath(value)
        return path if "://" in path or path.startswith("data:") else os.path.abspath(path)
    if hasattr(value, "convert") and hasattr(value, "size"):  # Pillow's
        raise BadDataError(
            f"record {number} holds a picture in memory ({type(value).__name__})",
            "save it as a PNG file (picture.save) and give its path: pictures are read from files",
        )
    return value


def _with_pictures(number, record):
    """The record, or a part of a message, with the paths of its pictures made absolute."""
    if isinstance(record, (list, tuple)):
        return [_with_pictures(number, one) for one in record]
    if not isinstance(record, dict):
        return record
    pictures = ("images", "image", "image_url")
    if record.get("type") == "image":
        pictures += ("path", "url")
    nested = ("messages", "conversations", "prompt", "completion", "content", "value")
    found = {key: _picture(number, record[key]) for key in pictures if key in record}
    found.update({key: _with_pictures(number, record[key]) for key in nested if key in record})
    return {**record, **found}


def _line(number, record):
    try:
        return json.dumps(plain(f"record {number}", _with_pictures(number, _lists(record))))
    except UsageError as error:
        raise BadDataError(error.message, "leave the column out, or make texts or numbers of it") from None


def _lists(record):
    """Arrays and tensors as lists."""
    return {key: value.tolist() if hasattr(value, "tolist") else value for key, value in record.items()}


def _folder():
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "tenon" / "datasets"


def _sweep(folder):
    for path in folder.glob("*.jsonl"):
        try:
            if time.time() - path.stat().st_mtime > KEPT_DAYS * 86400:
                path.unlink()
        except OSError:
            pass


def write(records):
    """The file that holds them. Its name is their hash; it appears when it is whole."""
    data = "".join(_line(i, record) + "\n" for i, record in enumerate(records)).encode()
    path = _folder() / (hashlib.blake2b(data, digest_size=16).hexdigest() + ".jsonl")
    path.parent.mkdir(parents=True, exist_ok=True)
    if path.is_file() and path.stat().st_size == len(data):
        os.utime(path)
        return path
    _sweep(path.parent)
    temporary = path.with_name(f"{path.name}.{os.getpid()}.tmp-tenon")
    try:
        with open(temporary, "wb") as file:
            file.write(data)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return path


def files(data, formatting=None, text_field=None, name="train_dataset"):
    """Paths for the key `dataset`."""
    if is_paths(data) and formatting is None and text_field in (None, "", "text", "messages"):
        return [os.fspath(path) for path in ([data] if is_path(data) else data)]
    records = records_of(data, name)
    return [os.fspath(write(formatted(records, formatting) if formatting else chosen(records, text_field or "text")))]
