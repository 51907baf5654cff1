"""event_file_check.py TENON: what `tenon train --report_to tensorboard` writes, read by the tensorboard package (2.21): every
number of train_log.jsonl under its tag and step, once, also after a checkpoint's steps are trained a second time."""
import glob, json, shutil, subprocess, sys, tempfile

from tensorboard.backend.event_processing.event_accumulator import EventAccumulator
from tensorboard.backend.event_processing.event_file_loader import EventFileLoader

tenon, work = sys.argv[1], tempfile.mkdtemp()
golden = "tests/parity/golden/llama/"


def train(*more):
    subprocess.run([tenon, "train", "--model", golden + "model", "--dataset", golden + "train.jsonl", "--output_dir", work + "/run", "--max_length", "32",
                    "--eval_split", "2", "--eval_steps", "3", "--save_steps", "4", "--report_to", "tensorboard", "--device", "cpu", *more], check=True, capture_output=True)


train("--max_steps", "7")
shutil.rmtree(work + "/run/checkpoint-7")
train("--max_steps", "9", "--resume_from_checkpoint", "auto")
log = [json.loads(line) for line in open(work + "/run/train_log.jsonl")]
accumulator = EventAccumulator(work + "/run/runs")
accumulator.Reload()
compared = 0
for tag in accumulator.Tags()["scalars"]:
    side, name = tag.split("/")
    key = "eval_loss" if side == "eval" else name
    want = [(line["step"], line[key]) for line in log if key in line]
    got = [(e.step, e.value) for e in accumulator.Scalars(tag)]
    assert [s for s, _ in got] == [s for s, _ in want], (tag, got, want)
    assert all(abs(a - b) <= 1e-6 * max(1, abs(b)) for (_, a), (_, b) in zip(got, want)), (tag, got, want)
    compared += len(want)
files = sorted(glob.glob(work + "/run/runs/*"))
assert len(files) == 2 and next(EventFileLoader(files[0]).Load()).file_version == "brain.Event:2"
shutil.rmtree(work)
print(compared, "numbers under", len(accumulator.Tags()["scalars"]), "tags as in train_log.jsonl")
