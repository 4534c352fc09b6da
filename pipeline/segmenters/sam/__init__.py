"""SAM (Kirillov et al. 2023, arXiv:2304.02643) for prompts of many frames, beside segment_anything.

checkpoints   weights, found or downloaded once; published_weights has their checksums
loading       the model, its type read off its checkpoint
attention     the encoder's attention, fused
decoding      frames to embeddings, prompts to candidate masks; mask_decoder does the latter
points        a grid of prompts
"""
