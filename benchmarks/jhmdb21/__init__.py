"""I2ST and its rivals on real videos: JHMDB-21, frozen features, CPU.

    python -m benchmarks.jhmdb21 --out DIR [--data DIR] [--seeds 3] [--jobs 2]
                                 [--only NAME,NAME] [--splits fixed,folds] [--dry-run] [--docs]

One command extracts what is needed, trains every variant on every split with every seed, and
evaluates all on the same episodes. Every job leaves one file when it is done, so that a killed call
goes on; `--dry-run` says what is missing and prints the tables of what is there.

Splits: the fixed one (12 train, 5 test classes), and six folds of class cross-validation inside its
16 train and val classes (11 train, 5 test): three disjoint sets of test classes out of each of two
random orders (numpy's default_rng(0) and default_rng(1)). Weights are the last of a fixed schedule,
so nothing is selected on test classes; where a variant has candidates, they are compared by cross-
validation inside the split's own train classes. No query shares its source video with any support
clip of its episode.
"""
