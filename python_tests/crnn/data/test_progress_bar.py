"""Progress of long work, with and without a terminal."""

import io
import logging
import sys

import pytest

from fastctc.crnn.data import progress


class Terminal(io.StringIO):
    def isatty(self):
        return True


def work(**more):
    with progress("reading", "img", 10, **more) as bar:
        for _ in range(10):
            bar.update()


def test_a_terminal_has_a_bar(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO):
        work()
    assert "reading: 100%" in terminal.getvalue() and "10/10" in terminal.getvalue()
    assert not caplog.records


@pytest.mark.parametrize("seconds, messages", [(0.0, 10), (30.0, 0)])
def test_without_a_terminal_messages_are_logged(monkeypatch, caplog, seconds, messages):
    monkeypatch.setattr(sys, "stderr", io.StringIO())
    monkeypatch.setattr("fastctc.crnn.data.progress_bar.SECONDS", seconds)
    with caplog.at_level(logging.INFO):
        work()
    texts = [record.getMessage() for record in caplog.records]
    assert len([text for text in texts if "img/s" in text and "reading" in text]) >= messages
    assert bool(texts) == bool(messages)
    assert sys.stderr.getvalue() == ""


def test_nothing_is_shown_if_nothing_is_asked_for(monkeypatch, caplog):
    terminal = Terminal()
    monkeypatch.setattr(sys, "stderr", terminal)
    with caplog.at_level(logging.INFO):
        work(show=False)
    assert terminal.getvalue() == "" and not caplog.records
