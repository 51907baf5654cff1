"""model.generate's arguments as the library's sampling keys, and text as it comes.

Greedy unless sampling is asked for: do_sample=True, or a temperature, top_p, top_k or min_p without do_sample=False.
"""

import sys

from .arguments import ignored, refuse, refuse_unknown
from .errors import UsageError
from .tokenizer import Ids, to_list

_KNOWN = (
    "input_ids inputs attention_mask max_new_tokens max_length do_sample temperature top_p top_k min_p "
    "repetition_penalty seed streamer use_cache pad_token_id eos_token_id"
).split()


def rows_of(ids, attention_mask):
    """Rows of ids, without the padding that a mask marks."""
    if hasattr(ids, "get"):
        ids, attention_mask = ids.get("input_ids"), ids.get("attention_mask", attention_mask)
    if ids is None:
        raise UsageError(
            "generate: nothing to continue", "give input_ids: tokenizer(text) or tokenizer.apply_chat_template(…)"
        )
    try:
        if isinstance(ids, (str, bytes)):
            raise TypeError
        rows = to_list(ids)
        if rows and isinstance(rows[0], int):
            rows = [rows]
        rows = [to_list(row) for row in rows]
    except TypeError:
        raise UsageError(
            f"generate: input_ids is {ids!r:.60}, and no list of ids", "give what tokenizer(text) gives"
        ) from None
    masks = None if attention_mask is None else to_list(attention_mask)
    if masks and isinstance(masks[0], int):
        masks = [masks]
    if masks is None:
        return rows
    masks = [to_list(mask) for mask in masks]
    if [len(mask) for mask in masks] != [len(row) for row in rows]:
        raise UsageError("generate: attention_mask and input_ids are not of one shape")
    return [[token for token, seen in zip(row, mask) if seen] for row, mask in zip(rows, masks)]


def sampling(
    max_new_tokens=None,
    do_sample=None,
    temperature=None,
    top_p=None,
    top_k=None,
    min_p=None,
    repetition_penalty=None,
    seed=None,
    **_,
):
    """The library's keys, every one of them: an open generator keeps what it was told before."""
    asked = any(value is not None for value in (top_p, top_k, min_p)) or temperature not in (None, 0)
    sample = asked if do_sample is None else do_sample
    if sample and temperature == 0:
        raise UsageError("generate: do_sample=True with temperature=0", "leave out do_sample for the likeliest tokens")
    if do_sample is False and asked:
        ignored(
            "generate",
            "do_sample=False takes the likeliest token",
            temperature=temperature,
            top_p=top_p,
            top_k=top_k,
            min_p=min_p,
        )
    return {
        "max_new_tokens": 256 if max_new_tokens is None else max_new_tokens,
        "temperature": 0 if not sample else 1 if temperature is None else temperature,
        "top_p": 1 if top_p is None or not sample else top_p,
        "top_k": 0 if top_k is None or not sample else top_k,
        "min_p": 0 if min_p is None or not sample else min_p,
        "repetition_penalty": 1 if repetition_penalty is None else repetition_penalty,
        "seed": 3407 if seed is None else seed,
    }


def check(unknown, use_cache=None, pad_token_id=None, eos_token_id=None, tokenizer=None):
    for name, value, allowed in (
        ("num_return_sequences", 1, (None, 1)),
        ("num_beams", 1, (None, 1)),
        ("return_dict_in_generate", False, (None, False)),
        ("synced_gpus", False, (None, False)),
    ):
        refuse("generate", name, unknown.pop(name, value), allowed, "leave it out")
    refuse_unknown("generate", unknown, _KNOWN)
    if use_cache is False:
        ignored("generate", "keys and values are always kept", use_cache="False")
    given = eos_token_id if isinstance(eos_token_id, (list, tuple)) else [eos_token_id]
    if tokenizer is not None and any(one not in (None, tokenizer.eos_token_id) for one in given):
        raise UsageError(
            f"generate: eos_token_id={eos_token_id}",
            "leave it out: it stops at the model's own, which generation_config.json lists",
        )


class TextStreamer:
    """Prints a text as it comes. The prompt comes first, unless skip_prompt."""

    def __init__(self, tokenizer, skip_prompt=False, skip_special_tokens=True, **unknown):
        refuse_unknown("TextStreamer", unknown, ("tokenizer", "skip_prompt", "skip_special_tokens"))
        self.tokenizer, self.skip_prompt = tokenizer, skip_prompt

    def on_finalized_text(self, text, stream_end=False):
        print(text, end="\n" if stream_end else "", flush=True, file=sys.stdout)


def run(generator, tokenizer, ids, attention_mask, streamer, max_length, arguments):
    """Each row and what it goes on with, as rows of ids."""
    rows, answers = rows_of(ids, attention_mask), []
    if streamer is not None and not hasattr(streamer, "on_finalized_text"):
        raise UsageError(
            "generate: streamer has no on_finalized_text(text, stream_end)",
            "tenon.TextStreamer has, and Transformers' have",
        )
    if streamer is not None and len(rows) != 1:
        raise UsageError(f"generate: a streamer with {len(rows)} prompts", "give one")
    for row in rows:
        keys = sampling(**arguments)
        if max_length is not None and arguments.get("max_new_tokens") is None:
            keys["max_new_tokens"] = max(max_length - len(row), 1)
        if streamer is not None and not getattr(streamer, "skip_prompt", False):
            streamer.on_finalized_text(tokenizer.decode(row), False)
        on_text = None if streamer is None else lambda text: streamer.on_finalized_text(text, False)
        answers.append(row + generator.generate("ids", row, on_text, **keys)["ids"])
        if streamer is not None:
            streamer.on_finalized_text("", True)
    return Ids(answers)
