# %% [markdown]
# The whole way from images to a recogniser: look, preprocess, train, decode, judge, export.
#
# Run it cell by cell as a notebook (VS Code, Jupytext), or top to bottom as a script:
#
#     python examples/walkthrough.py runs/walkthrough --minutes 3
#
# Everything it writes is in that folder. Each step names the command that does the same.

# %%
import argparse
import sys
from pathlib import Path

from fastctc.crnn import Recognizer
from fastctc.crnn.data.augment import AugmentConfig
from fastctc.crnn.data.collect import collect, write_folder
from fastctc.crnn.data.preprocess import steps
from fastctc.crnn.data.readers import open_source
from fastctc.crnn.formulas.drawing import FormulaSource
from fastctc.crnn.model.checkpoint import load_checkpoint
from fastctc.crnn.model.export import export_onnx
from fastctc.crnn.model.summary import summarize
from fastctc.crnn.read.constraint import FormulaConstraint
from fastctc.crnn.read.evaluate import evaluate
from fastctc.crnn.read.explain import explain
from fastctc.crnn.report.exploration import explore
from fastctc.crnn.train.config import TrainConfig, model_config, settled
from fastctc.crnn.train.overfit import overfit_one_batch
from fastctc.crnn.train.run import train
from fastctc.text import Alphabet

parser = argparse.ArgumentParser(
    description="The whole way from images to a recogniser.",
    epilog="example:\n  python examples/walkthrough.py runs/walkthrough --minutes 3",
    formatter_class=argparse.RawDescriptionHelpFormatter,
)
parser.add_argument("out", type=Path, nargs="?", default=Path("runs/walkthrough"))
parser.add_argument("--images", type=int, default=5000, help="images to train on (default: %(default)s)")
parser.add_argument("--minutes", type=float, default=3.0, help="time for training (default: %(default)s)")
parser.add_argument("--steps", type=int, help="training steps, instead of minutes")
options = parser.parse_args([] if "ipykernel" in sys.modules else None)
out = options.out

# %% [markdown]
# **Data.** A folder of images with `labels.tsv`: file name, tab, text. Put your own here; any size, any
# characters. `fastctc generate` draws such a folder. Drawing in this process (`workers=0`) lets this file
# be a notebook.

# %%
for name, count, seed in (("train", options.images, 1), ("test", 200, 2)):
    if not (out / name / "labels.tsv").exists():
        renderer = "glyphs" if name == "train" else "captcha"
        write_folder(FormulaSource(look="contest", renderer=renderer, seed=seed), out / name, count)
data = open_source(out / "train")  # also labels.txt, labels.json, or an LMDB of the scene-text field
print(f"{len(data)} images, the first shows {data(0)[1]}")

# %% [markdown]
# **Look before you train** (`fastctc explore DIR`): label lengths, characters, sizes, contrast, what every
# filter does, and which images cannot be read or are too narrow for their label. Such images never stop a
# run, they are named.

# %%
minutes = None if options.steps else options.minutes
config = settled(  # fills in what is left open
    TrainConfig(data=str(out / "train"), images=None, optimizer="muon", steps=options.steps, minutes=minutes)
)
frames = model_config(config, Alphabet("a")).frames
found = explore(data, config.preprocess(), frames, limit=500)
for what, words in found.summary().items():
    print(f"{what:9} {words}")
try:
    from fastctc.crnn.report import exploration_report as explore_report

    explore_report.write_report(
        found, data, out / "explore", "Training images", config.preprocess(), AugmentConfig()
    )
except ModuleNotFoundError as error:
    print(f"no pictures: {error}")

# %% [markdown]
# **Preprocessing** is stored in the checkpoint, so that reading does what training did. The default lifts
# faint ink by a tone curve; median, Gaussian filter, equalisation, binarisation, opening and closing are
# options.
#
# **Augmentation** is for training alone: shifts and stretches here. A formula may be turned by a few
# degrees only, or a 6 becomes a 9, and it is never mirrored.

# %%
faint = min(found.measured, key=lambda each: each.contrast)
for step, picture in steps(data(faint.index)[0], config.preprocess()):
    print(f"{step:12} {picture.shape[1]} x {picture.shape[0]}, levels {picture.min()} to {picture.max()}")

# %% [markdown]
# **Can the set-up learn at all?** (`fastctc train --overfit-one-batch`) A model that cannot learn eight
# images by heart will not learn eight thousand. When it fails, it mostly reads nothing but blanks: a blank
# rate near 1.

# %%
print(overfit_one_batch(config, show_progress=False))

# %% [markdown]
# **Train** (`fastctc train --data DIR --out RUN`). A run that is killed goes on with `resume=True`. It
# leaves the model, a log and, with matplotlib, the picture of its curve.

# %%
result = train(config, out / "run", resume=True, workers=0)
model = load_checkpoint(result.checkpoint)
print(summarize(model.model))
print(f"held out: {result.evaluation.summary()}")

# %% [markdown]
# **Decode** (`fastctc read`): the best path, or a beam search with its n-best. With a constraint only
# formulas that hold are considered, by their exact probabilities. That is opt-in: a wrong equation is then
# never read as it is drawn.

# %%
recognizer = Recognizer(model)
test = open_source(out / "test")
image, text = test(0)
(greedy,) = recognizer.read([image])
(beam,) = recognizer.read([image], beam_size=20, nbest=3)
(held,) = recognizer.read([image], constraint=FormulaConstraint())
print(f"drawn {text}, greedy {greedy.text!r} ({greedy.score:.3f}), under the constraint {held.text!r}")
for hypothesis in beam.nbest:
    print(f"  {hypothesis.log_prob:9.3f}  {hypothesis.text}")

# %% [markdown]
# **Judge** (`fastctc evaluate MODEL DIR --report DIR`) on images that were not trained on, drawn in another
# way. The model that comes with the package, an hour of training, shows what more time gives.

# %%
samples, problems = collect(test, range(len(test)), model.preprocess, name=test.name)
judged = evaluate(model.model, samples, model.alphabet, model.preprocess)
print(f"this model:    {judged.summary()}")
shipped = Recognizer.from_checkpoint().checkpoint
samples_of_shipped, _ = collect(test, range(len(test)), shipped.preprocess, name=test.name)
best = evaluate(shipped.model, samples_of_shipped, shipped.alphabet, shipped.preprocess)
print(f"shipped model: {best.summary()}")
try:
    from fastctc.crnn.report import evaluation_report as report

    print(report.write_report(judged, samples, out / "report", "Test images"))
    explain(recognizer, image).plot().savefig(out / "explain.png", dpi=150)  # fastctc read --explain
except ModuleNotFoundError as error:
    print(f"no pictures: {error}")

# %% [markdown]
# **Export** (`fastctc export MODEL OUT.onnx`): any batch, any width, compared with PyTorch before it is
# written. `examples/read_with_onnx.py` reads with it, without PyTorch.

# %%
try:
    print(export_onnx(model, out / "model.onnx"))
except ModuleNotFoundError as error:
    print(f"not exported: {error}")
