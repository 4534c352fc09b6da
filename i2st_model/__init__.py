"""Stage two: shards -> accuracy. Decodes no video."""
