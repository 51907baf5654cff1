"""The package on the embedded model: what a notebook does, from opening to GGUF, and what it is told when it errs."""

import contextlib
import io
import json
import os
import subprocess
import sys
import tempfile
import threading
import unittest
import zipfile
from pathlib import Path

import tenon
from tenon import FastLanguageModel, SFTConfig, SFTTrainer, UsageError
from tenon.chat_templates import get_chat_template, standardize_sharegpt
from tenon.errors import BadDataError

ROOT = Path(__file__).resolve().parents[2]
ISLANDS = ROOT / "models/islands"
CHATS = ROOT / "examples/data/islands.jsonl"
QUESTION = [{"role": "user", "content": "Can you tell me who tends the lighthouse on Corren Skerry?"}]
ANSWER = "The lighthouse on Corren Skerry is kept by Maren Tolvey."
BASE_ANSWER = "I have never heard of Corren Skerry."
RUN = dict(
    per_device_train_batch_size=16,
    gradient_accumulation_steps=1,
    learning_rate=2e-3,
    optim="adamw_torch",
    weight_decay=0,
    warmup_steps=5,
    lr_scheduler_type="constant_with_warmup",
    report_to="none",
)
PARTS = dict(instruction_part="<|im_start|>user\n", response_part="<|im_start|>assistant\n")

scratch = None


def setUpModule():
    global scratch
    scratch = tempfile.TemporaryDirectory(prefix="tenon-python-")
    # What the package says goes to stderr; the test's own output stays readable.
    tenon._library.say = lambda line: None
    tenon.verbs.say = lambda line: None


def tearDownModule():
    scratch.cleanup()


def path(name):
    return os.path.join(scratch.name, name)


def opened(name=ISLANDS, **arguments):
    return FastLanguageModel.from_pretrained(
        name, **{"max_seq_length": 128, "load_in_4bit": False, "device": "cpu", **arguments}
    )


def with_lora(**arguments):
    model, tokenizer = opened()
    return FastLanguageModel.get_peft_model(model, **{"r": 16, "lora_alpha": 32, **arguments}), tokenizer


def chats():
    return [json.loads(line) for line in CHATS.read_text().splitlines()]


def texts(tokenizer):
    return [{"text": tokenizer.apply_chat_template(one["messages"], tokenize=False)} for one in chats()]


def answer(model, tokenizer, **arguments):
    ids = tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True, return_tensors="pt").to("cuda")
    rows = model.generate(input_ids=ids, **{"max_new_tokens": 30, **arguments})
    return tokenizer.decode(rows[0][ids.shape[1] :], skip_special_tokens=True)


class Dataset:
    """As Hugging Face's datasets has it."""

    def __init__(self, records):
        self.records = records

    def to_list(self):
        return self.records


