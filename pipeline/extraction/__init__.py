"""The parts of `pipeline.extract`.

config         settings                                  plan           the shards that are left
run            one run over a locked folder              portions       the unit of work
assembler      portions become shards                    report         what a caller sees
remembered     models of the last run                    made_by        what workers say of theirs
fingerprint    what decides the shards' content

In a worker: ``worker`` takes a portion through ``viewed_clips`` (decoded, seen), ``segmenting`` and
``storing`` (rows made), with the models of ``backends`` behind ``gates``; ``stages`` times it.
"""
