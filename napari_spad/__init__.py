"""napari-spad: open CT and MR with their true geometry, segment organs, look into the tokens."""