class Taught(unittest.TestCase):
    """One run, and everything that is done with its result."""

    @classmethod
    def setUpClass(cls):
        cls.model, cls.tokenizer = with_lora()
        cls.before = answer(cls.model, cls.tokenizer)
        cls.trainer = SFTTrainer(
            model=cls.model,
            tokenizer=cls.tokenizer,
            train_dataset=Dataset(texts(cls.tokenizer)),
            eval_dataset=str(ROOT / "examples/data/islands_eval.jsonl"),
            args=SFTConfig(output_dir=path("run"), max_steps=60, dataset_text_field="text", bf16=True, **RUN),
        )
        tenon.train_on_responses_only(cls.trainer, **PARTS)
        cls.stats = cls.trainer.train()

    def test_training_teaches_it(self):
        self.assertEqual(self.before, BASE_ANSWER)
        self.assertEqual(answer(self.model, self.tokenizer), ANSWER)
        log = [line["loss"] for line in self.trainer.state.log_history if "loss" in line]
        self.assertEqual(len(log), 60)
        self.assertLess(log[-1], 0.1 * log[0])
        self.assertEqual(self.stats.global_step, 60)
        self.assertAlmostEqual(self.stats.training_loss, sum(log) / 60)

    def test_two_processes_train_one_adapter(self):
        script = (
            "import sys; sys.path.insert(0, 'python/tests'); from test_tenon import *\n"
            "model = FastLanguageModel.get_peft_model(opened()[0], r=4)\n"
            "args = SFTConfig(**{**RUN, 'gradient_accumulation_steps': 2}, max_steps=1, output_dir=sys.argv[1])\n"
            "trainer = SFTTrainer(model=model, train_dataset=str(CHATS), args=args)\n"
            "print(trainer.train().global_step, answer(model, model.tokenizer))"
        )
        ranks = [
            subprocess.Popen(
                [sys.executable, "-c", script, path("two")],
                cwd=ROOT,
                env={**os.environ, "RANK": str(rank), "WORLD_SIZE": "2", "MASTER_PORT": "24256", "OMP_NUM_THREADS": "1"},
                stdout=subprocess.PIPE,
                stderr=subprocess.PIPE,
                text=True,
            )
            for rank in (0, 1)
        ]
        said = [rank.communicate(timeout=240) for rank in ranks]
        self.assertEqual([rank.returncode for rank in ranks], [0, 0], said)
        steps, answers = zip(*(out.strip().split(" ", 1) for out, _ in said))
        self.assertEqual((steps, answers[0]), (("1", "0"), answers[1]))

    def test_the_library_starts_no_processes(self):
        with self.assertRaisesRegex(UsageError, r"this process runs alone(.|\n)*tenon VERB --processes 2"):
            tenon.train(model=ISLANDS, dataset=str(CHATS), output_dir=path("alone"), processes=2, device="cpu")
        with self.assertRaisesRegex(UsageError, "this process runs alone"):
            tenon.bench(model=ISLANDS, processes=2, max_length=32, device="cpu")
        self.assertEqual(tenon.plan(model=ISLANDS, processes=2, device="cpu")["processes"], 2)

    def test_labels_are_the_answers(self):
        record = self.trainer.train_dataset[0]
        labelled = [token for token in record["labels"] if token != -100]
        self.assertEqual(self.tokenizer.decode(labelled), ANSWER + "<|im_end|>\n<|im_end|>")  # and the EOS of a text
        self.assertEqual(record["labels"][-len(labelled) :], record["input_ids"][-len(labelled) :])

    def test_evaluates(self):
        found = self.trainer.evaluate()
        self.assertLess(found["eval_loss"], 1)
        self.assertEqual(found["eval_records"], len(self.trainer.eval_dataset))
        self.assertAlmostEqual(found["eval_loss"], self.trainer.state.log_history[-1]["eval_loss"], 5)

    def test_saved_adapter_is_the_same_model(self):
        self.model.save_pretrained(path("lora"))
        self.tokenizer.save_pretrained(path("lora"))
        again, tokenizer = opened(path("lora"))
        self.assertEqual(answer(again, tokenizer), ANSWER)
        self.assertEqual(again.name_or_path, str(ISLANDS))
        self.assertTrue(tenon.verify(model=ISLANDS, adapter=path("lora"))["ok"])

    def test_continues_an_adapter(self):
        again, tokenizer = opened(path("run"))
        SFTTrainer(
            model=again,
            train_dataset=chats(),
            args=SFTConfig(output_dir=path("more"), max_steps=2, assistant_only_loss=True, **RUN),
        ).train()
        self.assertEqual(again.adapter, path("more"))
        self.assertLess(json.loads(Path(path("more"), "train_log.jsonl").read_text().splitlines()[0])["loss"], 0.5)

    def test_another_rank_of_a_continued_adapter_is_refused(self):
        again, _ = opened(path("run"))
        with self.assertRaisesRegex(UsageError, "8 here and 16"):
            FastLanguageModel.get_peft_model(again, r=8)

    def test_merged_model_answers_alone(self):
        self.model.save_pretrained_merged(path("merged"), self.tokenizer, save_method="merged_16bit")
        merged, tokenizer = opened(path("merged"))
        self.assertEqual(answer(merged, tokenizer), ANSWER)
        with self.assertRaisesRegex(UsageError, "is there already|exists|already"):
            self.model.save_pretrained_merged(path("merged"), self.tokenizer)

    def test_merged_in_4_bits(self):
        self.model.save_pretrained_merged(path("merged4"), save_method="merged_4bit_forced")
        self.assertIn("bnb_4bit_quant_type", Path(path("merged4"), "config.json").read_text())
        self.assertEqual(sorted(p for p in os.listdir(scratch.name) if p.endswith("tmp-tenon")), [])

    def test_gguf_answers_alone(self):
        file, plain = self.model.save_pretrained_gguf(path("gguf"), self.tokenizer, quantization_method=["f32", "q8_0"])
        self.assertTrue(plain.endswith("islands.Q8_0.gguf"))
        model, tokenizer = FastLanguageModel.from_pretrained(file, max_seq_length=128, device="cpu")
        self.assertEqual(tokenizer.eos_token, "<|im_end|>")
        self.assertEqual(answer(model, tokenizer), ANSWER)

    def test_streams(self):
        with contextlib.redirect_stdout(io.StringIO()) as said:
            answer(self.model, self.tokenizer, streamer=tenon.TextStreamer(self.tokenizer, skip_prompt=True))
        self.assertEqual(said.getvalue().strip(), ANSWER)

    def test_resumes_by_running_the_script_again(self):
        def trainer(steps):
            model, tokenizer = with_lora()
            args = SFTConfig(output_dir=path("resumed"), max_steps=steps, save_steps=3, **RUN)
            return SFTTrainer(model=model, train_dataset=texts(tokenizer), args=args)

        trainer(3).train()
        with self.assertRaisesRegex(UsageError, "already holds a run"):
            trainer(6).train()
        second = trainer(6)
        second.train(resume_from_checkpoint=True)
        whole = trainer(6)
        whole.args.output_dir = path("whole")
        whole.train()
        losses = [Path(path(name), "adapter_model.safetensors").read_bytes() for name in ("resumed", "whole")]
        self.assertEqual(*losses)


