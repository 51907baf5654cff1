"""tenon in Python: the calls of Unsloth's notebooks over libtenon, with nothing but the standard library.

    from tenon import FastLanguageModel, SFTTrainer, SFTConfig

docs/python.md has the whole of it, examples/unsloth_style.py a run. The verbs of the command line are functions
too: tenon.train(model=…, dataset=…, output_dir=…), tenon.eval, tenon.plan, …
"""

from .errors import (
    BadDataError,
    InterruptedRun,
    LibraryError,
    NoFitError,
    NumericError,
    StorageError,
    TenonError,
    UsageError,
)
from .generation import TextStreamer
from .model import FastLanguageModel, Model
from .tokenizer import Tokenizer
from .trainer import SFTConfig, SFTTrainer, TrainingArguments, train_on_responses_only
from .verbs import bench, data, env, eval, export, generate, init, inspect, merge, plan, quantize, train, verify
from .version import __version__


def is_bfloat16_supported():
    """Whether bf16=True is the right choice: on every CPU, where it is at least emulated, and on GPUs that have it."""
    gpus = [device for device in env()["devices"] if device["backend"] != "cpu"]
    return gpus[0]["bf16"] if gpus else True


is_bf16_supported = is_bfloat16_supported
