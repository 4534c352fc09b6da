"""What a model that finds things by itself is asked for in each slot, and which answers count."""

from pipeline.prompts import PromptSet
from pipeline.segmenters import MASK_SIDE
from pipeline.segmenters.mask_packing import SlotMasks


def nouns_by_slot(prompts: PromptSet) -> dict[int, tuple[str, ...]]:
    """Nouns to look for, lower case, without those that only narrow another of their slot.

    CLIP answers weakly to "person" on clothes and is asked for "person in shirt" too; a detector
    that finds persons finds that one.

    Args:
        prompts: of one clip.

    Returns:
        Slot -> its synonyms; slots without nouns are left out.
    """
    named = {0: prompts.actor, **{i: (noun,) for i, noun in enumerate(prompts.objects, start=1)}}
    cleaned = {slot: _distinct(nouns) for slot, nouns in named.items()}
    return {slot: nouns for slot, nouns in cleaned.items() if nouns}


def _distinct(nouns: tuple[str, ...]) -> tuple[str, ...]:
    # Full stops and question marks end a phrase for Grounding DINO.
    words = [noun.lower().replace(".", " ").replace("?", " ").split() for noun in nouns]
    names = list(dict.fromkeys(" ".join(word) for word in words if word))
    wider = [f"{name} " for name in names]
    return tuple(name for name in names if not name.startswith(tuple(wider)))


def limit_area(masks: SlotMasks, *, min_area: float, max_area: float) -> SlotMasks:
    """Empty masks that cover too little or nearly everything, so that they are not found.

    Args:
        masks: of B frames.
        min_area: least share of the frame.
        max_area: largest.

    Returns:
        The others as they are.
    """
    area = masks.cells.sum(dim=(-2, -1)) / MASK_SIDE**2
    fits = (area >= min_area) & (area <= max_area)
    return SlotMasks(masks.cells & fits[..., None, None], masks.score)
