"""What notebooks import from unsloth.chat_templates."""

from pathlib import Path

from ._library import Config, call, silence
from .arguments import refuse_unknown
from .datasets import records_of
from .errors import UsageError
from .tokenizer import Tokenizer, with_roles
from .trainer import train_on_responses_only

__all__ = ["get_chat_template", "standardize_sharegpt", "standardize_data_formats", "train_on_responses_only"]

_MAPPING = {
    "role": ("role", "from"),
    "content": ("content", "value"),
    "user": ("user", "human"),
    "assistant": ("assistant", "gpt"),
}


def get_chat_template(tokenizer, chat_template="chatml", mapping=None, map_eos_token=True, **unknown):
    """The tokenizer with a template: its text, or a .jinja file. A name (llama-3.1, chatml) must be that of the
    tokenizer's own, which stays. Conversations in from and value are understood without a mapping."""
    refuse_unknown("get_chat_template", unknown, ("tokenizer", "chat_template", "mapping", "map_eos_token"))
    for key, value in (mapping or {}).items():
        if value not in _MAPPING.get(key, ()):
            raise UsageError(
                f"get_chat_template: mapping of {key} to {value!r}",
                "rename it in the records: role or from, content or value, user or human, assistant or gpt",
            )
    text = chat_template
    if "{%" not in text and "{{" not in text:
        if not Path(text).is_file():
            name = text.replace("-", "").replace(".", "")
            with silence():
                config = Config("plan", model=tokenizer.name_or_path, chat_template=name)
                call("plan", config)
            return tokenizer
        text = Path(text).read_text(encoding="utf-8")
    return Tokenizer(tokenizer.name_or_path, text)


def standardize_sharegpt(dataset, **unknown):
    """Records of `conversations` in role and content; a list of dicts."""
    refuse_unknown("standardize_sharegpt", unknown, ("dataset",))
    return [
        {key: with_roles(value) if key in ("conversations", "messages") else value for key, value in record.items()}
        for record in records_of(dataset, "dataset")
    ]


standardize_data_formats = standardize_sharegpt
