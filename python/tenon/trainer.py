"""SFTTrainer and its configuration: TRL's calls over the verb `train`.

Arguments go to the library by their own names, which knows those of Transformers, TRL and Unsloth beside its own
(docs/coming-from.md): each is read, or said to change nothing here, or refused. What SFTConfig leaves out has the
values that Unsloth gives it, DEFAULTS below; what neither says is tenon's.
"""

import collections
import os
import time
import types

from . import datasets, responses, verbs
from ._library import BANNER, EVAL, SAVE, STEP, Config, call, keys_of, say_once, silence
from .arguments import ignored, plain, refuse
from .errors import InterruptedRun, UsageError
from .model import Model
from .tokenizer import Tokenizer

# Unsloth's SFTConfig (its models/rl.py, end of 2025) where it differs from `tenon help train`.
DEFAULTS = {
    "output_dir": "outputs",
    "per_device_train_batch_size": 4,
    "gradient_accumulation_steps": 2,
    "learning_rate": 5e-5,
    "weight_decay": 0.001,
    "lr_scheduler_type": "linear",
    "warmup_ratio": 0.1,
    "num_train_epochs": 3,
    "optim": "adamw_8bit",
    "packing": False,
    "train_on_responses_only": False,
}
# A key that is given takes the default of another away.
_INSTEAD = {"warmup_steps": "warmup_ratio", "max_steps": "num_train_epochs"}

TrainOutput = collections.namedtuple("TrainOutput", "global_step training_loss metrics")


def _by_key(arguments):
    """{key: (name, value)} of those that say something; a name that is no key of ours stands for itself."""
    names = keys_of("train")
    return {names.get(name, name): (name, value) for name, value in arguments.items() if value is not None}


class SFTConfig:
    """The settings of a run by the names of TRL's SFTConfig, Transformers' TrainingArguments, or `tenon help train`."""

    def __init__(self, output_dir=None, **arguments):
        self.__dict__["given"] = {"output_dir": output_dir} if output_dir is not None else {}
        for name, value in arguments.items():
            self.given[name] = plain(name, value)
        with silence():
            Config("train").load(self.keys({}))

    def keys(self, earlier):
        """What goes to the library: the defaults, what was said `earlier` (by key), and over both what is given here."""
        given = _by_key(self.given)
        given.pop("dataset_text_field", None)  # datasets.py reads the records with it
        if given.get("max_steps", (None, 0))[1] in (-1, 0):
            given.pop("max_steps", None)
        values = {**DEFAULTS, **{key: value for key, value in earlier.items() if value is not None}}
        for key, default in _INSTEAD.items():
            if key in given:
                values.pop(default, None)
        values = {key: value for key, value in values.items() if key not in given}
        return {**values, **dict(given.values())}

    def __getattr__(self, name):
        key = keys_of("train").get(name, name)
        for one, value in _by_key(self.given).items():
            if one == key:
                return value[1]
        if key in DEFAULTS:
            return DEFAULTS[key]
        value = Config("train").get(key)
        if value is None:
            raise AttributeError(name)
        return value

    def __setattr__(self, name, value):
        for old in [one for one in self.given if keys_of("train").get(one, one) == keys_of("train").get(name, name)]:
            del self.given[old]
        self.given[name] = plain(name, value)
        with silence():
            Config("train").load(self.keys({}))

    def to_dict(self):
        return {**DEFAULTS, **self.given}

    def __repr__(self):
        return f"SFTConfig({', '.join(f'{name}={value!r}' for name, value in self.given.items())})"


TrainingArguments = SFTConfig


class _State:
    """trainer.state: where the run is, and what it has logged."""

    def __init__(self):
        self.global_step = self.max_steps = self.epoch = 0
        self.log_history = []


# What Trainer's hooks take and this one has nothing for.
_NO = {
    "compute_metrics": "evaluate() gives loss and perplexity",
    "preprocess_logits_for_metrics": "evaluate() gives loss and perplexity",
    "compute_loss_func": "the loss is cross-entropy",
    "optimizers": "optim and lr_scheduler_type in SFTConfig",
    "optimizer_cls_and_kwargs": "optim in SFTConfig",
    "peft_config": "FastLanguageModel.get_peft_model(model, …)",
    "model_init": "give the model",
}


def _records(data, name):
    """Paths as they are, all else as a list of dicts."""
    return data if data is None or datasets.is_paths(data) else datasets.records_of(data, name)


