"""The language of the repository: what docstrings open with, phrases to avoid, sentence lengths, US spelling."""

from __future__ import annotations

import ast
import io
import re
import subprocess
import sys
import tokenize
from collections.abc import Iterator
from pathlib import Path

import pytest

REPOSITORY = Path(__file__).resolve().parent.parent
FOLDERS = ("fastctc", "benchmarks", "examples", "docs", "python_tests")
LONGEST_SENTENCE = 25
MOST_WORDS_OF_README = 900

# The first word of a docstring of a function, method or property. A new verb is added here.
VERB_LIST = """
Abort Accept Accumulate Add Adjust Advance Align Allocate Allow Append Apply Ask Assemble Assert Assign
Augment Average Backpropagate Begin Block Bring Broadcast Build Cache Calculate Call Cast Catch Center
Change Check Choose Claim Clamp Classify Clean Clear Clip Close Collapse Collect Combine Compare Compile
Complete Compute Concatenate Configure Connect Convert Copy Correct Count Create Crop Cut Decide Declare
Decode Decorate Defer Define Delete Derive Describe Detect Determine Differentiate Discard Display Divide Do
Download Draw Drop Emulate Enable Encode End Enlarge Ensure Enter Erase Escape Estimate Evaluate Exclude
Execute Exit Expand Explain Explore Export Expose Extend Extract Fail Feed Fetch Fill Filter Find Finish Fit
Fix Flatten Flush Fold Follow Force Forget Format Gather Generate Get Give Group Guard Handle Hash Help Hide
Hint Hold Ignore Import Include Increase Indent Infer Initialize Insert Inspect Install Interpolate Invert
Iterate Join Judge Keep Label Launch Lay Leave Let Limit Link List Listen Load Lock Log Look Make Map Mark
Mask Match Measure Merge Mirror Modify Move Multiply Name Normalize Note Notify Offer Open Order Overwrite
Own Pack Pad Pair Parse Partition Pass Paste Patch Pick Place Plot Point Prepare Preprocess Prevent Print
Propagate Provide Push Put Quote Raise Rank Reach Read Recognize Record Reduce Refer Refine Refuse Register
Reject Release Reload Remove Rename Render Reorder Repeat Replace Replay Report Represent Require Reset
Reshape Resize Resolve Restore Restrict Resume Retry Return Reuse Reverse Rotate Round Run Sample Save Scale
Scan Score Search Seed Select Send Separate Serve Set Settle Shift Shorten Show Shuffle Shut Silence
Simulate Skip Slice Solve Sort Spawn Spell Split Spread Stack Start State Stop Store Stream Stretch Strip
Subtract Sum Summarize Suppress Swap Switch Synchronize Tabulate Take Tell Test Time Touch Trace Train
Transform Translate Transpose Treat Trim Try Tune Turn Undo Unite Unpack Update Use Validate Verify Visit
Wait Walk Warn Weigh Weight Widen Wrap Write Yield Zero Zip
"""
VERBS = frozenset(VERB_LIST.split())

AVOIDED = {
    r"likewise": "repeat the verb",
    r"nothing comes twice": "write 'no duplicates'",
    r"(of )?so many": "write 'N per X'",
    r"(that|those) of": "repeat the noun",
    r"(ends?|stops?) with a word|last words?|by heart|wants?|knows?|says?": "no personification",
    r"cannot be read (is|are) named": "write 'it lists'",
    r"times PyTorch's": "write 'N times faster than PyTorch's'",
    r"(and|or) how many of them|for people|what is there": "name the thing",
}

folders = pytest.mark.parametrize("folder", FOLDERS)


def python_files(folder: str) -> list[Path]:
    return sorted((REPOSITORY / folder).rglob("*.py"))


def markdown_files() -> list[Path]:
    return sorted([*REPOSITORY.glob("*.md"), *(REPOSITORY / "docs").rglob("*.md")])


def name(path: Path) -> str:
    return path.relative_to(REPOSITORY).as_posix()


def docstrings(text: str) -> Iterator[tuple[int, bool, str]]:
    """Yield (line, whether it must open with a verb, text) of each docstring.

    Classes and modules may open with a noun, and tests with the fact that they test.
    """
    for node in ast.walk(ast.parse(text)):
        if isinstance(node, (ast.Module, ast.ClassDef, ast.FunctionDef, ast.AsyncFunctionDef)):
            docstring = ast.get_docstring(node)
            if docstring is not None:
                function = isinstance(node, (ast.FunctionDef, ast.AsyncFunctionDef))
                yield node.body[0].lineno, function and not node.name.startswith("test_"), docstring


