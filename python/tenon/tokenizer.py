"""A tokenizer with the calls of Transformers' that notebooks use. Ids, templates and decoding are the library's.

Ids come as lists, never as tensors: `return_tensors` gives `Ids`, a list of rows that knows its shape and takes
`.to(device)`, so that a notebook's lines run as they are and torch is not needed. Nothing is ever padded.
"""

import json
import os
import shutil
import tempfile
from pathlib import Path

from ._library import TokenizerHandle
from .arguments import drop_upload, ignored, no_network, refuse, refuse_unknown
from .errors import BadDataError, UsageError

FILES = (
    "tokenizer.json tokenizer_config.json special_tokens_map.json chat_template.jinja added_tokens.json "
    "tokenizer.model vocab.json merges.txt"
).split()


_CALL = "text add_special_tokens padding truncation max_length return_tensors return_attention_mask".split()


class Ids(list):
    """Rows of ids. Of a tensor's calls those that need no arithmetic: shape, size, to, cpu, tolist, [row, columns]."""

    @property
    def shape(self):
        return (len(self), max(map(len, self), default=0))

    def size(self, dimension=None):
        return self.shape if dimension is None else self.shape[dimension]

    def to(self, *_, **__):
        return self

    cpu = cuda = long = detach = clone = to

    def tolist(self):
        return [list(row) for row in self]

    def __getitem__(self, index):
        if isinstance(index, tuple):
            rows, columns = index
            return Ids(row[columns] for row in self[rows]) if isinstance(rows, slice) else self[rows][columns]
        found = super().__getitem__(index)
        return Ids(found) if isinstance(index, slice) else found


class Encoding(dict):
    """What a call of a tokenizer gives: input_ids and attention_mask, by key or by name."""

    def __getattr__(self, name):
        try:
            return self[name]
        except KeyError:
            raise AttributeError(name) from None

    def to(self, *_, **__):
        return self


def to_list(value):
    """Plain lists of tensors, arrays and our own rows."""
    return value.tolist() if hasattr(value, "tolist") else list(value)


