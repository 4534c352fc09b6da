"""Pictures of frames with their masks: a video's (clips), or what shards hold (shards)."""
