"""Lines of pages in PAGE-XML and ALTO."""

import pickle

import numpy as np
import pytest
from PIL import Image

from fastctc.crnn.data import ImageError, LabelConfig, LabelError, open_source

PAGE = """<?xml version="1.0" encoding="UTF-8"?>
<PcGts xmlns="http://schema.primaresearch.org/PAGE/gts/pagecontent/2019-07-15">
  <Page imageFilename="one.png" imageWidth="200" imageHeight="100">
    <TextRegion id="r"><Coords points="0,0 199,0 199,99 0,99"/>
      <TextLine id="l1"><Coords points="10,10 109,10 109,29 10,29"/>
        <Word id="w"><Coords points="10,10 20,10 20,20"/><TextEquiv><Unicode>no</Unicode></TextEquiv></Word>
        <TextEquiv index="1"><Unicode>second</Unicode></TextEquiv>
        <TextEquiv index="0"><Unicode>First &amp; cafe\u0301</Unicode></TextEquiv></TextLine>
      <TextLine id="slanted"><Coords points="10,40 60,50 60,70 10,60"/>
        <TextEquiv><Unicode>slanted</Unicode></TextEquiv></TextLine>
      <TextLine id="none"><Coords points="10,80 60,80 60,90 10,90"/></TextLine>
      <TextLine id="outside"><Coords points="300,10 400,10 400,20 300,20"/>
        <TextEquiv><Unicode>x</Unicode></TextEquiv></TextLine>
    </TextRegion></Page></PcGts>"""
ALTO = """<alto xmlns="http://www.loc.gov/standards/alto/ns-v4#">
  <Description><sourceImageInformation><fileName>one.png</fileName></sourceImageInformation></Description>
  <Layout><Page><PrintSpace><TextBlock>
    <TextLine ID="a" HPOS="10" VPOS="10" WIDTH="100" HEIGHT="20">
      <String CONTENT="two"/><SP/><String CONTENT="words"/></TextLine>
    <TextLine ID="b" HPOS="0" VPOS="0" WIDTH="9" HEIGHT="9">
      <Shape><Polygon POINTS="10 40 60 50 60 70 10 60"/></Shape>
      <String CONTENT="b"/></TextLine>
  </TextBlock></PrintSpace></Page></Layout></alto>"""


@pytest.fixture
def page(tmp_path):
    rng = np.random.default_rng(0)
    pixels = np.full((100, 200, 3), 240, np.uint8)
    pixels[10:30, 10:110] = rng.integers(0, 255, (20, 100, 3))
    pixels[40:71, 10:61] = 7  # around the slanted line
    Image.fromarray(pixels).save(tmp_path / "one.png")
    return pixels


def write(folder, content, name="one.xml"):
    folder.mkdir(exist_ok=True)
    (folder / name).write_text(content, encoding="utf-8")


@pytest.mark.parametrize("below", [False, True])
def test_lines_of_page_xml(tmp_path, page, below):
    write(tmp_path / "page" if below else tmp_path, PAGE)
    source = open_source(tmp_path)
    assert len(source) == 4 and source.name(0) == "one.xml#l1"
    picture, text = source(0)
    assert text == "First & caf\u00e9" and np.array_equal(np.asarray(picture), page[10:30, 10:110])
    picture, text = pickle.loads(pickle.dumps(source))(1)
    assert text == "slanted" and picture.size == (51, 31) and bool((np.asarray(picture) == 7).all())
    with pytest.raises(LabelError, match=r"one\.xml#none has no text"):
        source(2)
    with pytest.raises(ImageError, match="line outside is outside of its page of 200x100 pixels"):
        source(3)
    key = source.key()
    assert open_source(tmp_path, LabelConfig(unicode_form="NFD")).key() != key
    Image.new("L", (200, 100)).save(tmp_path / "one.png")
    assert open_source(tmp_path).key() != key


def test_lines_of_alto(tmp_path, page):
    write(tmp_path, ALTO)
    source = open_source(tmp_path / "one.xml")
    picture, text = source(0)
    assert text == "two words" and np.array_equal(np.asarray(picture), page[10:30, 10:110])
    picture, text = source(1)
    assert text == "b" and picture.size == (51, 31)


def test_what_is_around_an_outline_is_hidden(tmp_path, page):
    """A neighboring line within the bounding box would be read, too."""
    pixels = page.copy()
    pixels[40:45, 40:61] = 200  # above the slanted outline, inside of its box
    Image.fromarray(pixels).save(tmp_path / "one.png")
    write(tmp_path, PAGE)
    assert bool((np.asarray(open_source(tmp_path)(1)[0]) == 7).all())


@pytest.mark.parametrize(
    "content, message",
    [
        ("<PcGts", "one.xml is not readable XML"),
        ("<html/>", "has the root html, expected PcGts"),
        ("<PcGts/>", "has no line of text in 1 files"),
        (PAGE.replace(' imageFilename="one.png"', ""), "is not PcGts as expected: 'imageFilename'"),
        (PAGE.replace("10,40 60,50 60,70 10,60", "10,40,60"), "'10,40,60' are no corners"),
        (ALTO.replace(' HPOS="10"', ""), "is not alto as expected: 'HPOS'"),
    ],
)
def test_files_that_are_not_as_expected(tmp_path, content, message):
    write(tmp_path, content)
    with pytest.raises(LabelError, match=message):
        open_source(tmp_path)


def test_a_missing_page_is_a_problem_of_its_lines(tmp_path):
    write(tmp_path, PAGE)
    with pytest.raises(ImageError, match="no such file"):
        open_source(tmp_path)(0)