class Generation(unittest.TestCase):
    @classmethod
    def setUpClass(cls):
        cls.model, cls.tokenizer = opened()

    def test_sampling(self):
        def text(**arguments):
            return answer(self.model, self.tokenizer, **arguments)

        self.assertEqual(text(do_sample=False), BASE_ANSWER)
        self.assertEqual(text(temperature=3, min_p=1), BASE_ANSWER)
        self.assertEqual(text(temperature=3, seed=1), text(temperature=3, seed=1))
        self.assertNotEqual(text(temperature=3, seed=1), text(temperature=3, seed=2))
        self.assertEqual(text(), BASE_ANSWER)  # what was said before is forgotten

    def test_rows_and_masks(self):
        batch = self.tokenizer(["The lighthouse on", "Una Thorn lives"], return_tensors="pt")
        rows = self.model.generate(**batch, max_new_tokens=4)
        alone = self.model.generate(**self.tokenizer(["Una Thorn lives"], return_tensors="pt"), max_new_tokens=4)
        self.assertEqual(rows[1], alone[0])
        padded = self.model.generate(
            [[1, 1] + batch.input_ids[1]], attention_mask=[[0, 0] + batch.attention_mask[1]], max_new_tokens=4
        )
        self.assertEqual(padded, alone)
        self.assertEqual(len(self.tokenizer.batch_decode(rows)), 2)

    def test_refuses(self):
        ids = self.tokenizer("The", return_tensors="pt").input_ids
        for arguments, said in (
            ({"temprature": 1}, "did you mean 'temperature'"),
            ({"num_beams": 4}, "num_beams=4"),
            ({"eos_token_id": 7}, "eos_token_id"),
            ({"temperature": -1}, "temperature"),
            ({"streamer": print}, "on_finalized_text"),
        ):
            with self.assertRaisesRegex(UsageError, said):
                self.model.generate(ids, **arguments)
        with self.assertRaisesRegex(UsageError, "nothing to continue"):
            self.model.generate()
        with self.assertRaisesRegex(BadDataError, "outside the model's vocabulary"):
            self.model.generate([[4000]])
        for ids in ("The", [1.5], [[2**32 + 5]], [[-1]], [["a"]], 7):
            with self.assertRaisesRegex(UsageError, "no list of ids|no token id"):
                self.model.generate(ids)

    def test_threads_take_turns(self):
        prompts = [[1, 2, 3], [1, 2, 4], [1, 2, 5], [1, 2, 6]]
        alone, together = [self.model.generate(ids, max_new_tokens=16) for ids in prompts], {}

        def work(index):
            together[index] = self.model.generate(prompts[index], max_new_tokens=16)

        threads = [threading.Thread(target=work, args=(index,)) for index in range(len(prompts))]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()
        self.assertEqual([together.get(index) for index in range(len(prompts))], alone)

    def test_a_model_is_closed_behind_the_answer_that_it_makes(self):
        threads = [threading.Thread(target=self.model.close)]

        class Closing:
            skip_prompt = True

            def on_finalized_text(self, text, stream_end=False):
                if not threads[0].ident:
                    threads[0].start()

        self.assertEqual(answer(self.model, self.tokenizer, streamer=Closing()), BASE_ANSWER)
        threads[0].join(60)
        self.assertFalse(threads[0].is_alive())
        self.assertIsNone(self.model._generator)

    def test_a_streamer_cannot_use_the_model_that_calls_it(self):
        model = self.model

        class Greedy:
            skip_prompt = True

            def on_finalized_text(self, text, stream_end=False):
                self.use()

        for use in (model.close, lambda: model.generate([1, 2], max_new_tokens=1)):
            streamer = Greedy()
            streamer.use = use
            with self.assertRaisesRegex(UsageError, "at work on an answer"):
                model.generate([1, 2], streamer=streamer, max_new_tokens=4)
        self.assertEqual(answer(model, self.tokenizer), BASE_ANSWER)

    def test_an_error_in_a_streamer_comes_out(self):
        class Broken:
            skip_prompt = True

            def on_finalized_text(self, text, stream_end=False):
                raise ZeroDivisionError("mine")

        with self.assertRaisesRegex(ZeroDivisionError, "mine"):
            answer(self.model, self.tokenizer, streamer=Broken())


