"""Drawings of how fastctc is made: number types, rooms, CUDA kernels and their emulation, the network."""

from __future__ import annotations

from drawings.svg import Sheet


def scaled_floats() -> Sheet:
    """Draw how a product of 1,000 probabilities is kept: as a float, as a logarithm, as a scaled float."""
    sheet = Sheet(700, 222)
    sheet.text(350, 22, "0.1 multiplied 1,000 times", "", 15)
    rows = (
        ("float32", "0", "There is nothing between 1.4e-45 and 0.", "second"),
        ("logarithm", "−2302.585", "Each sum needs exp and log; few digits are left.", "muted"),
        ("scaled float", "1.0715 · 2^−3322", "m in [1, 2), an exponent of its own, no logarithm", "accent"),
    )
    for i, (name, value, remark, kind) in enumerate(rows):
        y = 42 + i * 58
        sheet.rect(10, y, 680, 48, "card")
        sheet.text(26, y + 29, name, "", 14, "start")
        sheet.text(128, y + 29, value, f"mono {kind}", 15, "start")
        sheet.text(300, y + 29, remark, "muted", 14, "start")
    return sheet


def rooms() -> Sheet:
    """Draw the folders, and which way includes and imports go."""
    sheet = Sheet(720, 296)
    python = (("fastctc.crnn, fastctc.cli", "the recognizer and its commands"),
              ("loss, alignment, decode, text, plot", "what a user calls; types and shapes"),
              ("ops, autograd, batching", "operators of PyTorch, their derivatives"))  # fmt: skip
    kernels = (("csrc/torch_ops", "the only C++ that includes torch"),
               ("csrc/kernels", "loops over memory: cpu/ and cuda/"),
               ("csrc/math", "formulas, for host and device"))  # fmt: skip
    for column, (title, boxes) in enumerate((("Python", python), ("C++ and CUDA", kernels))):
        x = 10 + column * 370
        sheet.text(x + 165, 22, title, "muted", 14)
        for i, (name, what) in enumerate(boxes):
            y = 38 + i * 88
            sheet.rect(x, y, 330, 60, "card")
            sheet.text(x + 165, y + 26, name, "mono", 13.5)
            sheet.text(x + 165, y + 47, what, "muted", 12.5)
            if i:
                sheet.arrow(x + 165, y - 26, x + 165, y - 3)
    sheet.path("M340 244C362 244 356 68 377 68", "line")
    sheet.arrow(376, 68, 379, 68)
    return sheet


def meeting() -> Sheet:
    """Draw the two walks of the loss on CUDA: both directions at once, meeting in the middle."""
    sheet = Sheet(700, 226)
    left, middle, right = 130, 390, 650
    sheet.line(middle, 30, middle, 176, "thin")
    for x, name in ((left, "frame 0"), (middle, "middle"), (right, "frame T")):
        sheet.text(x, 22, name, "muted", 13)
    sheet.text(left - 20, 73, "first half", "", 14, "end")
    sheet.text(left - 20, 143, "second half", "", 14, "end")
    sheet.arrow(left, 58, middle - 8, 58, "bold", 8)
    sheet.arrow(right, 58, middle + 8, 58, "bold2", 8)
    sheet.arrow(middle - 8, 128, left, 128, "bold2", 8)
    sheet.arrow(middle + 8, 128, right, 128, "bold", 8)
    for x, y, text, kind in (
        (260, 82, "forward, states kept", "accent"), (520, 82, "backward, states kept", "second"),
        (260, 152, "backward meets the kept states", "second"),
        (520, 152, "forward meets the kept states", "accent"),
    ):  # fmt: skip
        sheet.text(x, y, text, kind, 13)
    sheet.text(middle, 112, "P(target)", "", 13)
    sheet.text(middle, 204, "state forward × state backward / P = posterior of a label in a frame", "", 14)
    return sheet


def warp() -> Sheet:
    """Draw a warp of lanes: each lane holds a blank and a label, and hands its label to its neighbor."""
    sheet = Sheet(700, 232)
    step, left = 104, 60
    for lane in range(6):
        x = left + lane * step
        sheet.rect(x - 42, 40, 84, 134, "card")
        sheet.text(x, 30, f"lane {lane}" if lane < 5 else "lane 5 …", "muted", 13)
        sheet.circle(x, 78, 17, "box")
        sheet.text(x, 83, "–", "muted", 15)
        sheet.circle(x, 138, 17, "box")
        sheet.text(x, 143, "CTCLOS"[lane], "mono", 15)
        sheet.arrow(x, 97, x, 119, "line")
        if lane:
            sheet.arrow(x - step + 19, 134, x - 19, 86, "bold", 7)
            sheet.arrow(x - step + 19, 140, x - 19, 140, "bold", 7)
    sheet.text(
        350, 208, "blue: the neighbor's label, one exchange between lanes for each frame", "accent", 14
    )
    return sheet


def emulation() -> Sheet:
    """Draw the emulation of a block: fibers on one CPU thread, switched at barriers in any order."""
    sheet = Sheet(700, 250)
    sheet.text(20, 26, "a CUDA block: its threads run at once", "", 14, "start")
    for i in range(4):
        x = 40 + i * 60
        sheet.text(x, 52, f"{i}", "muted", 13)
        sheet.line(x, 62, x, 116, "bold")
        sheet.line(x, 132, x, 186, "bold")
    sheet.line(20, 124, 240, 124, "line")
    sheet.text(130, 212, "__syncthreads()", "mono muted", 12.5)
    sheet.text(330, 26, "emulated: one CPU thread, fibers in random order", "", 14, "start")
    for row, order in enumerate(((2, 0, 3, 1), (1, 3, 0, 2))):
        y = 74 + row * 78
        for place, thread in enumerate(order):
            x = 336 + place * 84
            sheet.rect(x, y - 18, 74, 36, "card")
            sheet.text(x + 37, y + 5, f"thread {thread}", "mono", 12.5)
        sheet.text(
            336,
            y + 38,
            "before the barrier" if row == 0 else "behind it, another order",
            "muted",
            12.5,
            "start",
        )
    sheet.text(
        350,
        242,
        "a missing barrier gives a wrong result in some order, and the sanitizers see it",
        "muted",
        13,
    )
    return sheet


def network() -> Sheet:
    """Draw the recognizer: image, convolutions, frames, head, log-probabilities, text."""
    sheet = Sheet(720, 150)
    boxes = (
        ("image", "one line, any width"), ("filters", "gray, tone, height"), ("convolutions", "pooling"),
        ("columns", "become frames"), ("head", "conv or LSTM"), ("log-probs", "(T, classes)"),
    )  # fmt: skip
    for i, (name, what) in enumerate(boxes):
        x = 8 + i * 119
        sheet.rect(x, 20, 104, 58, "card")
        sheet.text(x + 52, 45, name, "", 14)
        sheet.text(x + 52, 65, what, "muted", 10.5)
        if i:
            sheet.arrow(x - 14, 49, x - 2, 49)
    sheet.arrow(655, 80, 655, 104)
    sheet.text(655, 124, "training: ctc_loss", "accent", 13)
    sheet.text(655, 142, "reading: beam_search", "second", 13)
    sheet.text(
        8, 124, "The checkpoint keeps the filters: reading does what training did.", "muted", 13, "start"
    )
    return sheet
