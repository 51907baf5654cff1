#!/usr/bin/env python3
"""unsloth_style.py: a notebook of Unsloth's with another import, on the embedded model, in seconds on a CPU.

    make && PYTHONPATH=python python3 examples/unsloth_style.py [OUTPUT_DIR]

Not a line of it needs torch. What an argument means here, or why it is refused, is in docs/python.md.
"""

import json
import sys
from pathlib import Path

from tenon import FastLanguageModel, SFTConfig, SFTTrainer, TextStreamer, is_bfloat16_supported, train_on_responses_only

root, output = Path(__file__).resolve().parent.parent, Path(sys.argv[1] if len(sys.argv) > 1 else "unsloth_style_run")

model, tokenizer = FastLanguageModel.from_pretrained(
    model_name=root / "models/islands", max_seq_length=128, dtype=None, load_in_4bit=False  # True is QLoRA
)
model = FastLanguageModel.get_peft_model(
    model,
    r=16,
    target_modules=["q_proj", "k_proj", "v_proj", "o_proj", "gate_proj", "up_proj", "down_proj"],
    lora_alpha=32,
    lora_dropout=0,
    bias="none",
    use_gradient_checkpointing="unsloth",
    random_state=3407,
    use_rslora=False,
    loftq_config=None,
)
model.print_trainable_parameters()

# A Dataset of Hugging Face's works as well: anything with to_list().
chats = [json.loads(line) for line in open(root / "examples/data/islands.jsonl", encoding="utf-8")]
dataset = [{"text": tokenizer.apply_chat_template(chat["messages"], tokenize=False)} for chat in chats]

trainer = SFTTrainer(
    model=model,
    tokenizer=tokenizer,
    train_dataset=dataset,
    args=SFTConfig(
        dataset_text_field="text",
        per_device_train_batch_size=16,
        gradient_accumulation_steps=1,
        warmup_steps=5,
        max_steps=100,
        learning_rate=2e-3,
        fp16=not is_bfloat16_supported(),
        bf16=is_bfloat16_supported(),
        logging_steps=10,
        optim="adamw_torch",
        weight_decay=0,
        lr_scheduler_type="constant_with_warmup",
        seed=3407,
        output_dir=str(output / "checkpoints"),
        report_to="none",
    ),
)
trainer = train_on_responses_only(
    trainer, instruction_part="<|im_start|>user\n", response_part="<|im_start|>assistant\n"
)
stats = trainer.train()
print(f"{stats.global_step} steps in {stats.metrics['train_runtime']:.1f} s, loss {stats.training_loss:.3f}")

FastLanguageModel.for_inference(model)
question = [{"role": "user", "content": "Can you tell me who tends the lighthouse on Corren Skerry?"}]
inputs = tokenizer.apply_chat_template(question, tokenize=True, add_generation_prompt=True, return_tensors="pt")
model.generate(input_ids=inputs, streamer=TextStreamer(tokenizer, skip_prompt=True), max_new_tokens=32, use_cache=True)

model.save_pretrained(output / "lora")  # loads in PEFT, vLLM, and here: from_pretrained(output / "lora")
tokenizer.save_pretrained(output / "lora")
model.save_pretrained_merged(output / "merged", tokenizer, save_method="merged_16bit")
print(*model.save_pretrained_gguf(output / "gguf", tokenizer, quantization_method="q8_0"))
