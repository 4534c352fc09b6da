"""Class name -> PromptSet, from four sources in order: user YAML, curated table, placeholders, parser."""

from dataclasses import dataclass


@dataclass(frozen=True, kw_only=True, slots=True)
class PromptSet:
    """Nouns that name what acts and what is acted on."""

    key: str
    """Class name or video id."""
    actor: tuple[str, ...]
    """Synonyms of the actor; empty where the camera acts."""
    objects: tuple[str, ...]
    """At most three nouns, one slot each."""
    source: str
    """yaml, table, placeholders or parser."""