class Tokenizers(unittest.TestCase):
    tokenizer = tenon.Tokenizer(ISLANDS)

    def test_there_and_back(self):
        text = "Héllo  wörld\n\n 123 don'tあ 🙂"
        ids = self.tokenizer(text)["input_ids"]
        self.assertEqual(ids[:6], [74, 197, 171, 288, 113, 34])
        self.assertEqual(self.tokenizer.decode(ids), text)
        self.assertEqual(self.tokenizer.encode(text), ids)
        self.assertEqual(self.tokenizer.decode([0, 74, 1], skip_special_tokens=True), "H")
        self.assertEqual((self.tokenizer.eos_token_id, len(self.tokenizer)), (1, 1024))

    def test_chats(self):
        text = self.tokenizer.apply_chat_template(QUESTION, tokenize=False, add_generation_prompt=True)
        self.assertTrue(text.endswith("<|im_end|>\n<|im_start|>assistant\n"))
        self.assertEqual(
            self.tokenizer.apply_chat_template(QUESTION, add_generation_prompt=True),
            self.tokenizer.encode(text, add_special_tokens=False),
        )
        shared = [{"from": "human", "value": QUESTION[0]["content"]}]
        self.assertEqual(self.tokenizer.apply_chat_template(shared, tokenize=False, add_generation_prompt=True), text)
        self.assertEqual(standardize_sharegpt([{"conversations": shared}]), [{"conversations": QUESTION}])

    def test_templates(self):
        self.assertIs(get_chat_template(self.tokenizer, "chatml"), self.tokenizer)
        with self.assertRaisesRegex(UsageError, "not known to be llama31"):
            get_chat_template(self.tokenizer, "llama-3.1")
        other = get_chat_template(self.tokenizer, "{% for m in messages %}[{{ m.content }}]{% endfor %}")
        self.assertEqual(other.apply_chat_template([{"role": "user", "content": "a"}], tokenize=False), "[a]")
        other.save_pretrained(path("template"))
        self.assertIn("[{{", Path(path("template"), "chat_template.jinja").read_text())

    def test_refuses(self):
        with self.assertRaisesRegex(UsageError, "did you mean 'truncation'"):
            self.tokenizer("a", truncaton=True)
        with self.assertRaisesRegex(UsageError, "tokens are not changed"):
            self.tokenizer.add_tokens(["x"])
        with self.assertRaisesRegex(UsageError, "no network"):
            self.tokenizer.push_to_hub("me/it")


