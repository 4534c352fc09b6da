"""Progress on a terminal: a bar that fits its width, and what there is to say below it."""

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from rich.console import Console, RenderableType
from rich.progress import (
    BarColumn,
    MofNCompleteColumn,
    Progress,
    ProgressColumn,
    SpinnerColumn,
    TextColumn,
    TimeElapsedColumn,
)
from rich.text import Text

from pipeline.columns import wrapped
from pipeline.commands.console import duration_words

if TYPE_CHECKING:
    from pipeline.commands.progress import Show


class _WithWords(Progress):
    """The bar, and the words of its task on the lines below: never cut, never broken."""

    def get_renderables(self) -> Iterable[RenderableType]:
        """Yield what is drawn, line by line."""
        yield from super().get_renderables()
        for task in self.tasks:
            yield from (
                Text(line)
                for line in wrapped("  " + task.fields["words"], self.console.width, "  ")
            )


@contextmanager
def bar(what: str) -> Iterator["Show"]:
    """Show progress on a terminal."""
    console = Console(stderr=True)
    columns: tuple[ProgressColumn, ...] = (
        SpinnerColumn(),  # it and the time passed move between steps, too
        TextColumn(what),
        BarColumn(bar_width=min(40, console.width // 4)),
        MofNCompleteColumn(),
        TimeElapsedColumn(),
        TextColumn("{task.fields[left]}"),
    )
    with _WithWords(*columns, console=console) as screen:
        task = screen.add_task(what, total=None, words="", left="")

        def show(
            done: int,
            total: int,
            words: str,
            *,
            under_way: str = "",
            seconds_left: float | None = None,
        ) -> None:
            screen.update(task, completed=done, total=total, words=under_way or words)
            # Who knows which steps were done before this run tells the time better than the bar.
            left = screen.tasks[0].time_remaining if seconds_left is None else seconds_left
            screen.update(task, left="" if not left else f"{duration_words(left)} left")

        yield show
