"""The package's version, its sdist, and the files that a release needs."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import re
import shutil
import subprocess
import sys
import tarfile
from pathlib import Path
from types import ModuleType
from typing import Any

import pytest
import yaml
from conftest import REPOSITORY

import fastctc

WORKFLOWS = sorted((REPOSITORY / ".github" / "workflows").glob("*.yml"))
TEMPLATES = sorted((REPOSITORY / ".github" / "ISSUE_TEMPLATE").glob("*.yml"))
LARGEST_SDIST = 8_800_000  # bytes
CHANGES = {"Added", "Changed", "Deprecated", "Removed", "Fixed", "Security"}


@pytest.fixture(scope="module")
def release_notes() -> ModuleType:
    spec = importlib.util.spec_from_file_location("release_notes", REPOSITORY / ".ci" / "release_notes.py")
    assert spec is not None and spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


@pytest.fixture
def released(tmp_path: Path) -> Path:
    """Return a folder with the files that state the version."""
    (tmp_path / "fastctc").mkdir()
    (tmp_path / "fastctc" / "version.py").write_text('__version__ = "1.2.3"\n')
    (tmp_path / "CITATION.cff").write_text("cff-version: 1.2.0\nversion: 1.2.3\n")
    sections = (
        "## [Unreleased]\n\nC\n\n## [1.2.3] - 2026-01-31\n\nB\n\n## [1.2.2] - 2026-01-30\n\nA\n\n[1.2.2]: x\n"
    )
    (tmp_path / "CHANGELOG.md").write_text(f"# Changelog\n\n{sections}")
    return tmp_path


# ---- the version


def test_every_file_states_one_version(release_notes: ModuleType) -> None:
    stated = release_notes.stated_versions(REPOSITORY)
    assert set(stated.values()) == {fastctc.__version__}, stated
    assert importlib.metadata.version("fastctc") == fastctc.__version__
    assert not re.search(r"^version *=", (REPOSITORY / "pyproject.toml").read_text(), re.MULTILINE)


def test_release_notes_are_one_section(release_notes: ModuleType, released: Path) -> None:
    assert release_notes.release_notes(released, "v1.2.3") == "B"
    (released / "fastctc" / "version.py").write_text('__version__ = "1.2.2"\n')
    with pytest.raises(ValueError, match=r"the tag is v1.2.3, but fastctc/version.py states version 1.2.2"):
        release_notes.release_notes(released, "v1.2.3")


@pytest.mark.parametrize("name", ["fastctc/version.py", "CITATION.cff", "CHANGELOG.md"])
def test_a_release_needs_the_version_in_each_file(
    release_notes: ModuleType, released: Path, name: str
) -> None:
    path = released / name
    path.write_text(path.read_text().replace("1.2.3", "1.2.4"))
    with pytest.raises(ValueError, match=rf"the tag is v1\.2\.3, but {name} states version 1\.2\.4"):
        release_notes.release_notes(released, "v1.2.3")
    path.write_text("nothing\n")
    with pytest.raises(ValueError, match=f"{name} states no version"):
        release_notes.release_notes(released, "v1.2.3")


def test_a_release_needs_notes(release_notes: ModuleType, released: Path) -> None:
    path = released / "CHANGELOG.md"
    path.write_text(path.read_text().replace("\nB\n", ""))
    with pytest.raises(ValueError, match=r"the section of 1\.2\.3 in CHANGELOG\.md is empty"):
        release_notes.release_notes(released, "v1.2.3")


def test_the_changelog_is_kept() -> None:
    """Keep a Changelog: Unreleased first, dated versions in descending order, six kinds of changes, links."""
    text = (REPOSITORY / "CHANGELOG.md").read_text()
    headings = re.findall(r"^## (.+)$", text, re.MULTILINE)
    assert headings[0] == "[Unreleased]"
    versions = []
    for heading in headings[1:]:
        match = re.fullmatch(r"\[(\d+)\.(\d+)\.(\d+)\] - \d{4}-\d\d-\d\d", heading)
        assert match, heading
        versions.append(tuple(map(int, match.groups())))
    assert versions == sorted(set(versions), reverse=True)
    assert set(re.findall(r"^### (.+)$", text, re.MULTILINE)) <= CHANGES
    for name in re.findall(r"^## \[(.+?)\]", text, re.MULTILINE):
        assert f"\n[{name}]: https://" in text, f"CHANGELOG.md links no changes of {name}"


# ---- what is packed


def build_sdist(checkout: Path, folder: Path) -> tarfile.TarFile:
    folder.mkdir()
    code = "import sys, scikit_build_core.build as build; print(build.build_sdist(sys.argv[1]))"
    done = subprocess.run([sys.executable, "-c", code, folder], cwd=checkout, capture_output=True, text=True)
    assert done.returncode == 0, done.stdout + done.stderr
    (path,) = folder.iterdir()
    assert path.stat().st_size < LARGEST_SDIST
    return tarfile.open(path)


@pytest.fixture
def checkout(tmp_path: Path) -> Path:
    """Return a copy of the checkout with build results in it."""
    junk = shutil.ignore_patterns(".git", ".*_cache", "__pycache__", "build", "dist", "runs", "*.so")
    here = tmp_path / "checkout"
    here.mkdir()
    for name in sources():
        (here / name).parent.mkdir(parents=True, exist_ok=True)
        source = REPOSITORY / name
        if source.is_dir():
            shutil.copytree(source, here / name, ignore=junk)
        else:
            shutil.copy(source, here / name)
    return here


def sources() -> list[str]:
    """Return the files and folders of the repository; a checkout may hold others."""
    folders = [".ci", ".github", "benchmarks", "csrc", "examples", "fastctc", "python_tests"]
    files = [
        ".gitignore",
        "CHANGELOG.md",
        "CITATION.cff",
        "CMakeLists.txt",
        "LICENSE",
        "README.md",
        "pyproject.toml",
    ]
    return folders + files


BUILD_RESULTS = [
    "fastctc/_C.cpython-311-x86_64-linux-gnu.so",
    "fastctc/crnn/__pycache__/samples.cpython-311.pyc",
    "csrc/kernels/cpu/beam_search.o",
    "build/CMakeCache.txt",
    "dist/fastctc-0.0.1.tar.gz",
    "data/mine/image.png",
    "runs/demo/model.safetensors",
    ".venv/pyvenv.cfg",
    ".hypothesis/examples/1",
    "fastctc.egg-info/PKG-INFO",
]


def test_the_sdist_holds_the_sources_and_no_build_results(checkout: Path, tmp_path: Path) -> None:
    clean = build_sdist(checkout, tmp_path / "clean")
    for name in BUILD_RESULTS:
        (checkout / name).parent.mkdir(parents=True, exist_ok=True)
        (checkout / name).write_text("built")
    littered = build_sdist(checkout, tmp_path / "littered")
    assert littered.getnames() == clean.getnames()
    assert [each.size for each in littered] == [each.size for each in clean]

    root = f"fastctc-{fastctc.__version__}"
    names = {name.removeprefix(f"{root}/") for name in clean.getnames()}
    package = {path.relative_to(checkout).as_posix() for path in (checkout / "fastctc").rglob("*.py")}
    assert package <= names
    assert {
        "LICENSE",
        "CITATION.cff",
        "fastctc/py.typed",
        "fastctc/_C.pyi",
        "csrc/torch_ops/module.cpp",
    } <= names
    assert "fastctc/crnn/data/samples.py" in names, (
        "the pattern of a data folder excludes a part of the package"
    )
    assert not [name for name in names if name.startswith("benchmarks/results")]


def test_equal_sources_give_equal_sdists(checkout: Path, tmp_path: Path) -> None:
    first = build_sdist(checkout, tmp_path / "first")
    (checkout / "README.md").touch()
    second = build_sdist(checkout, tmp_path / "second")
    assert Path(str(first.name)).read_bytes() == Path(str(second.name)).read_bytes()


def test_metadata() -> None:
    metadata = importlib.metadata.metadata("fastctc")
    assert metadata["License-Expression"] == "Apache-2.0"
    assert metadata.get_all("License-File") == ["LICENSE"]
    assert {url.split(",")[0] for url in metadata.get_all("Project-URL") or []} >= {
        "Source",
        "Issues",
        "Changelog",
    }
    classifiers = metadata.get_all("Classifier") or []
    assert "Typing :: Typed" in classifiers
    # Only what has run.
    assert {each for each in classifiers if each.startswith("Operating System")} == {
        "Operating System :: POSIX :: Linux"
    }


# ---- the forge's files


def values(node: Any, key: str) -> list[Any]:
    """Return the values of all mappings that have this key, at any depth."""
    if isinstance(node, list):
        return [found for each in node for found in values(each, key)]
    if isinstance(node, dict):
        here = [node[key]] if key in node else []
        return here + [found for each in node.values() for found in values(each, key)]
    return []


def test_there_are_workflows_for_tests_wheels_docs_and_releases() -> None:
    assert {path.stem for path in WORKFLOWS} >= {"tests", "wheels", "docs", "release"}


@pytest.mark.parametrize("path", WORKFLOWS, ids=lambda path: path.stem)
def test_workflows(path: Path) -> None:
    """They parse, their rights are few, their actions have versions, and the scripts that they call exist."""
    workflow = yaml.safe_load(path.read_text())
    assert workflow["permissions"] == {"contents": "read"}
    for job in workflow["jobs"].values():
        assert "uses" in job or {"runs-on", "steps"} <= set(job)
        needs = job.get("needs", [])
        assert set([needs] if isinstance(needs, str) else needs) <= set(workflow["jobs"])
    for action in values(workflow, "uses"):
        if action.startswith("./"):
            assert (REPOSITORY / action).is_file(), action
        else:
            assert re.fullmatch(r"[\w.-]+(/[\w.-]+)+@v\d+(\.\d+)*", action), f"{action} has no version"
    for script in re.findall(r"\.ci/\w+(?:\.py)?", path.read_text()):
        assert (REPOSITORY / script).is_file(), script


@pytest.mark.parametrize("name", ["run", "package"])
def test_ci_scripts_are_valid(name: str) -> None:
    subprocess.run(["bash", "-n", REPOSITORY / ".ci" / name], check=True)


def test_the_package_script_explains_its_parts() -> None:
    script = REPOSITORY / ".ci" / "package"
    done = subprocess.run([script, "--help"], capture_output=True, text=True, check=True)
    for part in re.findall(r"^part_(\w+)\(", script.read_text(), re.MULTILINE):
        assert re.search(rf"^  {part} ", done.stdout, re.MULTILINE), part
    done = subprocess.run([script, "wheels"], capture_output=True, text=True)
    assert done.returncode == 2 and "no part 'wheels'" in done.stdout


def test_workflows_call_every_part_of_the_package_checks() -> None:
    """All but the part that needs nvcc, which the workflow of the wheels builds."""
    parts = set(re.findall(r"^part_(\w+)\(", (REPOSITORY / ".ci" / "package").read_text(), re.MULTILINE))
    called = values(yaml.safe_load((REPOSITORY / ".github/workflows/tests.yml").read_text()), "parts")
    (matrix,) = (each for each in called if isinstance(each, list))
    assert {part for parts in matrix for part in parts.split()} == parts - {"cuda"}


@pytest.mark.parametrize("path", TEMPLATES, ids=lambda path: path.stem)
def test_issue_templates(path: Path) -> None:
    template = yaml.safe_load(path.read_text())
    if path.stem == "config":
        return
    assert {"name", "description", "body"} <= set(template)
    for field in template["body"]:
        assert field["type"] in {"markdown", "textarea", "input", "dropdown", "checkboxes"}
        assert field["type"] == "markdown" or field["attributes"]["label"]
    ids = values(template["body"], "id")
    assert len(set(ids)) == len(ids)


def test_bug_reports_show_the_installation() -> None:
    template = yaml.safe_load((REPOSITORY / ".github/ISSUE_TEMPLATE/bug.yml").read_text())
    described = [field for field in template["body"] if "description" in field["attributes"]]
    (field,) = (each for each in described if "python -m fastctc" in each["attributes"]["description"])
    assert field["validations"]["required"]


def test_citation() -> None:
    citation = yaml.safe_load((REPOSITORY / "CITATION.cff").read_text())
    assert {"cff-version", "message", "title", "authors", "version", "date-released"} <= set(citation)
    assert (
        f"## [{citation['version']}] - {citation['date-released']}"
        in (REPOSITORY / "CHANGELOG.md").read_text()
    )