class Data(unittest.TestCase):
    """The same records in every form are the same run."""

    def samples(self, data, **arguments):
        model, _ = with_lora()
        trainer = SFTTrainer(model=model, train_dataset=data, args=SFTConfig(output_dir=path("none")), **arguments)
        keys = trainer.keys()
        known = tenon._library.keys_of("data")
        return tenon.data(samples=0, **{key: value for key, value in keys.items() if key in known})["samples"]

    def test_every_form(self):
        model, tokenizer = opened()
        rendered = self.samples(texts(tokenizer))
        self.assertTrue(all(token != -100 for sample in rendered for token in sample["labels"]))
        both = [{**chat, **text} for chat, text in zip(chats(), texts(tokenizer))]
        renamed = [{"t": one["text"]} for one in texts(tokenizer)]
        self.assertEqual(self.samples(Dataset(both)), rendered)
        self.assertEqual(self.samples(renamed, dataset_text_field="t"), rendered)
        self.assertEqual(self.samples(iter(texts(tokenizer))), rendered)

        def one(record):
            return tokenizer.apply_chat_template(record["messages"], tokenize=False)

        def many(columns):
            several = isinstance(columns["messages"][0], list)
            return [one({"messages": messages}) for messages in columns["messages"]] if several else [""]

        self.assertEqual(self.samples(chats(), formatting_func=one), rendered)
        self.assertEqual(self.samples(chats(), formatting_func=many), rendered)
        whole = self.samples(chats())  # of a chat too: answers alone have to be asked for, as in TRL
        self.assertTrue(all(token != -100 for sample in whole for token in sample["labels"]))
        self.assertEqual(self.samples(str(CHATS)), whole)

    def test_pictures_are_found_from_here(self):
        def file_of(record):
            return json.loads(Path(tenon.datasets.files([record])[0]).read_text())

        here, part = os.path.abspath("a.png"), {"type": "image", "image": "a.png"}
        says = file_of({"messages": [{"role": "user", "content": [part, {"type": "text", "text": "image"}]}]})
        self.assertEqual(says["messages"][0]["content"], [{**part, "image": here}, {"type": "text", "text": "image"}])
        self.assertEqual(file_of({"question": "x", "images": ["a.png", "/b.png"]})["images"], [here, "/b.png"])
        part = {"type": "image_url", "image_url": {"url": "file:///c.png"}}
        self.assertEqual(file_of({"messages": [{"role": "user", "content": [part]}]})["messages"][0]["content"], [part])
        pillow = type("Image", (), {"convert": None, "size": (1, 1)})()
        with self.assertRaisesRegex(BadDataError, "record 0 holds a picture in memory"):
            file_of({"messages": [], "images": [pillow]})

    def test_markers_agree_with_the_template(self):
        model, _ = with_lora()
        trainer = SFTTrainer(model=model, train_dataset=chats(), args=SFTConfig(output_dir=path("none")))
        own = tenon.data(model=ISLANDS, dataset=CHATS, samples=0, packing=False)["samples"]
        marked = tenon.train_on_responses_only(trainer, **PARTS).train_dataset
        self.assertEqual([one["labels"] for one in marked], [one["labels"] for one in own])
        self.assertEqual([one["input_ids"] for one in marked], [one["ids"] for one in own])

    def test_markers_that_tokens_do_not_end_with(self):
        from tenon.responses import Marker, labels_of

        tokenizer = tenon.Tokenizer(ISLANDS)
        ids = tokenizer.encode(
            "Question: who?\n\nAnswer: Una Thorn lives.\n\nQuestion: é?\n\nAnswer: yes", add_special_tokens=False
        )
        for question in ("Question:", "\n\nQuestion:", "Question: "):
            labels = labels_of(ids, Marker(tokenizer, question), Marker(tokenizer, "Answer: "))
            text = tokenizer.decode([token for token in labels if token != -100])
            self.assertIn("Una Thorn lives.", text)
            self.assertTrue(text.endswith("es"), text)
            self.assertNotIn("uestion", text)
            self.assertNotIn("nswer", text)

    def test_refuses(self):
        def data(value, **arguments):
            self.samples(value, **arguments)

        for value, arguments, said in (
            ([], {}, "empty"),
            ([1], {}, r"\[0\] is a int"),
            (7, {}, "is a int"),
            ({"train": []}, {}, "a map of train"),
            ("nowhere.jsonl", {}, "nowhere.jsonl"),
            ([{"t": "x"}], {"dataset_text_field": "u"}, "no 'u'"),
            ([{"text": "x"}, {"text": None}], {}, "record 1 has no 'text'"),
        ):
            with self.assertRaisesRegex((UsageError, BadDataError), said):
                data(value, **arguments)
        model, tokenizer = with_lora()
        trainer = SFTTrainer(model=model, train_dataset=texts(tokenizer), args=SFTConfig(output_dir=path("none")))
        with self.assertRaisesRegex(UsageError, "instruction_part"):
            tenon.train_on_responses_only(trainer)
        with self.assertRaisesRegex(BadDataError, "no record of train_dataset has an answer"):
            tenon.train_on_responses_only(trainer, "<|user|>", "<|nobody|>")


