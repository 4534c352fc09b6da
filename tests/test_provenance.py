"""What results say of the runs that their weights come from."""

from dataclasses import replace

from i2st_model.records.provenance import Provenance


def test_runs_are_named_by_folder_seed_and_content():
    made_by = Provenance(
        method="i2st", uses_class_names=False, digest="d" * 64, precision="float32", run="r"
    )
    assert made_by.run_words() == "run r, checkpoint unknown"
    known = replace(made_by, checkpoint_sha256="ab" * 32, train_seed=3)
    assert known.run_words() == "run r, seed 3, checkpoint abababababab"