class SFTTrainer:
    def __init__(
        self,
        model=None,
        args=None,
        train_dataset=None,
        eval_dataset=None,
        tokenizer=None,
        processing_class=None,
        data_collator=None,
        formatting_func=None,
        callbacks=None,
        dataset_text_field=None,
        max_seq_length=None,
        packing=None,
        dataset_num_proc=None,
        **arguments,
    ):
        for name, remedy in _NO.items():
            value = arguments.pop(name, None)
            refuse("SFTTrainer", name, value, (None, (None, None)), remedy)
        if not isinstance(model, Model):
            raise UsageError(
                f"SFTTrainer: model is a {type(model).__name__}", "give what FastLanguageModel.from_pretrained gave"
            )
        if args is not None and not isinstance(args, (SFTConfig, dict)):
            raise UsageError(
                f"SFTTrainer: args is a {type(args).__module__}.{type(args).__name__}",
                "from tenon import SFTConfig (or TrainingArguments), which takes the same names",
            )
        given = tokenizer if tokenizer is not None else processing_class
        if given is not None and not isinstance(given, Tokenizer):
            raise UsageError(
                f"SFTTrainer: tokenizer is a {type(given).__name__}", "give what FastLanguageModel.from_pretrained gave"
            )
        if data_collator is not None and type(data_collator).__name__ not in (
            "DataCollatorForSeq2Seq",
            "DataCollatorForLanguageModeling",
        ):
            raise UsageError(
                f"SFTTrainer: a {type(data_collator).__name__} would change what is trained, and is not called here",
                "train_on_responses_only(trainer, instruction_part=…, response_part=…) for the loss on answers",
            )
        ignored("SFTTrainer", "nothing is ever padded", data_collator=data_collator)
        args = SFTConfig(**args) if isinstance(args, dict) else args or SFTConfig()
        also = {
            "dataset_text_field": dataset_text_field,
            "max_seq_length": max_seq_length,
            "packing": packing,
            "dataset_num_proc": dataset_num_proc,
            **arguments,
        }
        also = {name: value for name, value in also.items() if value is not None}
        for key, (name, value) in _by_key(also).items():
            before = _by_key(args.given).get(key, (name, value))
            if before[1] != plain(name, value):
                raise UsageError(f"SFTTrainer: {name} is {value} here and {before[1]} in args", "keep one of the two")
        names = {key for key in _by_key(also)}
        self.args = SFTConfig(
            **{**{name: value for key, (name, value) in _by_key(args.given).items() if key not in names}, **also}
        )
        self.model, self.tokenizer = model, given if given is not None else model.tokenizer
        model.tokenizer = self.tokenizer
        self.train_dataset, self.eval_dataset = _records(train_dataset, "train_dataset"), _records(
            eval_dataset, "eval_dataset"
        )
        self.formatting_func = formatting_func
        self.callbacks, self.state = list(callbacks or []), _State()
        self.control = types.SimpleNamespace(should_training_stop=False)
        self._losses, self._saved = [], None

    processing_class = property(lambda self: self.tokenizer)

    def add_callback(self, callback):
        self.callbacks.append(callback() if isinstance(callback, type) else callback)

    # ---- The library's keys ------------------------------------------------------------------------------------

    def _files(self, data, name):
        return datasets.files(data, self.formatting_func, self.args.given.get("dataset_text_field"), name)

    def keys(self, data=True):
        """Everything that the verb `train` is told, by key."""
        earlier = self.model.training_keys()
        keys = self.args.keys(earlier)
        if earlier.get("seed", keys.get("seed")) != keys.get("seed"):
            say_once(f"tenon: random_state={earlier['seed']} gives way to SFTConfig's seed {keys['seed']}: there is one")
        if not data:
            return keys
        if self.train_dataset is None:
            raise UsageError(
                "SFTTrainer has no train_dataset", "give a list of dicts, a path, or an object with to_list()"
            )
        keys["dataset"] = self._files(self.train_dataset, "train_dataset")
        # TRL's default for records of prompt and completion.
        if "train_on_responses_only" not in _by_key(self.args.given) and self._has_completions():
            keys["train_on_responses_only"] = True
        if self.eval_dataset is not None:
            keys["eval_dataset"] = self._files(self.eval_dataset, "eval_dataset")
        return keys

    def _has_completions(self):
        data = self.train_dataset
        if self.formatting_func is not None:
            return False
        if not datasets.is_paths(data):
            return "completion" in data[0]
        try:
            with open(data if datasets.is_path(data) else data[0], encoding="utf-8") as file:
                return '"completion"' in file.readline(1 << 20)
        except (OSError, UnicodeError):  # the library says what is wrong with it
            return False

    def _config(self, verb, keys):
        config = Config(verb)
        config.load(plain(verb, keys))
        return config

    # ---- Running -----------------------------------------------------------------------------------------------

    def plan(self):
        """Parameters, memory, longest context and expected speed; loads nothing."""
        return call("plan", self._config("plan", self.keys()))

    def train(self, resume_from_checkpoint=None):
        """Trains, and leaves the result in args.output_dir; the model has it from then on."""
        keys = self.keys()
        if resume_from_checkpoint:
            keys["resume_from_checkpoint"] = (
                "auto" if resume_from_checkpoint is True else os.fspath(resume_from_checkpoint)
            )
        self.model.close()
        self._losses, self._saved, self.control.should_training_stop = [], None, False
        self.state, started = _State(), time.monotonic()
        self._tell("on_train_begin")
        try:
            answer = call(
                "train", self._config("train", keys), self._on_event, lambda: self.control.should_training_stop
            )
            if answer is None:  # of several processes rank 0 alone hears what happened
                answer, self._saved = {"tokens": 0}, keys["output_dir"]
        except InterruptedRun:
            if not self.control.should_training_stop:
                raise
            answer = {"tokens": 0}
        finally:
            if self._saved:  # after Ctrl-C too: what the last checkpoint holds
                self.model.became(self._saved)
        self._tell("on_train_end")
        return self._output(answer, time.monotonic() - started)

    def _output(self, answer, seconds):
        loss = sum(self._losses) / len(self._losses) if self._losses else float("nan")
        metrics = {
            "train_runtime": seconds,
            "train_loss": loss,
            "train_tokens": answer["tokens"],
            "train_tokens_per_second": answer["tokens"] / seconds if seconds else 0,
            "train_steps_per_second": len(self._losses) / seconds if seconds else 0,
            "epoch": self.state.epoch,
        }
        return TrainOutput(self.state.global_step, loss, metrics)

    def _on_event(self, event):
        verbs.show(event)
        state = self.state
        if event.kind == BANNER:
            return
        state.global_step, state.max_steps = event.step, event.steps
        if event.kind == STEP:
            state.epoch = event.epoch
            self._losses.append(event.loss)
            self._log(
                {
                    "loss": event.loss,
                    "grad_norm": event.grad_norm,
                    "learning_rate": event.learning_rate,
                    "epoch": event.epoch,
                    "step": event.step,
                }
            )
            self._tell("on_step_end")
        elif event.kind == EVAL:
            logs = {"eval_loss": event.loss, "epoch": state.epoch, "step": event.step}
            self._log(logs)
            self._tell("on_evaluate", metrics=logs)
        elif event.kind == SAVE:
            self._saved = event.text
            self._tell("on_save")

    def _log(self, logs):
        self.state.log_history.append(logs)
        self._tell("on_log", logs=logs)

    def _tell(self, what, **more):
        """Callbacks have Transformers' hooks; control.should_training_stop = True ends the run with a checkpoint."""
        for callback in self.callbacks:
            hook = getattr(callback, what, None)
            if hook is not None:
                hook(self.args, self.state, self.control, model=self.model, **more)

    def evaluate(self, eval_dataset=None):
        """{"eval_loss", "eval_perplexity", "eval_tokens", "eval_records"} of the model as it is."""
        data = self.eval_dataset if eval_dataset is None else eval_dataset
        if data is None:
            raise UsageError("evaluate: there is no eval_dataset", "give one to SFTTrainer or to evaluate")
        self.model.close()
        with silence():  # a note that the training's own keys are not used
            config = self._config(
                "eval",
                {
                    **self.keys(data=False),
                    "dataset": self._files(_records(data, "eval_dataset"), "eval_dataset"),
                    "eval_dataset": None,
                },
            )
        answer = call("eval", config)
        return {f"eval_{key}": answer[key] for key in ("loss", "perplexity", "tokens", "records")}

    def save_model(self, output_dir=None):
        self.model.save_pretrained(output_dir or self.args.output_dir)

    def push_to_hub(self, *_, **__):
        self.model.push_to_hub()