def comments(text: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each comment."""
    for token in tokenize.generate_tokens(io.StringIO(text).readline):
        if token.type == tokenize.COMMENT:
            yield token.start[0], token.string.lstrip("# ")


def avoided(text: str) -> list[str]:
    """Return the phrases to avoid that a text has, each with what to do about it."""
    prose = re.sub(r"``?[^`]*``?|\"[^\"\n]*\"", "", text)
    return [
        f"{found.group()!r}: {advice}"
        for phrase, advice in AVOIDED.items()
        for found in re.finditer(rf"\b({phrase})\b", prose, re.IGNORECASE)
    ]


@folders
def test_docstrings_open_with_a_verb(folder: str) -> None:
    faults = [
        f"{name(path)}:{line}: a docstring opens with {text.split()[0]!r}, not with a verb of VERBS"
        for path in python_files(folder)
        for line, function, text in docstrings(path.read_text(encoding="utf-8"))
        if function and text.split()[0].rstrip(",.:;") not in VERBS
    ]
    assert not faults, "\n".join(faults)


@folders
def test_docstrings_and_comments_avoid_phrases(folder: str) -> None:
    faults = []
    for path in set(python_files(folder)) - {Path(__file__).resolve()}:
        text = path.read_text(encoding="utf-8")
        prose = [(line, words) for line, _, words in docstrings(text)] + list(comments(text))
        faults += [f"{name(path)}:{line}: {fault}" for line, words in prose for fault in avoided(words)]
    assert not faults, "\n".join(sorted(faults))


def paragraphs(markdown: str) -> Iterator[tuple[int, str]]:
    """Yield (line, text) of each paragraph and list item, without code, tables, directives and raw HTML."""
    start, lines, fence = 0, list[str](), ""
    for number, line in enumerate([*markdown.splitlines(), ""], start=1):
        mark = re.match(r"\s*(`{3,}|:{3,}|~{3,})", line)
        prose = not (fence or mark or re.match(r"\s*([|<#:]|$)|---|\[.*\]: |\(.*\)=$", line))
        item = re.match(r"\s*([-*]|\d+\.) ", line)
        if lines and (not prose or item):
            yield start, " ".join(lines)
            lines = []
        if mark and not fence:
            code = mark[1][0] == "`" and not re.search(r"\{(note|tip|warning|important)\}", line)
            fence = mark[1] if code or "{" not in line else ""
        elif mark and mark[1] == fence:
            fence = ""
        elif prose:
            line = re.sub(r"^\s*> ?", "", line)
            start = start if lines else number
            lines.append(line.strip()[len(item[1]) + 1 :] if item else line.strip())


def sentences(text: str) -> Iterator[str]:
    """Yield the sentences of a paragraph of Markdown; a span of code or a link's address counts as one word."""
    text = re.sub(
        r"\]\([^)]*\)", "]", re.sub(r"(\{\w+\})?`[^`]*`|\$[^$]*\$", "code", re.sub(r"\$\$.*?\$\$", "", text))
    )
    yield from re.split(r"(?<=[.!?:;])\s+(?=[\"'(*\[]*[A-Z]|code|fastctc)", text)


@pytest.mark.parametrize("path", markdown_files(), ids=name)
def test_prose_is_short_and_plain(path: Path) -> None:
    faults = []
    for line, text in paragraphs(path.read_text(encoding="utf-8")):
        faults += [f"{name(path)}:{line}: {fault}" for fault in avoided(text)]
        for sentence in sentences(text):
            words = len(sentence.split())
            if words > LONGEST_SENTENCE:
                faults.append(f"{name(path)}:{line}: a sentence of {words} words: {sentence}")
    assert not faults, "\n".join(faults)


def test_readme_is_short() -> None:
    words = (REPOSITORY / "README.md").read_text(encoding="utf-8").split()
    assert len(words) <= MOST_WORDS_OF_README


def test_spelling() -> None:
    """Every tracked text file has US spelling; the words to ignore are in pyproject.toml."""
    listed = subprocess.run(["git", "ls-files", "-z"], cwd=REPOSITORY, capture_output=True, check=False)
    if listed.returncode:
        pytest.skip("not a checkout of git")
    files = [file for file in listed.stdout.decode().split("\0") if file and (REPOSITORY / file).exists()]
    assert len(files) > 100
    command = [sys.executable, "-m", "codespell_lib", *files]
    done = subprocess.run(command, cwd=REPOSITORY, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stdout + done.stderr


def test_faults_are_found() -> None:
    """The checks see what they are to see."""
    source = 'def f():\n    """What it does."""\n    # likewise, that of the others\n'
    assert list(docstrings(source)) == [(2, True, "What it does.")]
    assert [len(avoided(text)) for _, text in comments(source)] == [2]
    assert not avoided("it keeps `that of` in code, and somebody's wanted list")
    long = "word " * (LONGEST_SENTENCE + 1)
    page = f"# Title\n\n- One. Two\n  more.\n- {long}\n\n```\n{long}\n```\n\n| {long} |\n\nEnd `a b c`.\n"
    found = list(paragraphs(page))
    assert [line for line, _ in found] == [3, 5, 13]
    assert [len(each.split()) for _, text in found for each in sentences(text)] == [1, 2, 26, 2]
