"""Links to names of PyTorch and Python, from a table: a build needs no network."""

from __future__ import annotations

import importlib
from typing import Any

from docutils import nodes
from sphinx.addnodes import pending_xref
from sphinx.application import Sphinx
from sphinx.environment import BuildEnvironment

TORCH = "https://docs.pytorch.org/docs/stable"
PYTHON = "https://docs.python.org/3"
PAGES = {
    "torch.Tensor": f"{TORCH}/tensors.html",
    "Tensor": f"{TORCH}/tensors.html",
    "torch.device": f"{TORCH}/tensor_attributes.html",
    "torch.nn.functional.ctc_loss": f"{TORCH}/generated/torch.nn.functional.ctc_loss.html",
    "torch.nn.CTCLoss": f"{TORCH}/generated/torch.nn.CTCLoss.html",
    "torch.nn.Module": f"{TORCH}/generated/torch.nn.Module.html",
    "secrets": f"{PYTHON}/library/secrets.html",
}
EXCEPTIONS = "ValueError TypeError RuntimeError FileNotFoundError ModuleNotFoundError OSError KeyboardInterrupt"
BUILTINS = "bool bytes dict float frozenset int list None object range str tuple"
STANDARD = {
    "Callable": "collections.abc", "Iterable": "collections.abc", "Iterator": "collections.abc",
    "Sequence": "collections.abc", "Mapping": "collections.abc", "Collection": "collections.abc",
    "Path": "pathlib", "Random": "random", "Any": "typing", "Counter": "collections", "Protocol": "typing", "NamedTuple": "typing",
}  # fmt: skip

# Types in signatures that are no part of the public interface, and types of other packages.
PLAIN = {
    "Axes", "Figure", "Image", "Image.Image", "npt.NDArray", "np.uint8", "np.ndarray", "nn.Module", "Lengths",
    "optional", "Literal",
}  # fmt: skip

# Where docstrings that are shown under another module find the names they mention.
ROOMS = (
    "fastctc.crnn.data", "fastctc.crnn.data.preprocess", "fastctc.crnn.data.settings", "fastctc.crnn.formulas",
    "fastctc.crnn.formulas.fonts", "fastctc.crnn.model", "fastctc.crnn.read", "fastctc.crnn.training",
)  # fmt: skip


def page_of(name: str) -> str | None:
    """Return the address of the page on a name; None if the table does not have it."""
    short = name.rpartition(".")[2]
    if name in PAGES:
        return PAGES[name]
    if name in EXCEPTIONS.split():
        return f"{PYTHON}/library/exceptions.html#{name}"
    if name in BUILTINS.split():
        return f"{PYTHON}/library/stdtypes.html"
    if short in STANDARD and name in (short, f"{STANDARD[short]}.{short}"):
        return f"{PYTHON}/library/{STANDARD[short]}.html#{STANDARD[short]}.{short}"
    return None


def resolve(
    app: Sphinx, env: BuildEnvironment, node: pending_xref, content: nodes.TextElement
) -> nodes.Node | None:
    """Return a link to a name that these pages do not describe; None is a warning."""
    name = str(node.get("reftarget", ""))
    if node.get("refdomain") != "py":
        return None
    page = page_of(name)
    if page is not None:
        return nodes.reference("", "", content, internal=False, refuri=page, reftitle=name)
    return content if name in PLAIN or exists(name, node.get("py:module")) else None


def exists(name: str, module: str | None) -> bool:
    """Return True if a name is one of fastctc, of those that these pages leave out."""
    for path in (name, f"{module}.{name}", *(f"{room}.{name}" for room in ROOMS)):
        parts = path.split(".")
        for end in range(len(parts), 0, -1):
            try:
                found: Any = importlib.import_module(".".join(parts[:end]))
            except ImportError:
                continue
            if parts[0] == "fastctc" and all(
                (found := getattr(found, part, None)) is not None for part in parts[end:]
            ):
                return True
            break
    return False


def setup(app: Sphinx) -> dict[str, Any]:
    """Register the table."""
    app.connect("missing-reference", resolve)
    return {"parallel_read_safe": True, "parallel_write_safe": True}
