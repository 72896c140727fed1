# %% [markdown]
# The whole way from images to a recognizer: look, preprocess, train, decode, judge, export.
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

from fastctc.crnn import (
    AugmentConfig,
    FormulaConstraint,
    FormulaSource,
    OptimizerConfig,
    Recognizer,
    ScheduleConfig,
    TrainConfig,
    evaluate,
    explain,
    explore,
    export_onnx,
    model_config,
    open_source,
    overfit_one_batch,
    settled,
    steps,
    summarize,
    train,
    write_evaluation_report,
    write_exploration_report,
    write_folder,
)
from fastctc.text import Alphabet

parser = argparse.ArgumentParser(
    description="The whole way from images to a recognizer.",
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
# filter does, and which images cannot be read or are too narrow for their label. Such images are listed and
# never stop a run.

# %%
config = settled(  # fills in what is left open
    TrainConfig(
        data=str(out / "train"),
        optimizer=OptimizerConfig("muon"),
        schedule=ScheduleConfig(steps=options.steps, minutes=None if options.steps else options.minutes),
    )
)
found = explore(data, config.preprocess, model_config(config, Alphabet("a")).frames, limit=500)
for what, words in found.summary().items():
    print(f"{what:9} {words}")
try:
    write_exploration_report(
        found, data, out / "explore", "Training images", config.preprocess, AugmentConfig()
    )
except ModuleNotFoundError as error:
    print(f"no pictures: {error}")

# %% [markdown]
# **Preprocessing** is stored in the checkpoint, so that reading does what training did. The default lifts
# faint ink by a tone curve; median, Gaussian filter, equalization, binarization, opening and closing are
# options.
#
# **Augmentation** is for training alone: shifts and stretches here. A formula may be turned by a few
# degrees only, or a 6 becomes a 9, and it is never mirrored.

# %%
faint = min(found.measured, key=lambda each: each.contrast)
for step, picture in steps(data(faint.index)[0], config.preprocess):
    print(f"{step:12} {picture.shape[1]} x {picture.shape[0]}, levels {picture.min()} to {picture.max()}")

# %% [markdown]
# **Can the set-up learn at all?** (`fastctc train --overfit-one-batch`) A model that cannot learn eight
# images will not learn eight thousand. When it fails, it mostly reads nothing but blanks: a blank
# rate near 1.

# %%
print(overfit_one_batch(config, show_progress=False).summary())

# %% [markdown]
# **Train** (`fastctc train --data DIR --out RUN`). A run that is killed goes on with `resume=True`. It
# leaves the model, a log and, with matplotlib, the picture of its curve.

# %%
result = train(config, out / "run", resume=True, workers=0)
recognizer = Recognizer.load(result.checkpoint)
print(summarize(recognizer.model))
print(f"held out: {result.evaluation.summary()}")

# %% [markdown]
# **Decode** (`fastctc read`): the best path, or a beam search with its n-best. With a constraint only
# formulas that hold are considered, by their exact probabilities. That is opt-in: it never returns a false
# equation, even where one is drawn.

# %%
test = open_source(out / "test")
image, text = test(0)
greedy = recognizer.read(image)
beam = recognizer.read(image, beam_size=20, nbest=3)
held = recognizer.read(image, constraint=FormulaConstraint())
print(f"drawn {text}, greedy {greedy.text!r} ({greedy.confidence:.3f}), under the constraint {held.text!r}")
for hypothesis in beam.nbest:
    print(f"  {hypothesis.log_prob:9.3f}  {hypothesis.text}")
for span in greedy.spans:
    print(f"  {span.text} in columns {span.start:.0f} to {span.end:.0f}, confidence {span.confidence:.3f}")

# %% [markdown]
# **Judge** (`fastctc evaluate MODEL DIR --report DIR`) on images that were not trained on, drawn in another
# way. The model that comes with the package, an hour of training, shows what more time gives.

# %%
judged = evaluate(recognizer, test)
print(f"this model:    {judged.summary()}")
print(f"formula model: {evaluate(Recognizer.load('formula'), test).summary()}")
try:
    print(write_evaluation_report(judged, out / "report", "Test images"))
    explain(recognizer, image).plot().savefig(out / "explain.png", dpi=150)  # fastctc read --explain
except ModuleNotFoundError as error:
    print(f"no pictures: {error}")

# %% [markdown]
# **Export** (`fastctc export MODEL OUT.onnx`): any batch, any width, compared with PyTorch before it is
# written. `examples/read_with_onnx.py` reads with it, without PyTorch.

# %%
try:
    print(export_onnx(recognizer.checkpoint, out / "model.onnx"))
except ModuleNotFoundError as error:
    print(f"not exported: {error}")
