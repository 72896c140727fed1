"""Write README's picture: ``PYTHONPATH=docs/_extensions python -m drawings``."""

from pathlib import Path

from drawings import DRAWINGS

TITLE = "An image of a formula, what the model sees in each frame, and the text read from it"

if __name__ == "__main__":
    path = Path(__file__).resolve().parents[2] / "overview.svg"
    path.write_text(DRAWINGS["overview"]().standalone(TITLE), encoding="utf-8")
    print(path)