def train_on_responses_only(
    trainer,
    instruction_part=None,
    response_part=None,
    tokenizer=None,
    force_match=True,
    num_proc=None,
    return_function=False,
):
    """Loss on answers alone. With both parts, the texts that begin a question and an answer in the rendered chat, the
    records become input_ids and labels (trainer.train_dataset[i] shows them); without, conversations are masked by the
    library, which follows the chat template."""
    refuse("train_on_responses_only", "return_function", return_function, (False, None), "leave it out")
    if not isinstance(trainer, SFTTrainer):
        raise UsageError(f"train_on_responses_only: a {type(trainer).__name__} is no SFTTrainer of tenon's")
    if (instruction_part is None) != (response_part is None):
        raise UsageError(
            "train_on_responses_only: one of instruction_part and response_part is missing",
            "give both, or neither for records with conversations",
        )
    keys = trainer.keys()
    if instruction_part is None:
        data = trainer.train_dataset
        if trainer.formatting_func is not None or not datasets.is_paths(data) and "text" in data[0]:
            raise UsageError(
                "train_on_responses_only: texts do not say where their answers are",
                "give instruction_part and response_part, or records with messages",
            )
        trainer.args.train_on_responses_only = True
        return trainer
    own = {key: value for key, value in keys.items() if key not in ("eval_dataset", "eval_split")}
    with silence():
        for name in ("train_dataset", "eval_dataset"):
            if getattr(trainer, name) is not None:
                paths = keys["dataset" if name == "train_dataset" else name]
                setattr(
                    trainer,
                    name,
                    responses.masked(paths, tokenizer or trainer.tokenizer, own, instruction_part, response_part, name),
                )
    trainer.formatting_func = None
    trainer.args.given.pop("dataset_text_field", None)
    trainer.args.train_on_responses_only = False  # the labels say it
    return trainer
