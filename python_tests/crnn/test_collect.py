import numpy as np
import pytest
from PIL import Image

from fastctc.crnn.collect import Samples, collect, default_workers, write_folder
from fastctc.crnn.preprocess import PreprocessConfig
from fastctc.crnn.readers import FolderSource, LabelError


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
    assert default_workers() >= 0


def test_collecting_stops_in_time():
    samples, _ = collect(numbered_picture, range(10_000_000), PreprocessConfig(), seconds=0.05)
    assert 0 < len(samples) < 100_000
