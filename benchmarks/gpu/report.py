"""Writes measurements to JSON as they are made, and at the end a short table and a chart."""

import json
from html import escape
from pathlib import Path
from typing import Any

BARS = (
    ("ones_per_s", "batches of one", "#b8b8b8"),
    ("engine_per_s", "engine", "#1f6feb"),
    ("offline_per_s", "same execution, no queue", "#8ab4f8"),
    ("bare_per_s", "torch alone, copies hidden", "#dadce0"),
)
SUBTITLE = "Rows per second, at saturation. Each model's bars are shares of its fastest."
NAME_WIDTH, BAR_WIDTH, ROW = 110, 520, 18


class Results:
    """The results, written to the file after each section, so that an interrupted run loses nothing printed."""

    def __init__(self, path: Path, head: dict[str, Any]) -> None:
        self.path = path
        self.found: dict[str, Any] = {**head, "models": {}}

    def put(self, model: str, section: str, value: Any) -> None:
        self.found["models"].setdefault(model, {})[section] = value
        self.write()

    def fail(self, model: str, section: str, why: str) -> None:
        self.put(model, "failed", self.found["models"].get(model, {}).get("failed", {}) | {section: why})

    def write(self) -> None:
        self.path.parent.mkdir(parents=True, exist_ok=True)
        self.path.write_text(json.dumps(self.found, indent=1) + "\n")
        self.path.with_suffix(".svg").write_text(picture(self.found))


def table(found: dict[str, Any]) -> str:
    """Formats one line per model, with a dash for each missing value."""
    head = (
        "model", "batch", "ms", "rows/s", "/offline", "/bare", "/ones", "ray", "goodput", "hidden", "busy", "NVML",
        "SM", "tensor", "right",
    )  # fmt: skip
    lines = [head]
    for name, sections in found["models"].items():
        summary = summarise(sections)
        lines.append((name, *(summary.get(key, "-") for key in head[1:])))
    widths = [max(len(line[column]) for line in lines) for column in range(len(head))]
    return "\n".join(
        "  ".join(cell.ljust(width) if not column else cell.rjust(width)
                  for column, (cell, width) in enumerate(zip(line, widths, strict=True)))
        for line in lines
    )  # fmt: skip


def failures(found: dict[str, Any]) -> list[str]:
    return [
        f"{name}: {section} failed: {why}"
        for name, sections in found["models"].items()
        for section, why in sections.get("failed", {}).items()
    ]


def summarise(sections: dict[str, Any]) -> dict[str, str]:
    """Formats the columns of one model."""
    rates, cells = sections.get("rates", {}), {}
    if "offline_rows" in rates:
        cells["batch"] = str(rates["offline_rows"])
        cells["ms"] = f"{rates['offline_rows'] / rates['offline_per_s'] * 1e3:.2f}"
    engine = rates.get("engine_per_s")
    if engine:
        cells["rows/s"] = f"{engine:.0f}"
        for column, key in (("/offline", "offline_per_s"), ("/bare", "bare_per_s"), ("/ones", "ones_per_s")):
            if rates.get(key):
                cells[column] = f"{engine / rates[key]:.2f}"
        cells["busy"] = f"{rates['busy_share']:.2f}"
    if sections.get("ray", {}).get("ratio"):
        cells["ray"] = f"{sections['ray']['ratio']:.2f}"
    if sections.get("goodput"):
        cells["goodput"] = "/".join(_ratio(point) for point in sections["goodput"])
    if sections.get("copies", {}).get("hidden_share") is not None:
        cells["hidden"] = f"{sections['copies']['hidden_share']:.2f}"
    gpu = sections.get("gpu", {})
    for column, key in (("NVML", "busy_ratio"), ("SM", "sm_active_ratio"), ("tensor", "tensor_active_ratio")):
        if gpu.get(key) is not None:
            cells[column] = f"{gpu[key]:.2f}"
    if "failed" in sections:
        cells["right"] = "FAILED"
    elif "correct" in sections:
        cells["right"] = "yes" if sections["correct"]["holds"] else "NO"
    return cells


def _ratio(point: dict[str, Any]) -> str:
    return "-" if point["ratio"] is None else f"{min(point['ratio'], 9.99):.2f}"


def picture(found: dict[str, Any]) -> str:
    """Draws rows per second as bars relative to the fastest of each model."""
    parts, x, y = [_text(4, 18, found["title"], 13), _text(4, 36, SUBTITLE, 11)], 4, 48
    measured = {key for sections in found["models"].values() for key in sections.get("rates", {})}
    for title, colour in ((title, colour) for key, title, colour in BARS if key in measured):
        parts.append(f'<rect x="{x}" y="{y}" width="12" height="12" fill="{colour}"/>')
        parts.append(_text(x + 18, y + 10, title, 11))
        x += 36 + 6 * len(title)
    y += ROW
    for name, sections in found["models"].items():
        rates = sections.get("rates", {})
        most = max((rates.get(key) or 0.0 for key, _, _ in BARS), default=0.0)
        y += 12
        parts.append(_text(4, y + 12, name if most else f"{name}: not measured", 13))
        y += 0 if most else ROW
        for key, title, colour in BARS:
            rate = rates.get(key)
            if rate:
                width = BAR_WIDTH * rate / most
                parts.append(
                    f'<rect x="{NAME_WIDTH}" y="{y}" width="{width:.1f}" height="{ROW - 4}" fill="{colour}">'
                    f"<title>{escape(title)}: {rate:,.0f} rows/s</title></rect>"
                )
                parts.append(_text(NAME_WIDTH + width + 6, y + 11, f"{rate:,.0f}/s", 11))
                y += ROW
    body = "".join(parts)
    size = f'viewBox="0 0 {NAME_WIDTH + BAR_WIDTH + 90} {y + 12}" font-family="sans-serif"'
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" {size}><rect width="100%" height="100%" fill="#fff"/>{body}</svg>\n'
    )


def _text(x: float, y: float, text: str, size: int) -> str:
    return f'<text x="{x:.1f}" y="{y:.1f}" font-size="{size}">{escape(text)}</text>'