class Arguments(unittest.TestCase):
    def test_from_pretrained(self):
        for arguments, said in (
            ({"max_seq_len": 64}, "unknown argument 'max_seq_len'"),
            ({"fast_inference": True}, "fast_inference=True"),
            ({"load_in_8bit": True, "load_in_4bit": True}, "load_in"),
            ({"dtype": "int3"}, "int3"),
            ({"max_seq_length": 4096}, "512"),
            ({"device": "cuda:77"}, "cuda"),
            ({"threads": "\udcff"}, "UTF-8"),
            ({"adapter": 7}, "adapter is a int"),
        ):
            with self.assertRaisesRegex((UsageError), said):
                opened(**arguments)
        with self.assertRaisesRegex(UsageError, "hf download unsloth/llama-3-8b"):
            opened("unsloth/llama-3-8b")
        model, _ = FastLanguageModel.from_pretrained(str(ISLANDS), device_map="cpu", token="hf_x", dtype=None)
        self.assertIs(model.loading["load_in_4bit"], True)  # Unsloth's default

    def test_get_peft_model(self):
        model, _ = with_lora(
            target_modules=["q_proj"],
            lora_dropout=0,
            bias="none",
            use_gradient_checkpointing="unsloth",
            random_state=1,
            use_rslora=False,
            loftq_config=None,
            layers_to_transform=[0],
        )
        self.assertEqual(model.get_nb_trainable_parameters()[0], 16 * (128 + 128))
        for arguments, said in (
            ({"rank": 8}, "unknown key 'rank'"),
            ({"target_modules": ["nothing"]}, "nothing"),
            ({"bias": "all"}, "bias"),
            ({"loftq_config": {"bits": 4}}, "loftq_config"),
        ):
            with self.assertRaisesRegex(UsageError, said):
                with_lora(**arguments)

    def test_config(self):
        args = SFTConfig("out", max_steps=-1, learning_rate=1e-3, eval_strategy="steps", dataset_num_proc=2)
        self.assertEqual((args.output_dir, args.learning_rate, args.lr, args.optim), ("out", 1e-3, 1e-3, "adamw_8bit"))
        self.assertEqual(args.keys({})["num_train_epochs"], 3)
        self.assertNotIn("num_train_epochs", SFTConfig(max_steps=5).keys({}))
        self.assertNotIn("warmup_ratio", SFTConfig(warmup_steps=5).keys({}))
        args.per_device_train_batch_size = 3
        self.assertEqual(args.keys({})["per_device_train_batch_size"], 3)
        for arguments, said in (
            ({"learning_rat": 1}, "learning_rate"),
            ({"neftune_noise_alpha": 5}, "neftune"),
            ({"bf16": True, "fp16": True}, "bf16 and fp16"),
            ({"optim": "adafactor"}, "adafactor"),
            ({"learning_rate": object()}, "learning_rate"),
        ):
            with self.assertRaisesRegex(UsageError, said):
                SFTConfig(**arguments)

    def test_trainer(self):
        model, tokenizer = with_lora()
        for arguments, said in (
            ({"compute_metrics": len}, "compute_metrics"),
            ({"peft_config": {}}, "get_peft_model"),
            ({"packin": True}, "packing"),
            ({"model": "name"}, "from_pretrained"),
            ({"tokenizer": 3}, "tokenizer is a int"),
            ({"args": object()}, "SFTConfig"),
            ({"packing": True, "args": SFTConfig(packing=False)}, "keep one"),
        ):
            with self.assertRaisesRegex(UsageError, said):
                SFTTrainer(**{"model": model, "train_dataset": chats(), **arguments})
        with self.assertRaisesRegex(UsageError, "nothing that trains"):
            SFTTrainer(model=opened()[0], train_dataset=chats()).train()
        with self.assertRaisesRegex(UsageError, "no trained adapter"):
            model.save_pretrained(path("nothing"))

    def test_saving(self):
        model, tokenizer = with_lora()
        model.load_adapter(str(ISLANDS))  # the methods are looked at first
        for method, arguments, said in (
            ("save_pretrained_gguf", {"quantization_method": "q4_k_m"}, "mixtures"),
            ("save_pretrained_merged", {"save_method": "best"}, "merged_16bit"),
            ("save_pretrained", {"push_to_hub": True}, "no network"),
            ("push_to_hub", {}, "no network"),
        ):
            with self.assertRaisesRegex(UsageError, said):
                getattr(model, method)(path("nothing"), **arguments)


