"""Tables of results: methods or settings in rows, in the form that is asked for."""

from collections.abc import Callable

from i2st_model.reporting.forms import comma_separated, json_text, latex, markdown, text
from i2st_model.reporting.result_tables import ResultTable, Row
from pipeline.errors import ConfigError

__all__ = ["FORMS", "ResultTable", "Row", "render", "require_form"]

FORMS: dict[str, Callable[[ResultTable], str]] = {
    "table": text,
    "markdown": markdown,
    "csv": comma_separated,
    "latex": latex,
    "json": json_text,
}


def render(table: ResultTable, form: str, width: int | None = None) -> str:
    """Write a table out.

    Args:
        table: what to show.
        form: a key of `FORMS`.
        width: columns of the terminal, for the form that is read there; None where it is none.

    Returns:
        Text without a line feed at its end.

    Raises:
        ConfigError: there is no such form.
    """
    require_form(form)
    return text(table, width) if form == "table" else FORMS[form](table)


def require_form(form: str) -> None:
    """Refuse an unknown form, before the work begins.

    Args:
        form: as for `render`.

    Raises:
        ConfigError: there is no such form.
    """
    if form not in FORMS:
        raise ConfigError(
            f"format={form!r} is unknown; known: {', '.join(FORMS)}; choose one of them"
        )
