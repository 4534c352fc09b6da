"""The parts of `pipeline.extract`: what is to be done, and the work on one chunk of videos.

plan           settings, and the chunks that are left    report         what a caller sees
backends       decoder, encoder, segmenter; fingerprint  work           a chunk becomes a shard
viewed_clips   decoding ahead of the encoder             rows           a clip becomes a row
interruption   stopping between two shards
"""