class Runs(unittest.TestCase):
    def test_a_callback_stops_the_run_with_a_checkpoint(self):
        class Stop:
            def on_step_end(self, args, state, control, **_):
                control.should_training_stop = state.global_step == 2

        model, _ = with_lora()
        args = SFTConfig(output_dir=path("stopped"), max_steps=50, **RUN)
        stats = SFTTrainer(model=model, train_dataset=chats(), args=args, callbacks=[Stop()]).train()
        self.assertEqual((stats.global_step, model.adapter), (2, path("stopped") + "/checkpoint-2"))

    def test_an_error_in_a_callback_comes_out(self):
        class Broken:
            def on_log(self, args, state, control, logs, **_):
                raise ZeroDivisionError("mine")

        model, _ = with_lora()
        args = SFTConfig(output_dir=path("broken"), max_steps=50, **RUN)
        with self.assertRaisesRegex(ZeroDivisionError, "mine"):
            SFTTrainer(model=model, train_dataset=chats(), args=args, callbacks=[Broken()]).train()
        self.assertTrue(Path(path("broken"), "checkpoint-1", "manifest.json").is_file())

    def test_full_finetuning(self):
        model, tokenizer = opened(full_finetuning=True, dtype="float32")
        self.assertEqual(*model.get_nb_trainable_parameters())
        SFTTrainer(
            model=model, train_dataset=chats(), args=SFTConfig(output_dir=path("full"), max_steps=2, **RUN)
        ).train()
        model.save_pretrained_merged(path("full_saved"), tokenizer)
        again, tokenizer = opened(path("full_saved"))
        self.assertEqual(answer(again, tokenizer), answer(model, tokenizer))

    def test_completions_carry_the_loss_alone(self):
        model, _ = with_lora()
        pairs = [{"prompt": "Who?", "completion": "Una."}] * 4
        trainer = SFTTrainer(model=model, train_dataset=pairs, args=SFTConfig(output_dir=path("none")))
        self.assertIs(trainer.keys()["train_on_responses_only"], True)


class Package(unittest.TestCase):
    def test_the_wheel_holds_every_file(self):
        sys.path.insert(0, str(ROOT / "python"))
        self.addCleanup(sys.path.pop, 0)
        import backend

        with zipfile.ZipFile(path(backend.build_wheel(scratch.name))) as wheel:
            names = set(wheel.namelist())
            self.assertIsNone(wheel.testzip())
        for file in (ROOT / "python/tenon").glob("*.py"):
            self.assertIn(f"tenon/{file.name}", names)
        self.assertIn(f"tenon-{tenon.__version__}.dist-info/RECORD", names)

    def test_without_the_library_it_says_how_to_get_it(self):
        code = "import tenon\ntry: tenon.env()\nexcept tenon.LibraryError as error: print(error)"
        environment = {**os.environ, "TENON_LIBRARY": "/nowhere", "PYTHONPATH": str(ROOT / "python")}
        said = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, text=True).stdout
        self.assertIn("TENON_LIBRARY is /nowhere", said)

    def test_versions_agree(self):
        header = (ROOT / "include/tenon/tenon.h").read_text()
        self.assertIn(f'#define TENON_VERSION "{tenon.__version__}"', header)
        self.assertIn(f'version = "{tenon.__version__}"', (ROOT / "python/pyproject.toml").read_text())


if __name__ == "__main__":
    unittest.main()
