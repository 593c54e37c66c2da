"""From raw recordings to a dataset on disk: the readers, the checks and the writer."""
