"""Files prepared by other projects: CTR-GCN's .npz and pyskl's pickles."""
