"""`make measured`: docs/reference/measured.md from the last line of each bench and drill in results.jsonl."""

from __future__ import annotations

import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

HERE = Path(__file__).resolve().parent
PAGE = HERE.parent / "docs" / "reference" / "measured.md"
BENCHES = {
    "serve": ("One prediction", "make bench-serve"),
    "workers": ("Several workers, and memory", "make bench-workers"),
    "dialects": ("Dialects", "make bench-dialects"),
    "drill": ("Deaths, reloads and stops", "make drill"),
    "drill history": ("Disks, clocks and damage", "make drill-history"),
    "fuzz": ("Nonsense and crowds", "make fuzz"),
    "batch": ("Tables from disk to disk", "make bench-batch"),
}
ABOUT = {
    "serve": """One worker on one core, a 200-tree model, an API key with a quota, journal, metrics. The floor is a
bare JSON echo on the same server software; plain is FastAPI with ONNX Runtime and no history.""",
    "workers": "CPU of all processes per answered request, two workers against one; then two million requests.",
    "dialects": "The same rows through other wires, against the native one in the same run.",
    "drill": """Two workers under constant load. What was acknowledged must be in history exactly once, as it was
answered.""",
    "drill history": """One server asked all the while: its disk fills, its clock jumps, its store locks, its journal
is damaged.""",
    "fuzz": "Spoiled requests, zip bombs, slow senders and idle connections, while one client works.",
    "batch": "A million rows against bare ONNX Runtime on arrays that lie ready.",
}
INTRO = """# What was measured

Made from `bench/results.jsonl` by `make measured`. The machines are shared: requests a second drift from run to run,
ratios within a run hold.
"""


def main() -> None:
    """Write the page."""
    last: dict[str, dict[str, Any]] = {}
    for line in (HERE / "results.jsonl").read_text().splitlines():
        found = json.loads(line)
        last[found["bench"]] = found
    parts = [part for name in BENCHES if name in last for part in section(name, last[name])]
    PAGE.write_text("\n".join([INTRO, *parts]).rstrip() + "\n")


def section(name: str, found: dict[str, Any]) -> Iterator[str]:
    """One bench: what it is, when it ran, its figures."""
    title, command = BENCHES[name]
    yield f"## {title}\n\n{ABOUT[name]}\n"
    kept = "every promise was kept" if found["kept"] else "not every promise was kept"
    yield f"`{command}`, {found['at'][:10]}, commit `{found['commit']}`, {found['cores']} cores: {kept}.\n"
    if name == "fuzz":
        yield from table("part", ((part, figure) for part, figure in flat(found) if part not in COMMON))
        return
    for scenario, checks in found.get("scenarios", {"": found.get("checks", {})}).items():
        if scenario:
            yield f"### {scenario.capitalize()}\n"
        yield from table("what", checks.items())


COMMON = frozenset({"bench", "at", "commit", "python", "cores", "load", "kept"})


def flat(found: dict[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
    """Figures inside figures, by the way to them."""
    for key, value in found.items():
        if isinstance(value, dict):
            yield from flat(value, f"{prefix}{key} ")
        else:
            yield f"{prefix}{key}", value


def table(heading: str, rows: Any) -> Iterator[str]:
    """Two columns."""
    yield f"| {heading} | found |\n|---|---:|"
    for name, figure in rows:
        shown = f"{figure:,.4g}" if isinstance(figure, float) and abs(figure) < 1e4 else f"{figure:,}"
        yield f"| {name} | {shown} |"
    yield ""


if __name__ == "__main__":
    main()
