"""FastLanguageModel and the model it gives.

A Model is no weights in memory but what is known of them: where the base lies, how it is to be loaded, which adapter
belongs to it and how a fresh one is to be made. The library opens it when there is work: SFTTrainer.train, generate,
and each way of saving. What stays open between calls is the generator, until training begins or for_training() ends it.
"""

import json
import os
import tempfile
from pathlib import Path

from . import generation
from ._library import Config, Generator, call, keys_of, silence
from .arguments import drop_upload, ignored, no_network, plain, refuse, refuse_unknown
from .errors import UsageError
from .tokenizer import Tokenizer, copy_file

LORA = {"lora_r": 16, "lora_alpha": 16, "lora_dropout": 0}  # Unsloth's defaults, which are not all the library's

# quantization_method of save_pretrained_gguf: ours, or why not.
_GGUF = {
    "fast_quantized": "q8_0",
    "not_quantized": "",
    "f32": "f32",
    "f16": "f16",
    "bf16": "bf16",
    "q8_0": "q8_0",
    "q4_0": "q4_0",
    "q4_k": "q4_k",
    "q6_k": "q6_k",
    "gguf": "",
}  # "" = as the base is stored


def _is_adapter(path):
    return (path / "adapter_config.json").is_file() and not (path / "config.json").is_file()


