"""Segmenters and detectors that take words by themselves, through transformers.

sam3, sam3_model                    SAM 3
grounding_dino_sam, grounding_dino  boxes of Grounding DINO, masks of SAM; box_selection between
transformers_models, slot_nouns     what both share: loading, and the nouns of a prompt's slots
"""
