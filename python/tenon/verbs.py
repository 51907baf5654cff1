"""The verbs of the command line as functions: keyword arguments are their keys (`tenon help VERB` lists them), the
answer is the document that `--json` prints (docs/formats.md). A key that is None is left out; lists and maps may be
Python's.

    tenon.train(model="Qwen2.5-0.5B", dataset="chats.jsonl", output_dir="run", max_steps=60)
    tenon.eval(model="Qwen2.5-0.5B", adapter="run", dataset="held_out.jsonl")["loss"]
"""

from ._library import SAVE, STEP, BANNER, EVAL, Config, Generator, call, say
from .errors import UsageError


def show(event):
    """An event as a line on stderr, as the program prints it."""
    at = f"step {event.step}/{event.steps}"
    if event.kind == BANNER:
        say(event.text)
    elif event.kind == STEP:
        rate = f"lr {event.learning_rate:.2e}  {event.tokens_per_second:,.0f} tokens/s"
        say(f"{at}  loss {event.loss:.4f}  grad_norm {event.grad_norm:.3f}  {rate}")
    elif event.kind == EVAL:
        say(f"{at}  eval_loss {event.loss:.4f}")
    elif event.kind == SAVE:
        say(f"saved {event.text}")


def train(on_event=show, **keys):
    """Fine-tunes. `on_event(event)` gets what happens (kind, step, loss, …); None says nothing."""
    return call("train", Config("train", **keys), on_event)


def plan(**keys):
    """Parameters, memory, longest context and expected speed of `train` with the same keys."""
    return call("plan", Config("plan", **keys))


def eval(**keys):  # the verb's name
    """Loss and perplexity on a data set."""
    return call("eval", Config("eval", **keys))


def bench(on_event=None, **keys):
    """Times training steps."""
    return call("bench", Config("bench", **keys), on_event)


def data(**keys):
    """How records become tokens and labels."""
    return call("data", Config("data", **keys))


def inspect(model, **keys):
    """What a model, adapter, checkpoint, safetensors or GGUF file holds."""
    return call("inspect", Config("inspect", model=model, **keys))


def verify(**keys):
    """An adapter against its base, tensor by tensor; look at ["ok"]."""
    return call("verify", Config("verify", **keys))


def init(**keys):
    """Writes a randomly initialised model."""
    return call("init", Config("init", **keys))


def merge(**keys):
    """Base + adapter to a model directory of its own."""
    return call("merge", Config("merge", **keys))


def quantize(**keys):
    """A model in 4 or 8 bits, or as GGUF."""
    return call("quantize_model", Config("quantize", **keys))


def export(**keys):
    """Base + adapter, or the adapter alone, to a GGUF file."""
    return call("export", Config("export", **keys))


def env(**keys):
    """Devices, instruction sets, libraries, and what will be used."""
    return call("env", Config("env", **keys))


def generate(model, prompt=None, messages=None, on_text=None, **keys):
    """Continues `prompt`, or answers `messages` (a list of them); opens the model for this one answer. Of several
    `FastLanguageModel.from_pretrained(…)[0].generate` is the way."""
    import json

    if prompt is not None and messages is not None:
        raise UsageError("generate: prompt and messages are two questions", "keep one of the two")
    generator = Generator(model=model, **keys)
    try:
        if messages is None:
            return generator.generate("text", prompt or "", on_text)
        return generator.generate("chat", json.dumps(messages, ensure_ascii=False), on_text)
    finally:
        generator.close()