def _read_json(path):
    try:
        return json.loads(Path(path).read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return {}


def _token_text(value):
    return value.get("content") if isinstance(value, dict) else value


_ROLES = {"human": "user", "gpt": "assistant"}


def with_roles(messages):
    """ShareGPT's from and value as role and content."""
    return [
        (
            {
                **{key: value for key, value in one.items() if key not in ("from", "value")},
                "role": _ROLES.get(one["from"], one["from"]),
                "content": one["value"],
            }
            if "from" in one and "value" in one and "role" not in one
            else one
        )
        for one in messages
    ]


class Tokenizer:
    """`path`: a folder with tokenizer.json, such a file, or a GGUF file. Opened at the first use, so that it can be
    sent to other processes (datasets' map)."""

    padding_side, is_fast, model_input_names = "right", True, ["input_ids", "attention_mask"]

    def __init__(self, path, chat_template=None):
        self.name_or_path = os.fspath(path)
        self._template, self._handle, self._special = chat_template, None, None
        folder = Path(path) if Path(path).is_dir() else Path(path).parent
        is_gguf = Path(path).suffix == ".gguf"
        self._config = {} if is_gguf else _read_json(folder / "tokenizer_config.json")
        self._map = {} if is_gguf else _read_json(folder / "special_tokens_map.json")
        self.model_max_length = self._config.get("model_max_length")

    def __getstate__(self):
        return {**self.__dict__, "_handle": None}

    # ---- The library's tokenizer -------------------------------------------------------------------------------

    def _open(self):
        if self._handle is None:
            self._handle = self._with_template() if self._template else TokenizerHandle(self.name_or_path)
        return self._handle

    def _source(self):
        path = Path(self.name_or_path)
        return path if path.is_dir() else path.parent

    def _with_template(self):
        """Opened from a folder of links to the tokenizer's files, in which the other template stands in its place."""
        if Path(self.name_or_path).suffix == ".gguf":
            raise UsageError("the chat template of a GGUF file's tokenizer cannot be replaced here")
        with tempfile.TemporaryDirectory(prefix="tenon-tokenizer-") as folder:
            for name in FILES:
                if (self._source() / name).is_file() and name != "chat_template.jinja":
                    os.symlink((self._source() / name).resolve(), Path(folder) / name)
            (Path(folder) / "chat_template.jinja").write_text(self._template, encoding="utf-8")
            return TokenizerHandle(folder)

    def _record(self, record, add_special_tokens=True):
        answer = self._open().record(record, add_special_tokens)
        if "error" in answer:
            raise BadDataError(f"the chat template rejects the conversation: {answer['error']}")
        return answer

    # ---- Text to ids and back ----------------------------------------------------------------------------------

    def _ids(self, text, add_special_tokens, truncation=False, max_length=None):
        if not isinstance(text, str):
            raise UsageError(f"a text was expected, this is {type(text).__name__}")
        ids = self._record({"text": text}, add_special_tokens)["ids"]
        return ids[:max_length] if truncation and max_length else ids

    def __call__(
        self,
        text=None,
        text_pair=None,
        add_special_tokens=True,
        padding=False,
        truncation=False,
        max_length=None,
        return_tensors=None,
        return_attention_mask=True,
        padding_side=None,
        images=None,
        **unknown,
    ):
        refuse_unknown("tokenizer", unknown, _CALL)
        refuse("tokenizer", "text_pair", text_pair, (None,), "give one text; join the two beforehand")
        refuse("tokenizer", "images", images, (None,), "tenon.generate(model=…, messages=[…]) answers what has pictures")
        ignored(
            "tokenizer",
            "nothing is ever padded; rows have the lengths of their texts",
            padding=padding,
            padding_side=padding_side,
        )
        several = isinstance(text, (list, tuple))
        rows = [self._ids(one, add_special_tokens, truncation, max_length) for one in (text if several else [text])]
        masks = [[1] * len(row) for row in rows]
        if return_tensors:
            rows, masks = Ids(rows), Ids(masks)
        elif not several:
            rows, masks = rows[0], masks[0]
        return Encoding(input_ids=rows, attention_mask=masks) if return_attention_mask else Encoding(input_ids=rows)

    def encode(self, text, add_special_tokens=True, return_tensors=None, truncation=False, max_length=None):
        ids = self._ids(text, add_special_tokens, truncation, max_length)
        return Ids([ids]) if return_tensors else ids

    def tokenize(self, text, add_special_tokens=False):
        """The text of each token."""
        return [self.decode([one]) for one in self._ids(text, add_special_tokens)]

    def decode(self, token_ids, skip_special_tokens=False, clean_up_tokenization_spaces=None):
        ids = [token_ids] if isinstance(token_ids, int) else to_list(token_ids)
        if len(ids) == 1 and isinstance(ids[0], list):
            ids = ids[0]
        if skip_special_tokens:
            special = set(self.all_special_ids)
            ids = [one for one in ids if one not in special]
        return self._record({"ids": ids})["text"] if ids else ""

    def batch_decode(self, sequences, skip_special_tokens=False, clean_up_tokenization_spaces=None):
        return [self.decode(row, skip_special_tokens) for row in to_list(sequences)]

    def convert_tokens_to_ids(self, tokens):
        if not isinstance(tokens, str):
            return [self.convert_tokens_to_ids(one) for one in tokens]
        ids = self._ids(tokens, False)
        return ids[0] if len(ids) == 1 else None

    # ---- Chats ---------------------------------------------------------------------------------------------------

    def apply_chat_template(
        self,
        conversation,
        tools=None,
        documents=None,
        chat_template=None,
        add_generation_prompt=False,
        continue_final_message=False,
        tokenize=True,
        padding=False,
        truncation=False,
        max_length=None,
        return_tensors=None,
        return_dict=False,
        **variables,
    ):
        """Text, or ids with `tokenize`. `variables` are the template's own (enable_thinking=False, …)."""
        if continue_final_message:
            raise UsageError("continue_final_message is not known here", "add_generation_prompt=True begins an answer")
        if chat_template is not None:
            return Tokenizer(self.name_or_path, chat_template).apply_chat_template(
                conversation,
                tools,
                documents,
                None,
                add_generation_prompt,
                False,
                tokenize,
                padding,
                truncation,
                max_length,
                return_tensors,
                return_dict,
                **variables,
            )
        conversation = to_list(conversation)
        several = bool(conversation) and not isinstance(conversation[0], dict)
        answers = []
        for messages in conversation if several else [conversation]:
            record = {
                "messages": with_roles(messages),
                "add_generation_prompt": bool(add_generation_prompt),
                "kwargs": variables,
            }
            record.update({key: value for key, value in (("tools", tools), ("documents", documents)) if value})
            answers.append(self._record(record))
        if not tokenize:
            return [one["text"] for one in answers] if several else answers[0]["text"]
        rows = Ids(one["ids"][:max_length] if truncation else one["ids"] for one in answers)
        if not return_tensors:
            rows = list(rows) if several else rows[0]
        if not return_dict:
            return rows
        masks = [[1] * len(row) for row in rows] if several or return_tensors else [1] * len(rows)
        return Encoding(input_ids=rows, attention_mask=Ids(masks) if return_tensors else masks)

    @property
    def chat_template(self):
        if self._template:
            return self._template
        file = self._source() / "chat_template.jinja"
        return file.read_text(encoding="utf-8") if file.is_file() else self._config.get("chat_template")

    @chat_template.setter
    def chat_template(self, text):
        self._template, self._handle = text, None

    @property
    def replaced_template(self):
        """The template's text where it is not the tokenizer's own, else None: the key chat_template."""
        return self._template

    # ---- Special tokens ------------------------------------------------------------------------------------------

    def _gguf_token(self, name):
        from .verbs import inspect

        if Path(self.name_or_path).suffix != ".gguf":
            return None
        number = inspect(self.name_or_path)["metadata"].get(f"tokenizer.ggml.{name[:3]}_token_id")
        return None if number is None else self.decode([int(number)])

    def _special_token(self, name):
        for place in (self._config, self._map):
            if _token_text(place.get(name)):
                return _token_text(place[name])
        return self._gguf_token(name)

    bos_token = property(lambda self: self._special_token("bos_token"))
    eos_token = property(lambda self: self._special_token("eos_token"))
    unk_token = property(lambda self: self._special_token("unk_token"))
    bos_token_id = property(lambda self: self._id_of(self.bos_token))
    eos_token_id = property(lambda self: self._id_of(self.eos_token))
    unk_token_id = property(lambda self: self._id_of(self.unk_token))
    pad_token_id = property(lambda self: self._id_of(self.pad_token))

    @property
    def pad_token(self):
        return self.__dict__.get("_pad") or self._special_token("pad_token")

    @pad_token.setter
    def pad_token(self, token):  # notebooks set it to eos_token; nothing is padded, so it decides nothing
        self._pad = token

    def _id_of(self, token):
        return None if token is None else self.convert_tokens_to_ids(token)

    @property
    def all_special_ids(self):
        if self._special is None:
            added = _read_json(self._source() / "tokenizer.json").get("added_tokens", []) if self._config else []
            named = (self.bos_token_id, self.eos_token_id, self.unk_token_id, self.pad_token_id)
            special = {one["id"] for one in added if one.get("special")}
            self._special = sorted(special | {one for one in named if one is not None})
        return self._special

    def __len__(self):
        tree = _read_json(self._source() / "tokenizer.json")
        vocabulary = tree.get("model", {}).get("vocab", ())
        known = set(vocabulary if isinstance(vocabulary, dict) else (entry[0] for entry in vocabulary))
        return len(known | {one["content"] for one in tree.get("added_tokens", [])})

    vocab_size = property(__len__)

    def __bool__(self):
        return True

    def add_special_tokens(self, *_, **__):
        raise UsageError("a tokenizer's tokens are not changed here", "add new ones to its files beforehand")

    add_tokens = add_special_tokens

    # ---- Files ---------------------------------------------------------------------------------------------------

    def save_pretrained(self, save_directory, **unknown):
        """Copies the tokenizer's files, with the chat template that it has now."""
        drop_upload(unknown)
        refuse_unknown("tokenizer.save_pretrained", unknown, ["save_directory"])
        if Path(self.name_or_path).suffix == ".gguf":
            raise UsageError(
                "the tokenizer of a GGUF file stays in it", "save_pretrained_merged writes one beside the model"
            )
        folder, written = Path(save_directory), []
        folder.mkdir(parents=True, exist_ok=True)
        for name in FILES:
            source = self._source() / name
            if (
                source.is_file()
                and not (folder / name).exists()
                or source.is_file()
                and not source.samefile(folder / name)
            ):
                copy_file(source, folder / name)
                written.append(str(folder / name))
        if self._template:
            write_file(folder / "chat_template.jinja", self._template)
            written.append(str(folder / "chat_template.jinja"))
        return tuple(written)

    def push_to_hub(self, *_, **__):
        raise no_network()


def write_file(path, text):
    temporary = Path(f"{path}.tmp-tenon")
    temporary.write_text(text, encoding="utf-8")
    os.replace(temporary, path)


def copy_file(source, target):
    """Appears under its name when it is whole and on the disk."""
    temporary = f"{target}.tmp-tenon"
    shutil.copyfile(source, temporary)
    with open(temporary, "rb+") as file:
        os.fsync(file.fileno())
    os.replace(temporary, target)
