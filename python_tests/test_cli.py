"""The fastctc command: its output, its files, its exit status, its errors."""

import itertools
import json
import re
import shutil
import signal
import subprocess
import sys
import time

import pytest
import torch
from PIL import Image
from recipes import recipe

from fastctc import cli
from fastctc.crnn import PRESETS, load_checkpoint
from fastctc.crnn.data import images_in
from fastctc.crnn.formulas import holds, is_formula


@pytest.fixture(scope="module")
def run_folder(tmp_path_factory):
    """Write formulas to data/, and a model trained on them for two steps to run/."""
    path = tmp_path_factory.mktemp("cli")
    assert cli.main(["generate", str(path / "data"), "--count", "12", "--seed", "5"]) == 0
    command = ["train", "--out", str(path / "run"), "--data", str(path / "data"), "--steps", "2"]
    assert cli.main([*command, "--batch-size", "4", "--threads", "1", "--precision", "fp32"]) == 0
    return path


@pytest.fixture
def model(run_folder):
    return str(run_folder / "run" / "model.safetensors")


@pytest.mark.parametrize(
    "command",
    [[], ["read"], ["generate"], ["explore"], ["train"], ["evaluate"], ["demo"], ["lm"], ["average"]],
)
def test_help_shows_examples_and_exit_status(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main([*command, "--help"])
    assert ended.value.code == 0
    text = capsys.readouterr().out
    assert "examples:\n  fastctc " in text and "exit status: 0" in text


@pytest.mark.parametrize(
    "command",
    [
        [],
        ["paint"],
        ["read"],
        ["train"],
        ["generate", "x", "--count", "0"],
        ["generate", "x", "--look", "odd"],
        ["train", "--out", "x", "--minutes", "0"],
        ["evaluate", "formula", "--seed", "-1"],
    ],
)
def test_usage_errors(command, capsys):
    with pytest.raises(SystemExit) as ended:
        cli.main(command)
    assert ended.value.code == 2
    assert "usage: fastctc" in capsys.readouterr().err


def test_generate_is_seeded_and_never_overwrites(run_folder, tmp_path, capsys):
    assert cli.main(["generate", str(tmp_path), "--count", "12", "--seed", "5"]) == 0
    labels = (tmp_path / "labels.tsv").read_text()
    assert labels == (run_folder / "data" / "labels.tsv").read_text()
    assert labels.count("\n") == 12
    pictures = sorted(tmp_path.glob("*.png"))
    assert len(pictures) == 12
    for path in pictures:
        assert path.read_bytes() == (run_folder / "data" / path.name).read_bytes()
        assert Image.open(path).size == (180, 60)
    assert cli.main(["generate", str(tmp_path)]) == 2
    assert "has a labels.tsv already" in capsys.readouterr().err


def test_read_prints_a_line_an_image(run_folder, model, capsys):
    assert cli.main(["read", "--checkpoint", model, str(run_folder / "data")]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert len(lines) == 12
    assert lines[3].startswith(str(run_folder / "data" / "000003.png") + "\t")


def test_a_folder_is_read_whatever_the_format_of_its_images(model, tmp_path, capsys):
    picture = Image.new("L", (90, 30), 255)
    names = ["a.png", "b.JPG", "c.tif", "d.gif", "e.bmp", "f.webp", "g.ppm"]
    for name in names:
        picture.save(tmp_path / name)
    (tmp_path / "notes.txt").write_text("not an image")
    assert cli.main(["read", "--checkpoint", model, str(tmp_path)]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [str(tmp_path / name) for name in names]


def test_folders_below_a_folder_are_read(model, tmp_path, capsys):
    for name in ("b/c/2.png", "a.png", "b/1.png", ".hidden/3.png"):
        (tmp_path / name).parent.mkdir(parents=True, exist_ok=True)
        Image.new("L", (90, 30), 255).save(tmp_path / name)
    (tmp_path / "loop").symlink_to(tmp_path)
    assert cli.main(["read", "--checkpoint", model, str(tmp_path), "--threads", "1", "--device", "cpu"]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split("\t")[0] for line in lines] == [
        str(tmp_path / name) for name in ("a.png", "b/1.png", "b/c/2.png")
    ]


def test_a_folder_that_cannot_be_read_is_an_error(tmp_path):
    for recursive in (False, True):
        with pytest.raises(FileNotFoundError):
            images_in(tmp_path / "none", recursive=recursive)


def test_read_json(run_folder, model, capsys):
    image = str(run_folder / "data" / "000000.png")
    assert cli.main(["read", "--json", "--checkpoint", model, image, image]) == 0
    readings = [json.loads(line) for line in capsys.readouterr().out.splitlines()]
    assert len(readings) == 2 and readings[0] == readings[1]
    assert readings[0]["path"] == image and readings[0]["score"] < 0
    assert readings[0]["nbest"][0] == {"text": readings[0]["text"], "log_prob": readings[0]["score"]}


def test_an_uncertain_text_is_not_read(run_folder, tmp_path, capsys):
    """The shipped model is sure of a drawn formula, and not of a tiny copy."""
    good, bad = str(run_folder / "data" / "000000.png"), str(tmp_path / "tiny.png")
    Image.open(good).resize((30, 10)).save(bad)
    command = ["read", "--min-confidence", "0.9", good, bad]
    assert cli.main(command) == 1
    out, err = capsys.readouterr()
    assert [line.split("\t")[0] for line in out.splitlines()] == [good]
    assert (
        re.search(r"tiny.png: confidence 0\.\d+ is below 0\.9: '", err) and "1 of 2 could not be read" in err
    )
    assert cli.main([*command, "--json"]) == 1
    first, second = (json.loads(line) for line in capsys.readouterr().out.splitlines())
    assert first["confidence"] > 0.9 and second["text"] is None and "is below 0.9" in second["error"]
    with pytest.raises(SystemExit):
        cli.main(["read", "--min-confidence", "1.5", good])


def test_read_explains_one_image(run_folder, model, tmp_path, capsys):
    image, picture = str(run_folder / "data" / "000000.png"), tmp_path / "why.png"
    assert cli.main(["read", "--checkpoint", model, image, "--explain", str(picture)]) == 0
    assert capsys.readouterr().out.startswith(image + "\t")
    assert Image.open(picture).size[0] == 1300
    command = ["read", "--checkpoint", model, image, image, "--explain", str(picture)]
    assert cli.main(command) == 2
    assert "--explain draws one image, but 2 are to be read" in capsys.readouterr().err


def test_bad_images_are_reported_skipped_and_counted(run_folder, model, tmp_path, capsys):
    (tmp_path / "bad.png").write_bytes(b"junk")
    (tmp_path / "empty").mkdir()
    good = str(run_folder / "data" / "000000.png")
    names = [str(tmp_path / "bad.png"), good, str(tmp_path / "none.png"), str(tmp_path / "empty")]
    assert cli.main(["read", "--checkpoint", model, *names]) == 1
    out, err = capsys.readouterr()
    assert out.splitlines()[0].startswith(good) and len(out.splitlines()) == 1
    assert "bad.png: not a readable image" in err and "none.png: no such file" in err
    assert "empty: no image in this folder" in err and "3 of 4 could not be read" in err


def test_evaluate(run_folder, model, capsys):
    assert cli.main(["evaluate", model, str(run_folder / "data"), "--mistakes", "2"]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0].startswith("exact match 0.00% (0 of 12), character error rate") and len(out) == 7
    assert out[1].startswith("letters and digits exact ")
    assert [line.partition(":")[0] for line in out[2:5]] == ["by kind", "by length", "by contrast"]
    assert (
        cli.main(["evaluate", model, "--count", "3", "--look", "default", "--json", "--mistakes", "1"]) == 0
    )
    figures = json.loads(capsys.readouterr().out)
    assert figures["count"] == 3 and figures["exact_match"] == 0 and len(figures["mistakes"]) == 1


def test_an_option_of_a_domain_names_it(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "words.txt").write_text("alpha\nbeta\ngamma\n")
    words = ["--words", str(tmp_path / "words.txt")]
    assert cli.main(["generate", str(tmp_path / "out"), "--count", "3", *words]) == 0
    assert len((tmp_path / "out" / "labels.tsv").read_text().splitlines()) == 3
    command = ["train", "--out", str(tmp_path / "run"), "--preset", "quick", "--steps", "1", *words]
    assert cli.main(command) == 2
    assert "--preset is quick, which does not draw words: give --preset words" in capsys.readouterr().err
    with pytest.raises(SystemExit):
        cli.main(["generate", str(tmp_path / "other"), "--domain", "formulas", *words])
    assert "unrecognized arguments: --words" in capsys.readouterr().err


def test_a_domain_is_trained_by_its_own_recipe(tmp_path, capsys):
    pytest.importorskip("matplotlib")
    (tmp_path / "words.txt").write_text("alpha\nbeta\ngamma\n")
    small = ["--images", "8", "--rounds", "1", "--eval-images", "2", "--steps", "1", "--batch-size", "2"]
    network = ["--channels", "4", "--hidden", "8"]
    words = ["--words", str(tmp_path / "words.txt")]
    assert (
        cli.main(["train", "--out", str(tmp_path / "run"), *words, *small, *network, "--workers", "0"]) == 0
    )
    checkpoint = load_checkpoint(tmp_path / "run" / "model.safetensors")
    assert checkpoint.preprocess.ink == "gray" and checkpoint.alphabet.characters.startswith(" !")
    capsys.readouterr()
    assert cli.main(["evaluate", str(tmp_path / "run"), "--count", "2", *words, "--workers", "0"]) == 0
    assert "by kind" in capsys.readouterr().out


def test_evaluate_compares_two_models(run_folder, model, tmp_path, capsys):
    data = shutil.copytree(run_folder / "data", tmp_path / "data")
    (data / "labels.tsv").write_text("".join(f"{n:06d}.png\t1+1 = one\n" for n in range(12)))
    command = ["evaluate", model, str(data), "--compare", "formula"]
    assert cli.main(command) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[1].startswith("letters and digits exact 0.00% without case, word error rate 1")
    assert out[2].startswith("second model: exact match 0.00% (0 of 12)")
    assert (
        out[3] == "first alone right: 0, second alone: 0, both: 0, neither: 12; McNemar's exact test: p = 1"
    )
    assert cli.main([*command[:2], str(run_folder / "data"), "--compare", "formula", "--json"]) == 0
    figures = json.loads(capsys.readouterr().out)
    second = figures["compare"]["second_model"]
    assert figures["compare"]["second"] == second["correct"] > 8 and figures["compare"]["p"] < 0.01
    assert figures["word_error_rate"] == 1 and second["word_error_rate"] < 0.3


def test_evaluate_writes_a_report(run_folder, model, tmp_path, capsys):
    command = ["evaluate", model, str(run_folder / "data"), "--report", str(tmp_path / "report")]
    assert cli.main(command) == 0
    page = tmp_path / "report" / "report.html"
    assert capsys.readouterr().out.splitlines()[-1] == f"report {page}"
    assert {path.name for path in page.parent.iterdir()} == {
        "report.html", "confusion.png", "accuracy.png", "worst.png"
    }  # fmt: skip
    (tmp_path / "file").touch()
    assert cli.main([*command[:-1], str(tmp_path / "file")]) == 2


def test_reading_with_a_beam_and_a_constraint(run_folder, capsys):
    image = str(run_folder / "data" / "000000.png")
    assert cli.main(["read", image, "--beam-size", "8", "--nbest", "3"]) == 0
    lines = [line.split("\t") for line in capsys.readouterr().out.splitlines()]
    assert len(lines) == 3 and {path for path, _, _ in lines} == {image}
    assert sorted(lines, key=lambda line: -float(line[2])) == lines
    assert cli.main(["read", image, "--constraint", "formula", "--json", "--nbest", "2"]) == 0
    reading = json.loads(capsys.readouterr().out)
    texts = [hypothesis["text"] for hypothesis in reading["nbest"]]
    assert reading["text"] == texts[0] and len(texts) == 2
    assert all(holds(text) or (is_formula(text) and "=" not in text) for text in texts)
    assert cli.main(["read", image, "--nbest", "2"]) == 2
    assert "nbest is 2, but greedy decoding has one hypothesis" in capsys.readouterr().err


@pytest.mark.slow
def test_evaluating_under_a_constraint(capsys):
    command = ["evaluate", "formula", "--count", "60", "--json"]
    found = {}
    for value, constraint in itertools.product(("right", "wrong"), ([], ["--constraint", "formula"])):
        options = ["--value", value, "--count", "60" if value == "right" else "5", *constraint]
        assert cli.main([*command, *options]) == 0
        found[value, bool(constraint)] = json.loads(capsys.readouterr().out)["exact_match"]
    assert found["right", True] == 1 and found["wrong", True] == 0
    assert found["right", False] > 0.9 and found["wrong", False] > 0.5


def test_evaluate_counts_what_it_cannot_read(run_folder, model, tmp_path, capsys):
    (tmp_path / "labels.tsv").write_text(f"none.png\t1+1+1\n{run_folder / 'data' / '000000.png'}\t1\n")
    assert cli.main(["evaluate", model, str(tmp_path)]) == 1
    out, err = capsys.readouterr()
    assert "(0 of 1)" in out and "none.png: no such file" in err and "1 of 2 images could not be read" in err


def test_what_cannot_be_done_says_why(run_folder, model, tmp_path, capsys):
    run = str(run_folder / "run")
    for command, message in [
        (["read", "--checkpoint", "none.safetensors", "a.png"], "no checkpoint at none.safetensors"),
        (
            ["read", "--checkpoint", str(run_folder / "data" / "labels.tsv"), "a.png"],
            "not a readable safetensors",
        ),
        (
            ["read", "--device", "cuda:99", "--checkpoint", model, "a.png"],
            "device is 'cuda:99', which this PyTorch",
        ),
        (["evaluate", model, "--device", "nowhere"], "device is 'nowhere', which this PyTorch cannot use"),
        (
            ["train", "--out", str(tmp_path / "x"), "--device", "cuda:99"],
            "device is 'cuda:99', which this PyTorch",
        ),
        (["evaluate", model, str(tmp_path)], "has none of labels.tsv, labels.txt"),
        (["train", "--out", run], "holds a training run already"),
        (
            ["train", "--out", run, "--resume", "--steps", "1"],
            "--steps is 1, but the run to resume has at least 2",
        ),
        (
            ["train", "--out", str(tmp_path / "x"), "--data", str(tmp_path)],
            "has none of labels.tsv, labels.txt",
        ),
    ]:
        assert cli.main(command) == 2
        assert re.search("fastctc: .*" + message, capsys.readouterr().err)


@pytest.mark.slow
def test_explore_draws_a_folder_and_names_what_is_wrong(tmp_path, capsys):
    data = tmp_path / "data"
    assert cli.main(["generate", str(data), "--count", "6", "--renderer", "glyphs"]) == 0
    (data / "000002.png").write_bytes(b"no image")
    capsys.readouterr()
    assert cli.main(["explore", str(data), "--median", "3", "--rotate", "4"]) == 1
    out, err = capsys.readouterr()
    assert re.search("000002.png: not a readable image", err)
    assert re.search(r"^labels +6: .* characters; 6 different$", out, re.MULTILINE)
    assert re.search(r"^images +5 of 6 ", out, re.MULTILINE)
    report = tmp_path / "data-explore" / "report.html"
    assert out.splitlines()[-1].split() == ["report", str(report)]
    assert "000002.png: not a readable image" in report.read_text()
    pictures = list(report.parent.glob("*.png"))
    assert pictures and all(Image.open(path).size[0] > 1000 for path in pictures)
    for options, message in (
        (["--rotate", "40"], "argument --rotate: 40 is out of bounds, expected 0 to 15 degrees"),
        (["--median", "2"], "argument --median: 2 is out of bounds, expected 0 or an odd number"),
    ):
        with pytest.raises(SystemExit) as ended:
            cli.main(["explore", str(data), *options])
        assert ended.value.code == 2 and message in capsys.readouterr().err
    assert cli.main(["explore", str(data), "--height", "20"]) == 2
    assert "fastctc: height is 20, expected a multiple of 8" in capsys.readouterr().err


@pytest.mark.slow
def test_explore_draws_drawn_formulas(tmp_path, capsys):
    command = ["explore", "--look", "default", "--renderer", "glyphs", "--limit", "5"]
    assert cli.main([*command, "--out", str(tmp_path / "look")]) == 0
    assert "Drawn formulas" in (tmp_path / "look" / "report.html").read_text()
    assert "images    5 of 5 " in capsys.readouterr().out


HEARING = """import signal, sys
from fastctc import cli

signal.signal(signal.SIGINT, signal.default_int_handler)  # a job in the background begins with it ignored
sys.exit(cli.main(sys.argv[1:]))"""


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_an_interrupted_run_keeps_its_last_step(number, run_folder, tmp_path):
    command = ["train", "--out", str(tmp_path), "--data", str(run_folder / "data"), "--log-every", "1"]
    command += ["--steps", "100000", "--batch-size", "4", "--threads", "1", "--precision", "fp32"]
    run = subprocess.Popen([sys.executable, "-c", HEARING, *command], stderr=subprocess.PIPE, text=True)
    log = tmp_path / "log.jsonl"
    while run.poll() is None and not (log.exists() and log.read_text().count("\n") >= 3):
        time.sleep(0.05)
    run.send_signal(number)
    errors = run.communicate(timeout=60)[1]
    assert run.returncode == 130 and "stopping after this step" in errors, errors
    steps = json.loads(log.read_text().splitlines()[-1])["step"]
    state = torch.load(tmp_path / "state.pt", weights_only=True)
    assert state["step"] == steps >= 3 and (tmp_path / "model.safetensors").exists()


def test_resuming_a_finished_run_says_its_accuracy_again(run_folder, capsys):
    assert cli.main(["train", "--out", str(run_folder / "run"), "--resume"]) == 0
    assert "unseen images: exact match" in capsys.readouterr().out


def test_demo_trains_and_reads_five_images(tmp_path, capsys, monkeypatch):
    quick = recipe(images=8, renderer="captcha", steps=1, eval_images=4, batch_size=4, threads=1)
    monkeypatch.setitem(PRESETS, "quick", quick)
    assert cli.main(["demo", str(tmp_path)]) == 0
    out = capsys.readouterr().out.splitlines()
    assert out[0] == f"checkpoint {tmp_path / 'model.safetensors'}"
    assert "(0 of 4)" in out[1] and len(out) == 7
    assert len(list((tmp_path / "examples").glob("*.png"))) == 5
    assert cli.main(["demo", str(tmp_path), "--resume"]) == 0


def test_output_that_nobody_reads_is_no_error(run_folder, model):
    command = [sys.executable, "-m", "fastctc.cli", "read", "--checkpoint", model, str(run_folder / "data")]
    process = subprocess.Popen(command, stdout=subprocess.PIPE, stderr=subprocess.PIPE, text=True)
    process.stdout.close()
    assert process.stderr.read() == ""
    assert process.wait() == 1
