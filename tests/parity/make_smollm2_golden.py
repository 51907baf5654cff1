"""Golden file of tests/parity/test_smollm2.c: SmolLM2-135M-Instruct read from its Q4_1 GGUF by Transformers (fp32): token ids of a few
texts and a rendered chat, log-probabilities of each token given those before it, and a greedy continuation.
usage: make_smollm2_golden.py PATH_TO_GGUF   (versions are written into the file)"""
import json, os, sys
import torch, transformers

path = os.path.abspath(sys.argv[1])
folder, name = os.path.split(path)
tokenizer = transformers.AutoTokenizer.from_pretrained(folder, gguf_file=name)
model = transformers.AutoModelForCausalLM.from_pretrained(folder, gguf_file=name, dtype=torch.float32).eval()
texts = ["The lighthouse keeper climbed the stairs at dusk, counting 123 steps.", "def add(a, b):\n    return a + b\n\nprint(add(2, 40))",
         "Überraschung! Das Café schließt um 17:45 Uhr — schade."]
records = []
for text in texts:
    ids = tokenizer(text, add_special_tokens=False).input_ids
    with torch.no_grad():
        logp = model(torch.tensor([ids])).logits[0].double().log_softmax(-1)
    records.append({"text": text, "ids": ids, "logprobs": [None] + [logp[i, t].item() for i, t in enumerate(ids[1:])]})
messages = [{"role": "user", "content": "Name three colours of the rainbow."}]
chat = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
prompt = tokenizer(chat, add_special_tokens=False).input_ids
with torch.no_grad():
    out = model.generate(torch.tensor([prompt]), max_new_tokens=24, do_sample=False, eos_token_id=-1)[0].tolist()[len(prompt):]
golden = {"versions": f"torch {torch.__version__}, transformers {transformers.__version__}", "records": records,
          "chat": {"messages": messages, "text": chat, "prompt_ids": prompt, "greedy": out, "continuation": tokenizer.decode(out)}}
with open(os.path.join(os.path.dirname(os.path.abspath(__file__)), "golden", "smollm2.json"), "w") as f:
    json.dump(golden, f, indent=1, ensure_ascii=False)
print(json.dumps(golden["chat"], ensure_ascii=False)[:600])
