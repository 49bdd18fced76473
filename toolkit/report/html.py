"""Templates to one HTML file that needs nothing else."""

from __future__ import annotations

import base64
import hashlib
import math
from pathlib import Path
from typing import Any

from jinja2 import Environment, PackageLoader, StrictUndefined
from markupsafe import Markup

from toolkit.console import duration, number, rate


def render_page(template: str, measure: str = "success", **values: Any) -> str:
    """A page from a template beside this module; every value is escaped. `measure` says how scores are written."""
    environment = Environment(
        loader=PackageLoader("toolkit.report", "."),
        autoescape=True,
        undefined=StrictUndefined,
        trim_blocks=True,
        lstrip_blocks=True,
    )
    environment.filters |= {"number": show_number, "score": show_score(measure), "duration": show_duration}
    style, script = (Markup(_source(name)) for name in ("page.css", "page.js"))
    policy = _policy(style, script)
    page = environment.get_template(template).render(style=style, script=script, policy=policy, **values)
    return page.encode(errors="replace").decode()  # half a character, as JSON and names of folders may hold


def show_number(value: Any) -> str:
    """About three digits, a dash where there is none."""
    text = number(value) if isinstance(value, int | float) else "-"
    return "–" if text == "-" else text.replace("-", "−")


def show_rate(value: Any) -> str:
    """A share of one, a dash where there is none."""
    return rate(value).replace("-", "–") if isinstance(value, int | float) else "–"


def show_score(measure: str) -> Any:
    """How scores of a measure, success or return, are written."""
    return show_rate if measure == "success" else show_number


def show_duration(seconds: float) -> str:
    """Minutes and seconds, a dash where unknown."""
    return "–" if math.isnan(seconds) else duration(seconds)


def _source(name: str) -> str:
    return Path(__file__).with_name(name).read_text(encoding="utf-8")


def _policy(style: str, script: str) -> str:
    """Content security policy: this page's own style and script, and nothing from anywhere."""
    style_hash, script_hash = (
        base64.b64encode(hashlib.sha256(text.encode()).digest()).decode() for text in (style, script)
    )
    return (
        f"default-src 'none'; style-src 'sha256-{style_hash}'; script-src 'sha256-{script_hash}'; "
        "base-uri 'none'; form-action 'none'"
    )
