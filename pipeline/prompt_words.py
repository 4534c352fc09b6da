"""Nouns from labels and placeholders, by rules small enough to read: no tagger, no model.

The rule: drop the leading verb and the stop words; what is left is the object.
"""

import re
from itertools import dropwhile

MAX_OBJECTS = 3
MAX_WORDS = 4
_NOTHING_TEXT = "something nothing it air stuff things thing some any"
_DETERMINERS_TEXT = (
    "a an the some one two three four five six seven eight nine ten my your his her its"
)
_MEASURES_TEXT = "piece pieces pair pairs bit bits bunch couple lot kind number"
_VERBS_TEXT = (
    "answer apply arm assemble bake balance bat beat bend blow board bowl box braid break brush "
    "build carry carve cast catch chase chew chop clap clean clear climb close comb cook count "
    "cover crack cross cry cut dance decorate dig dip dive do draw dribble drink drive drop drum "
    "eat exercise fall feed fill find fix flip fly fold follow get give golf grab grind grip grow "
    "hammer hang headbutt hide hit hold hop hug hurdle iron jog join juggle jump kick kiss knit "
    "knock laugh lay lift light load lock look lower make massage milk mix mop move mow open pack "
    "paint park pass peel pet pick pin play plug point poke polish pour press pull pump punch "
    "push put raise read remove ride rip rise roll row rub run sail salute sand saw scrub set sew "
    "shake sharpen shave shine shoot show shrink shuffle sing sit skate ski skip slap slide smile "
    "smoke snap sneeze sniff spin spray spread squeeze stack stand stir strum sweep swim swing "
    "swipe take talk tap taste tear throw tickle tie toss touch train trim turn twist type unbox "
    "unfold unlock use vault walk wash watch water wave wax weave weld whistle wipe wrap write "
    "yawn zip"
)
NOTHING = frozenset(_NOTHING_TEXT.split())
_DETERMINERS = frozenset(_DETERMINERS_TEXT.split())
_VERBS = frozenset(_VERBS_TEXT.split())
_MEASURES = frozenset(_MEASURES_TEXT.split())
"""What "a piece of paper" says of the paper; no segmenter finds a piece."""
_BREAKS = re.compile(
    r"\b(?:and|or|with|without|in|into|on|onto|off|out|of|from|to|at|by|for|over|under|through|up|down)\b|[,;/]"
)


def label_words(label: str) -> str:
    """Label as plain words: CamelCase split, ``_`` to spaces, brackets dropped, case folded."""
    apart = re.sub(r"(?<=[a-z0-9])(?=[A-Z])", " ", label)
    apart = re.sub(r"\([^)]*\)|\[[^\]]*\]", " ", apart)
    return " ".join(re.sub(r"[_\-]+", " ", apart).casefold().split())


def objects_of_label(label: str) -> tuple[str, ...]:
    """Objects that a class name mentions; empty where it names an action alone.

    Args:
        label: a class name, e.g. ``RidingBike``, ``pour_water into glass`` or ``sky diving``.

    Returns:
        At most three nouns.
    """
    words = label_words(label).split()
    if NOTHING & set(words):
        return ()
    if words and words[0] in _VERBS:
        words = words[1:]
    parts = [part.split() for part in _BREAKS.split(" ".join(words))]
    phrases = [clean_noun(" ".join(dropwhile(_is_doing, part))) for part in parts]
    # A phrase that ends in an -ing form, such as "sky diving", names what is done, not a thing.
    return _first([phrase for phrase in phrases if not phrase.endswith("ing")])


def objects_of_placeholders(placeholders: tuple[str, ...]) -> tuple[str, ...]:
    """Objects of a Something-Something video, from what its author wrote in the template's gaps.

    Args:
        placeholders: e.g. ``("a red cup", "part of the table")``.

    Returns:
        At most three nouns.
    """
    parts = [
        part for text in placeholders for part in re.split(r"\band\b|\bof\b|,", text.casefold())
    ]
    nouns = [clean_noun(part) for part in parts]
    return _first([noun for noun in nouns if noun not in _MEASURES])


def _is_doing(word: str) -> bool:
    return word.endswith("ing")


def clean_noun(phrase: str) -> str:
    """Phrase without determiners, numbers and brackets; empty where nothing nameable is left."""
    words = re.sub(r"[^\w' -]|[\d_]", " ", phrase.casefold()).replace("'s ", " ").split()
    kept = [word for word in words if word not in _DETERMINERS and word not in NOTHING]
    return " ".join(kept) if len(kept) <= MAX_WORDS else ""


def _first(phrases: list[str]) -> tuple[str, ...]:
    return tuple(dict.fromkeys(phrase for phrase in phrases if phrase))[:MAX_OBJECTS]