def _base_of(adapter):
    try:
        config = json.loads((Path(adapter) / "adapter_config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError) as error:
        raise UsageError(f"{adapter}: adapter_config.json cannot be read: {error}") from None
    if not config.get("base_model_name_or_path"):
        raise UsageError(
            f"{adapter}: its adapter_config.json does not say which model it belongs to",
            "from_pretrained(BASE, adapter=DIRECTORY)",
        )
    return config["base_model_name_or_path"]


def _is_quantised(model):
    """Does the base hold its weights in few bits already? Then 4 bits are not asked for."""
    path = Path(model)
    if path.suffix == ".gguf":
        return True
    try:
        return "quantization_config" in json.loads((path / "config.json").read_text(encoding="utf-8"))
    except (OSError, ValueError):
        return False


def _device(device_map):
    """Unsloth's default is one device, as here."""
    if isinstance(device_map, dict) and len(device_map) == 1:
        device_map = next(iter(device_map.values()))
    if device_map in (None, "auto", "sequential", "balanced"):
        return None
    if isinstance(device_map, int) and not isinstance(device_map, bool):
        return f"cuda:{device_map}"
    return plain("device_map", device_map)


def _check(verb, keys):
    """An argument is wrong where it is given, not when it is used."""
    with silence():
        config = Config(verb)
        config.load(plain(verb, keys))
    return config


class FastLanguageModel:
    @staticmethod
    def from_pretrained(
        model_name=None,
        max_seq_length=None,
        dtype=None,
        load_in_4bit=None,
        load_in_8bit=False,
        load_in_16bit=False,
        load_in_fp8=False,
        full_finetuning=False,
        token=None,
        device_map="sequential",
        rope_scaling=None,
        trust_remote_code=False,
        revision=None,
        fix_tokenizer=True,
        use_gradient_checkpointing=None,
        use_exact_model_name=False,
        fast_inference=False,
        resize_model_vocab=None,
        random_state=None,
        attn_implementation=None,
        local_files_only=True,
        adapter=None,
        **keys,
    ):
        """(model, tokenizer) of a model directory, a GGUF file, or an adapter's directory, whose base its
        configuration names. load_in_4bit=None is Unsloth's True, unless another precision is asked for or the base is
        quantised already; max_seq_length=None is 2048, or the model's trained length where that is less. `keys` are
        further keys of tenon: threads, memory_limit, device, chat_template."""
        where = "from_pretrained"
        known = keys_of("chat")
        refuse_unknown(
            where,
            [one for one in keys if one not in known or known[one] in generation._KNOWN],
            [*known, "model_name", "max_seq_length", "device_map", "full_finetuning"],
        )
        refuse(where, "fast_inference", fast_inference, (None, False), "leave it out: generate needs nothing for it")
        refuse(where, "resize_model_vocab", resize_model_vocab, (None,), "give a base that has the tokens already")
        ignored(
            where,
            "the model is read from the path as it lies there",
            token=token,
            revision=revision,
            trust_remote_code=trust_remote_code,
        )
        ignored(where, "the device's kernels are used", attn_implementation=attn_implementation)
        if not model_name:
            raise UsageError(
                "from_pretrained needs model_name", "give a model directory, a GGUF file or an adapter's directory"
            )
        for name, value in (("model_name", model_name), ("adapter", adapter)):
            if not isinstance(value, (str, os.PathLike, type(None))):
                raise UsageError(f"from_pretrained: {name} is a {type(value).__name__}", "give a path")
        path = Path(model_name)
        if adapter is None and _is_adapter(path):
            adapter, model_name = os.fspath(path), _base_of(path)
        if not Path(model_name).exists():
            raise UsageError(
                f"the model {model_name} does not exist",
                "give a Hugging Face model directory or a GGUF file; a model of the hub is downloaded "
                f"beforehand, e.g. `hf download {model_name} --local-dir DIR`",
            )
        if load_in_4bit is None:
            load_in_4bit = not (
                load_in_8bit or load_in_16bit or load_in_fp8 or full_finetuning or _is_quantised(model_name)
            )
        elif load_in_16bit and load_in_4bit:
            raise UsageError("from_pretrained: load_in_4bit and load_in_16bit are both True", "keep one of the two")
        loading = {
            "model": model_name,
            "adapter": adapter,
            "max_length": max_seq_length,
            "dtype": dtype,
            "load_in_4bit": load_in_4bit,
            "load_in_8bit": load_in_8bit,
            "load_in_fp8": load_in_fp8,
            "rope_scaling": rope_scaling,
            "device": _device(device_map),
        }
        loading = {key: value for key, value in loading.items() if value is not None}
        for name, value in keys.items():
            if known[name] in loading:
                raise UsageError(f"from_pretrained: {name} is given twice", "keep one of the two")
            loading[known[name]] = value
        model = Model(plain(where, loading), full_finetuning)
        if use_gradient_checkpointing is not None or random_state is not None:
            model.training = {
                key: value
                for key, value in (("gradient_checkpointing", use_gradient_checkpointing), ("seed", random_state))
                if value is not None
            }
        if full_finetuning and adapter:
            raise UsageError("from_pretrained: full_finetuning of an adapter", "merge it first: save_pretrained_merged")
        model.open_tokenizer()
        with silence():  # reads no weights; what is wrong with the path or the precision is said now
            call("plan", _check("plan", {**model.loading, **({"full_finetuning": True} if full_finetuning else {})}))
        return model, model.tokenizer

    @staticmethod
    def get_peft_model(model, **arguments):
        """Says how the adapter is to be made: r, target_modules, lora_alpha, lora_dropout, bias, use_rslora,
        modules_to_save, use_gradient_checkpointing, random_state, … (`tenon help train` has them all). Left out they
        are Unsloth's: r=16, lora_alpha=16, every linear module."""
        if not isinstance(model, Model):
            raise UsageError(
                f"get_peft_model: a {type(model).__name__} is no model of tenon's", "give what from_pretrained gave"
            )
        if model.full:
            raise UsageError(
                "get_peft_model: the model was opened with full_finetuning=True, which trains all of it",
                "leave one of the two out",
            )
        names = keys_of("train")
        arguments.pop("max_seq_length", None)  # Unsloth takes no notice of it either: from_pretrained's counts
        arguments.pop("temporary_location", None)
        given = {
            names.get(name, name): value
            for name, value in plain("get_peft_model", arguments).items()
            if value not in (None, {}, [])
        }
        if model.adapter:
            model.lora, model.fresh = given, False
        else:
            model.lora, model.fresh = {**LORA, **given}, True
        try:
            model.params = model.plan()["params"]
        except Exception:
            model.lora, model.fresh = {}, False
            raise
        return model

    @staticmethod
    def for_inference(model):
        """generate works at any time; the model is opened by its first call."""
        return model

    @staticmethod
    def for_training(model, use_gradient_checkpointing=None):
        """Gives back the memory that generate took."""
        model.close()
        if use_gradient_checkpointing is not None:
            model.training["gradient_checkpointing"] = use_gradient_checkpointing
        return model


class Model:
    """What from_pretrained gives. `adapter` is the directory of its adapter, None where there is none yet."""

    def __init__(self, loading, full):
        self.loading, self.full = loading, bool(full)
        self.lora, self.fresh, self.training, self.params = {}, False, {}, None
        self.trained, self.tokenizer, self._generator = False, None, None

    # ---- What is known of it -----------------------------------------------------------------------------------

    adapter = property(lambda self: self.loading.get("adapter"))
    name_or_path = property(lambda self: self.loading["model"])
    max_seq_length = property(lambda self: self.loading.get("max_length"))
    device = property(lambda self: self.loading.get("device", "auto"))

    @property
    def config(self):
        """config.json as a dict; of a GGUF file an empty one."""
        path = Path(self.name_or_path) / "config.json"
        return json.loads(path.read_text(encoding="utf-8")) if path.is_file() else {}

    def open_tokenizer(self):
        own = Path(self.adapter) if self.adapter else None
        has = own is not None and (own / "tokenizer.json").is_file()
        self.tokenizer = Tokenizer(own if has else self.name_or_path)

    def keys(self):
        """The loading keys of the library, with the chat template that the tokenizer has been given."""
        template = self.tokenizer.replaced_template if self.tokenizer else None
        return {**self.loading, **({"chat_template": template} if template else {})}

    def training_keys(self):
        if not self.full and not self.fresh and not self.adapter:
            raise UsageError(
                "the model has nothing that trains",
                "FastLanguageModel.get_peft_model(model) adds an adapter; full_finetuning=True trains all of it",
            )
        return {**self.keys(), **self.training, **self.lora, **({"full_finetuning": True} if self.full else {})}

    def plan(self, **keys):
        """Parameters, memory, longest context and expected speed of training it."""
        return call("plan", _check("plan", {**self.training_keys(), **keys}))

    def get_nb_trainable_parameters(self):
        params = self.params or self.plan()["params"]
        return params["trainable"], params["all"]

    def print_trainable_parameters(self):
        trainable, everything = self.get_nb_trainable_parameters()
        print(
            f"trainable params: {trainable:,} || all params: {everything:,} || trainable%: {100 * trainable / everything:.4f}"
        )

    def to(self, *_, **__):
        return self

    eval = train = cuda = cpu = to

    def became(self, directory):
        """Training has written its result there."""
        self.close()
        self.trained = True
        if self.full:
            self.loading = {**self.loading, "model": directory}
        else:
            self.loading, self.lora, self.fresh = {**self.loading, "adapter": directory}, {}, False

    def load_adapter(self, directory):
        if self.full:
            raise UsageError("load_adapter: the model was opened with full_finetuning=True")
        self.close()
        self.loading, self.lora, self.fresh = {**self.loading, "adapter": os.fspath(directory)}, {}, False

    # ---- Generation --------------------------------------------------------------------------------------------

    def _open(self):
        """A fresh adapter changes nothing before it is trained: B is 0."""
        if self._generator is None or self._generator[0] != self.keys():
            self.close()
            keys = self.keys()
            self._generator = keys, Generator(**{key: value for key, value in keys.items() if key in keys_of("chat")})
        return self._generator[1]

    def close(self):
        if self._generator is not None:
            self._generator[1].close()
        self._generator = None

    def generate(
        self,
        input_ids=None,
        attention_mask=None,
        inputs=None,
        max_new_tokens=None,
        max_length=None,
        do_sample=None,
        temperature=None,
        top_p=None,
        top_k=None,
        min_p=None,
        repetition_penalty=None,
        seed=None,
        streamer=None,
        use_cache=None,
        pad_token_id=None,
        eos_token_id=None,
        **unknown,
    ):
        """Rows of ids, each a prompt and what it goes on with, one prompt after the other. Greedy unless sampling is
        asked for; 256 new tokens at most unless said."""
        generation.check(unknown, use_cache, pad_token_id, eos_token_id, self.tokenizer)
        arguments = {
            "max_new_tokens": max_new_tokens,
            "do_sample": do_sample,
            "temperature": temperature,
            "top_p": top_p,
            "top_k": top_k,
            "min_p": min_p,
            "repetition_penalty": repetition_penalty,
            "seed": seed,
        }
        ids = inputs if input_ids is None else input_ids
        return generation.run(self._open(), self.tokenizer, ids, attention_mask, streamer, max_length, arguments)

    # ---- Saving ------------------------------------------------------------------------------------------------

    def _result(self):
        """The directory of what training made."""
        if self.full and self.trained:
            return self.name_or_path
        if self.adapter:
            return self.adapter
        raise UsageError(
            "there is nothing to save: the model has no trained adapter yet", "train it first: SFTTrainer(…).train()"
        )

    def save_pretrained(self, save_directory, **arguments):
        """Copies the adapter (of a full fine-tune the model), which Transformers, PEFT and vLLM load."""
        drop_upload(arguments)
        refuse(
            "save_pretrained",
            "safe_serialization",
            arguments.pop("safe_serialization", True),
            (None, True),
            "leave it out: nothing else is written",
        )
        arguments.pop("max_shard_size", None)
        refuse_unknown("save_pretrained", arguments, ["save_directory", "safe_serialization"])
        source, target = Path(self._result()), Path(save_directory)
        target.mkdir(parents=True, exist_ok=True)
        wanted = ("adapter_",) if not self.full else ("model", "config.json", "generation_config.json")
        # The configuration last: a folder without it is no adapter.
        for file in sorted(
            (one for one in source.iterdir() if one.is_file() and one.name.startswith(wanted)),
            key=lambda one: one.name.endswith("config.json"),
        ):
            if not (target / file.name).exists() or not file.samefile(target / file.name):
                copy_file(file, target / file.name)

    def save_pretrained_merged(self, save_directory, tokenizer=None, save_method="merged_16bit", **arguments):
        """base + adapter as one model: merged_16bit; merged_4bit (NF4, as bitsandbytes lays it out); lora saves the
        adapter alone. The directory must not exist or be empty."""
        self._drop_saving("save_pretrained_merged", arguments)
        known = ("merged_16bit", "merged_4bit", "merged_4bit_forced", "lora")
        if save_method not in known:
            raise UsageError(f"save_pretrained_merged: save_method={save_method!r}", f"it is one of {', '.join(known)}")
        self._result()
        if save_method == "lora" or self.full and save_method == "merged_16bit":
            self.save_pretrained(save_directory)
        elif save_method == "merged_16bit":
            self._verb("merge", output_dir=save_directory)
        else:
            self._merge_4bit(Path(save_directory))
        if isinstance(tokenizer, Tokenizer) and (
            tokenizer.replaced_template or Path(tokenizer.name_or_path).suffix != ".gguf"
        ):
            tokenizer.save_pretrained(save_directory)
        return os.fspath(save_directory)

    def _merge_4bit(self, target):
        if self.full:
            self._verb("quantize_model", to="nf4", output_dir=target)
            return
        target.parent.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryDirectory(prefix=f"{target.name}.", suffix=".tmp-tenon", dir=target.parent) as folder:
            merged = os.path.join(folder, "merged")
            self._verb("merge", output_dir=merged)
            call("quantize_model", _check("quantize", {"model": merged, "to": "nf4", "output_dir": os.fspath(target)}))

    def save_pretrained_gguf(self, save_directory, tokenizer=None, quantization_method="fast_quantized", **arguments):
        """base + adapter as GGUF files in the directory, one for each method; their paths."""
        self._drop_saving("save_pretrained_gguf", arguments)
        refuse(
            "save_pretrained_gguf",
            "first_conversion",
            arguments.pop("first_conversion", None),
            (None, "f16", "bf16", "f32"),
            "leave it out",
        )
        refuse_unknown("save_pretrained_gguf", arguments, ["save_directory", "tokenizer", "quantization_method"])
        methods = [quantization_method] if isinstance(quantization_method, str) else list(quantization_method)
        for method in methods:
            if method not in _GGUF:
                raise UsageError(
                    f"save_pretrained_gguf: quantization_method={method!r} is not written here",
                    f"it is one of {', '.join(_GGUF)} (each for all matrices; q4_k_m and the like are mixtures: write "
                    "bf16 and run llama-quantize)",
                )
        paths = []
        Path(save_directory).mkdir(parents=True, exist_ok=True)
        for method in methods:
            kind = _GGUF[method]
            name = f"{Path(self.loading['model']).stem or 'model'}{'.' + kind.upper() if kind else ''}.gguf"
            path = os.path.join(os.fspath(save_directory), name)
            self._verb("export", to=f"gguf:{kind}" if kind else "gguf", output=path)
            paths.append(path)
        return paths

    def _drop_saving(self, where, arguments):
        drop_upload(arguments)
        for name in ("maximum_memory_usage", "temporary_location", "max_shard_size", "is_main_process"):
            arguments.pop(name, None)
        refuse(
            where,
            "safe_serialization",
            arguments.pop("safe_serialization", True),
            (None, True),
            "leave it out: nothing else is written",
        )
        refuse_unknown(
            where, {} if where.endswith("gguf") else arguments, ["save_directory", "tokenizer", "save_method"]
        )

    def _verb(self, function, **keys):
        """A verb that writes a model, from the model as it is now."""
        self.close()
        verb = {"quantize_model": "quantize"}.get(function, function)
        known = keys_of(verb)
        loading = {key: value for key, value in self.keys().items() if key in known}
        if verb == "export":  # the file is made from the values as they are stored, not from a quantised copy
            loading = {key: value for key, value in loading.items() if not key.startswith("load_in_")}
        return call(function, _check(verb, {**loading, **{key: os.fspath(value) for key, value in keys.items()}}))

    def push_to_hub(self, *_, **__):
        raise no_network()

    push_to_hub_merged = push_to_hub_gguf = push_to_hub
