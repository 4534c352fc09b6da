"""Stage one: videos -> shards. Knows no network of stage two and no episode."""
