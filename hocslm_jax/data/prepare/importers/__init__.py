"""Files that other projects prepared from NTU RGB+D: CTR-GCN's .npz and pyskl's pickles."""
