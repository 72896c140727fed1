"""Print what this installation was built for and runs on, as ``python -m fastctc``."""

from fastctc.build import build_info

if __name__ == "__main__":
    for name, value in build_info().items():
        print(f"{name:20} {', '.join(value) if isinstance(value, list) else value}")
