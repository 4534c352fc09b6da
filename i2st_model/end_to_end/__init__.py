"""Training from pixels: the encoder learns together with what stands on its features.

encoder_config   which encoder, and what of it trains        open_store      shards of either kind
trainable        an encoder with gradients                   parameters      which weights train
adapters         low-rank adapters of its layers             framing         crops: frames, masks
frame_clips      stored frames -> clips of views             colour_jitter   clips in other light
encoded_frames   rows of frames, read as features            frame_store     only frames asked for
frame_draws      the clips that a step sees                  frame_learner   what `train` trains
"""
