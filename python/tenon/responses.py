"""Loss on the answers of rendered chats: train_on_responses_only with the texts that begin a question and an answer.

The library's own masking needs conversations, for it follows the chat template. A notebook that has rendered its
chats to `text` has told nobody where the answers are; there the markers say it. Records are tokenised by the verb
`data`, so the ids are those that training would have seen, and handed back as input_ids and labels.

A token is labelled from the one behind `response_part` up to the one in front of the next `instruction_part`, or the
end of the record; both markers, and what is in front of the first answer, have no loss.
"""

import json
import os
import tempfile

from . import datasets
from ._library import Config, call, silence
from .errors import BadDataError, UsageError

PIECE = 4096  # records tokenised at a time: the answer of the verb is one document


def _found(ids, part):
    """Where the ids `part` stand in `ids`."""
    first, length = part[0], len(part)
    return [i for i in range(len(ids) - length + 1) if ids[i] == first and ids[i : i + length] == part]


class Marker:
    """A text, and where it stands among ids: (first, behind the last) for each time."""

    def __init__(self, tokenizer, text):
        self.tokenizer, self.text = tokenizer, text
        self.ids = tokenizer.encode(text, add_special_tokens=False)

    def spans(self, ids, text):
        """`text` is what the ids decode to. Most markers begin and end as tokens do; where one does not (its last space
        became part of the next word), the token that its end cuts through is not counted to it."""
        found = _found(ids, self.ids)
        if len(found) == text.count(self.text):
            return [(at, at + len(self.ids)) for at in found]
        spans, at = [], text.find(self.text)
        while at >= 0:
            spans.append((self._tokens_before(ids, at), self._tokens_before(ids, at + len(self.text))))
            at = text.find(self.text, at + len(self.text))
        return spans

    def _tokens_before(self, ids, characters):
        """How many whole tokens lie in front of a character."""
        low, high = 0, len(ids)
        while low < high:
            middle = (low + high) // 2
            if len(self.tokenizer.decode(ids[:middle])) < characters:
                low = middle + 1
            else:
                high = middle
        return low - 1 if len(self.tokenizer.decode(ids[:low])) > characters else low


def labels_of(ids, question, answer):
    """-100 where a token has no loss."""
    text = answer.tokenizer.decode(ids)
    starts = {behind for _, behind in answer.spans(ids, text)}
    ends = {first for first, _ in question.spans(ids, text)}
    labels, labelled = [], False
    for i, token in enumerate(ids):
        labelled = (labelled or i in starts) and i not in ends
        labels.append(token if labelled else -100)
    return labels


def _samples(paths, keys):
    """The records as training would see them, tokenised and cut."""
    with silence():
        config = Config("data")
        config.load({**keys, "dataset": paths, "samples": 0, "train_on_responses_only": False, "packing": False})
    return call("data", config)["samples"]


def _pieces(paths):
    """The same data in files of PIECE records, where the format allows it; each is gone when the next is asked for."""
    for path in paths:
        if not path.endswith(".jsonl") or os.path.getsize(path) < 1 << 20:
            yield path
            continue
        with open(path, "rb") as lines:
            while piece := [line for _, line in zip(range(PIECE), lines)]:
                with tempfile.NamedTemporaryFile(suffix=".jsonl") as file:
                    file.write(b"".join(piece))
                    file.flush()
                    yield file.name


def masked(paths, tokenizer, keys, instruction_part, response_part, name="train_dataset"):
    """The records of `paths` as input_ids and labels."""
    question, answer = Marker(tokenizer, instruction_part), Marker(tokenizer, response_part)
    for marker, argument in ((question, "instruction_part"), (answer, "response_part")):
        if not marker.ids:
            raise UsageError(f"train_on_responses_only: {argument} is empty")
    records = []
    for path in _pieces(paths):
        for sample in _samples([path], keys):
            labels = labels_of(sample["ids"], question, answer)
            records.append({"input_ids": sample["ids"], "labels": labels})
    if not any(label != -100 for record in records for label in record["labels"]):
        text = tokenizer.decode(records[0]["input_ids"]) if records else ""
        raise BadDataError(
            f"train_on_responses_only: no record of {name} has an answer behind {json.dumps(response_part)}",
            f"the first one is {json.dumps(text[:400], ensure_ascii=False)}",
        )
    return records


def file_of(records):
    return os.fspath(datasets.write(records))
