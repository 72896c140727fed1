"""Samples collected into memory or written to a folder, by one process or by workers."""

import io
import os
import subprocess
import sys

import numpy as np
import pytest
from PIL import Image

from fastctc.crnn.data import (
    LabelError,
    PreprocessConfig,
    Problem,
    Samples,
    collect,
    default_workers,
    open_source,
    write_folder,
)
from fastctc.crnn.data.readers import FolderSource


def numbered_picture(index: int) -> tuple[Image.Image, str]:
    image = np.full((32, 40 + index % 5), 255, np.uint8)
    image[:, index % 40] = 0
    return Image.fromarray(image), "abc"[index % 3] * (index % 4)


def test_a_folder_is_written_and_read_back(tmp_path):
    done = []
    write_folder(numbered_picture, tmp_path, 70, on_progress=done.append)
    assert sum(done) == 70 and len(list(tmp_path.glob("*.png"))) == 70
    source = FolderSource(tmp_path)
    assert len(source) == 70 and source.name(1) == "000001.png"
    samples, problems = collect(source, range(70), PreprocessConfig(), name=source.name)
    assert not problems
    assert samples.texts == [numbered_picture(i)[1] for i in range(70)]
    assert [image.shape[1] for image in samples.images] == [40 + i % 5 for i in range(70)]
    with pytest.raises(LabelError, match=r"has a labels.tsv already"):
        write_folder(numbered_picture, tmp_path, 1)


def test_workers_keep_the_order(tmp_path):
    write_folder(numbered_picture, tmp_path, 150)
    (tmp_path / "000100.png").write_bytes(b"broken")
    source = FolderSource(tmp_path)
    one, problems = collect(source, range(150), PreprocessConfig(), workers=0, name=source.name)
    two, same_problems = collect(source, range(150), PreprocessConfig(), workers=2, name=source.name)
    assert one.names == two.names and one.texts == two.texts and one.fingerprint() == two.fingerprint()
    assert problems == same_problems and len(one) == 149
    assert one.contrasts == two.contrasts and len(one.contrasts) == 149
    assert one.contrasts[:100] == pytest.approx([np.sqrt((w - 1) / w**2) for w in [40, 41, 42, 43, 44] * 20])
    assert one.subset([3, 1]).contrasts == [one.contrasts[3], one.contrasts[1]]
    assert Samples(one.images[:2], one.texts[:2], one.names[:2]).subset([1]).contrasts == []
    assert str(problems[0]).startswith("000100.png: not a readable image")
    assert default_workers() != 1 and default_workers() <= os.cpu_count()


def test_collecting_stops_in_time():
    samples, _ = collect(numbered_picture, range(10_000_000), PreprocessConfig(), seconds=0.05)
    assert 0 < len(samples) < 100_000


def test_what_a_source_raises_is_the_samples_problem():
    errors = {3: LabelError("no key image-000000004"), 5: ZeroDivisionError("by zero"), 6: KeyError("x")}

    def source(index: int) -> tuple[object, str]:
        if index in errors:
            raise errors[index]
        return (object() if index == 8 else numbered_picture(index)[0]), "1"

    samples, problems = collect(source, range(10), PreprocessConfig(), name="{}.png".format)
    assert samples.names == [f"{i}.png" for i in (0, 1, 2, 4, 7, 9)]
    assert [str(problem) for problem in problems[:3]] == [
        "3.png: no key image-000000004",
        "5.png: ZeroDivisionError: by zero",
        "6.png: KeyError: 'x'",
    ]
    assert len(problems) == 4 and problems[3].name == "8.png"
    errors[4] = ModuleNotFoundError("no captcha here")  # of every sample
    with pytest.raises(ModuleNotFoundError, match="no captcha here"):
        collect(source, range(10), PreprocessConfig())


@pytest.mark.slow
def test_an_lmdb_is_collected_by_workers(tmp_path):
    lmdb = pytest.importorskip("lmdb")
    with lmdb.open(str(tmp_path), map_size=1 << 24) as environment, environment.begin(write=True) as writing:
        writing.put(b"num-samples", b"100")
        for i in range(1, 101):
            content = io.BytesIO()
            numbered_picture(i)[0].save(content, "PNG" if i % 2 else "BMP")
            writing.put(f"image-{i:09d}".encode(), content.getvalue() if i != 70 else b"")
            writing.put(f"label-{i:09d}".encode(), str(i).encode() if i != 80 else b"\xff")
        writing.delete(b"image-000000003")
    source = open_source(tmp_path)
    one, problems = collect(source, range(100), PreprocessConfig(), name=source.name)
    two, same_problems = collect(source, range(100), PreprocessConfig(), workers=1, name=source.name)
    assert one.fingerprint() == two.fingerprint() and one.names == two.names and problems == same_problems
    assert [(p.name, p.reason.split(":")[0]) for p in problems] == [
        ("image-000000003", "no key image-000000003"),
        ("image-000000070", "not a readable image"),
        ("image-000000080", "label-000000080 is not UTF-8"),
    ]
    assert one.texts == [str(i) for i in range(1, 101) if i not in (3, 70, 80)]


class Crashing:
    """Kills the process that reads one of its samples, as a bug in a decoder does."""

    def __init__(self, index: int) -> None:
        self.index, self.process = index, os.getpid()

    def __call__(self, index: int) -> tuple[Image.Image, str]:
        if index == self.index:
            assert os.getpid() != self.process
            os._exit(9)
        return numbered_picture(index)


@pytest.mark.slow
def test_a_sample_that_crashes_its_worker_is_named_and_the_others_are_read(tmp_path, caplog):
    samples, problems = collect(Crashing(63), range(130), PreprocessConfig(), workers=1)
    assert problems == [Problem("sample 63", "the process that read it crashed")]
    assert samples.names == [f"sample {i}" for i in range(130) if i != 63]
    assert samples.texts == [numbered_picture(i)[1] for i in range(130) if i != 63]
    assert "a worker process crashed: taking 0 to 63 one by one" in caplog.text
    with pytest.raises(RuntimeError, match="sample 63: the process that drew it crashed"):
        write_folder(Crashing(63), tmp_path / "new", 130, workers=1)
    assert not (tmp_path / "new" / "labels.tsv").exists()


@pytest.mark.slow
def test_workers_that_cannot_start_are_not_the_samples_fault(tmp_path):
    script = tmp_path / "unguarded.py"
    script.write_text(
        "from fastctc.crnn.data.collection import collect\n"
        "from fastctc.crnn import FormulaSource\n"
        "from fastctc.crnn.data.preprocess import PreprocessConfig\n"
        "collect(FormulaSource(), range(200), PreprocessConfig(), workers=1)\n"
    )
    done = subprocess.run([sys.executable, script], capture_output=True, text=True, timeout=600)
    assert done.returncode == 1
    assert "RuntimeError: worker processes cannot start: use workers=0, or" in done.stderr.splitlines()[-1]


@pytest.mark.parametrize("text", ["a\nb", "a\rb", "a\tb"])
def test_a_line_break_or_a_tab_is_not_written_into_labels(text, tmp_path):
    with pytest.raises(LabelError, match=r"sample 0: labels.tsv cannot hold the line break or the tab in 'a"):
        write_folder(lambda index: (numbered_picture(index)[0], text), tmp_path, 1)
