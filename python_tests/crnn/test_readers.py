import pytest

from fastctc.crnn.readers import FolderSource, LabelError, read_labels


def test_labels_files(tmp_path):
    path = tmp_path / "labels.tsv"
    path.write_text("\ufeffa.png\tx=1\n\nb c.png\t\nd.png\tä\tb\n", encoding="utf-8")
    assert read_labels(path) == [("a.png", "x=1"), ("b c.png", ""), ("d.png", "ä\tb")]
    path.write_text("a.png\tx\nb.png y\n")
    with pytest.raises(
        LabelError, match=r"labels.tsv, line 2: expected a file name, a tab and a text, got 'b.png y'"
    ):
        read_labels(path)
    path.write_bytes(b"a.png\t\xff\n")
    with pytest.raises(LabelError, match=r"is not UTF-8: .* at byte 6"):
        read_labels(path)
    path.write_text("\n")
    with pytest.raises(LabelError, match="names no image"):
        read_labels(path)
    with pytest.raises(LabelError, match=r"cannot read .*none/labels.tsv: No such file"):
        FolderSource(tmp_path / "none")
