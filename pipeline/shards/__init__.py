"""The on-disk format, both directions: what stage one writes and stage two maps.

    records.py     the tables: VideoRow, Failure, ShardRecord; dataset_digest
    rows.py        VideoFeatures with their views, VideoFrames: what stage one gives
    jpegs.py       frames <-> the JPEG bytes of a frame store
    layout.py      the datasets of one shard and the sha256 of one row
    filling.py     rows -> the arrays of one shard
    writer.py      ShardWriter: rows -> image in memory -> file -> sidecar
    committed.py   committed, finish: what a folder holds already; sidecars -> index.json
    index.py       ShardIndex: index.json, without h5py, numpy or torch
    structure.py   refuses an HDF5 file that is not plain contiguous arrays
    mapping.py     one shard, checked and mapped
    gathering.py   rows of one array over many mapped shards
    reader.py      ShardReader: rows -> arrays
    verify.py      verify: recomputes every checksum
    sidecar.py, fingerprint.py, sealed_json.py, files.py, lock.py, failpoints.py: beneath these

Import from the modules; this file stays empty so that ``i2st info`` starts fast.
"""

FORMAT_VERSION = 1
